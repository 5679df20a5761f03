// Strict reading of the core's answers. Each function gives the answer, or null: an unknown shape is a refusal.
import { MAX_REASON_CHARS, MAX_RESULT_CHARS } from "./constants.js";
import { sha256, textOf } from "./digest.js";
import { isPlain } from "./frames.js";

const OUTCOMES = new Set(["allow", "require_approval", "block"]);
const CLASSES = new Set(["GREEN", "YELLOW", "YELLOW_EXTERNAL", "RED", "CRITICAL_RED"]);
const PROFILES = new Set(["recommended", "builtin"]);
const DIGEST = /^[0-9a-f]{64}$/;
const DECISION_KEYS = new Set([
  "id", "call", "call_digest", "outcome", "class", "external", "effects", "rules", "opaque", "level", "gate",
  "request", "expires_in_s", "reason", "bundle_sha256", "plan_sha256", "at",
]);

/** Exactly these keys, of which `required` must be there. */
function shaped(value, required, optional = []) {
  if (!isPlain(value)) return false;
  const known = new Set([...required, ...optional]);
  return required.every((key) => Object.hasOwn(value, key)) && Object.keys(value).every((key) => known.has(key));
}

const isText = (value, max) => typeof value === "string" && value.length <= max;
const isCount = (value) => Number.isSafeInteger(value) && value >= 0;

/** An error answer's code, or null when it is not one. */
export function readError(answer) {
  if (!shaped(answer, ["id", "ok", "error"]) || answer.ok !== false || !isPlain(answer.error)) return null;
  return isText(answer.error.code, 32) ? answer.error.code : null;
}

export function readHello(answer) {
  const good =
    shaped(answer, ["core_version", "profile", "ready"], ["nonce", "complaint"]) &&
    isText(answer.core_version, 64) &&
    PROFILES.has(answer.profile) &&
    typeof answer.ready === "boolean";
  return good ? answer : null;
}

/**
 * A refusal that was never recorded has neither id nor class; what is allowed has both, and names the request whose yes
 * it spends, if any.
 */
function readDecision(decision) {
  const good =
    isPlain(decision) &&
    Object.keys(decision).every((key) => DECISION_KEYS.has(key)) &&
    OUTCOMES.has(decision.outcome) &&
    isText(decision.reason, MAX_REASON_CHARS) &&
    (decision.outcome === "block" || (isText(decision.id, 64) && CLASSES.has(decision.class))) &&
    (decision.outcome === "require_approval" ? isText(decision.request, 64) : isText(decision.request ?? "", 64)) &&
    (decision.outcome === "allow" || decision.reason.length > 0);
  return good ? decision : null;
}

function isTextPart(part) {
  return shaped(part, ["type", "text"]) && part.type === "text" && typeof part.text === "string";
}

/** Text parts only, in sum within what the gateway hands on byte for byte. */
function isContent(content, max) {
  if (!Array.isArray(content) || content.length < 1 || content.length > 64 || !content.every(isTextPart)) return false;
  return content.reduce((sum, part) => sum + part.text.length, 0) <= max;
}

function readResult(result) {
  const good =
    shaped(result, ["content", "is_error", "clean", "truncated_bytes"]) &&
    isContent(result.content, MAX_RESULT_CHARS) &&
    typeof result.is_error === "boolean" &&
    shaped(result.clean, ["sha256", "registry"]) &&
    DIGEST.test(result.clean.sha256) &&
    isCount(result.clean.registry) &&
    isCount(result.truncated_bytes) &&
    sha256(textOf(result.content)) === result.clean.sha256;
  return good ? result : null;
}

/** {decision, result?, job?}: a result or a job if and only if it was allowed. */
export function readExecute(answer) {
  if (!shaped(answer, ["decision"], ["result", "job"])) return null;
  const decision = readDecision(answer.decision);
  if (decision === null) return null;
  const ran = Object.hasOwn(answer, "result");
  const background = Object.hasOwn(answer, "job");
  if ((decision.outcome === "allow") !== (ran || background) || (ran && background)) return null;
  if (background && !isText(answer.job, 64)) return null;
  const result = ran ? readResult(answer.result) : undefined;
  return result === null ? null : { decision, result, job: answer.job };
}

/** {decision, params?}: parameters if and only if it was allowed. */
export function readDecide(answer) {
  if (!shaped(answer, ["decision"], ["params"])) return null;
  const decision = readDecision(answer.decision);
  if (decision === null) return null;
  if (decision.outcome === "allow") return isPlain(answer.params) ? { decision, params: answer.params } : null;
  return { decision };
}

/** {content} or {withheld:true}; content has as many parts as were sent. */
export function readCleaned(answer, parts) {
  if (shaped(answer, ["withheld"]) && answer.withheld === true) return { withheld: true };
  if (!shaped(answer, ["content"], ["registry"]) || !isContent(answer.content, 1024 * 1024)) return null;
  if (Object.hasOwn(answer, "registry") && !isCount(answer.registry)) return null;
  return answer.content.length === parts ? { content: answer.content, registry: answer.registry ?? 0 } : null;
}

/** {message} of the same role and call, or {withheld:true}. */
export function readPersist(answer, sent) {
  if (shaped(answer, ["withheld"]) && answer.withheld === true) return { withheld: true };
  if (!shaped(answer, ["message"]) || !isPlain(answer.message)) return null;
  const same = ["role", "toolCallId", "toolName"].every((key) => answer.message[key] === sent[key]);
  const kept = typeof answer.message.content === typeof sent.content;
  return same && kept ? { message: answer.message } : null;
}

/** {content} or {cancel:true, reason}. */
export function readSend(answer) {
  if (shaped(answer, ["cancel", "reason"]) && answer.cancel === true && isText(answer.reason, MAX_REASON_CHARS)) {
    return { cancel: true, reason: answer.reason };
  }
  return shaped(answer, ["content"]) && typeof answer.content === "string" ? { content: answer.content } : null;
}

/** An event that the core may push. */
export function readEvent(message) {
  if (message.event === "profile_changed") return shaped(message, ["event"]) ? message : null;
  if (message.event === "wake") return shaped(message, ["event", "session", "text"]) ? message : null;
  return null;
}
