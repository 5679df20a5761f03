// The gateway's hooks, each beside the gateway's own rule for a handler that fails. None of these throws.
import { HOOK_MS, REFUSED, RUN_BLOCKED, RUN_READY_MS, WITHHELD, WITHHELD_PART } from "./constants.js";
import { readCleaned, readDecide, readPersist, readSend } from "./answers.js";
import { isPlain, softened } from "./frames.js";
import { claim, contextOf } from "./memory.js";

const block = (reason) => ({ block: true, blockReason: reason });

/** What can be refused without asking: used by the trusted policy and, again, by before_tool_call. */
function localRefusal(state, event, ctx) {
  const run = claim(event?.runId ?? ctx?.runId);
  if (claim(event?.toolCallId ?? ctx?.toolCallId) === undefined || run === undefined) return REFUSED.no_run;
  const fault = state.fault();
  if (fault !== null) return REFUSED[fault];
  if (!state.own.has(event.toolName) && state.link.profile === "recommended") return REFUSED.not_ours;
  return null;
}

/**
 * Trusted tool policy. Gateway: a throw blocks, a malformed answer allows, no time limit. It runs before all hooks and
 * answers at once from what the shim knows; the core is asked once for each call, in before_tool_call.
 */
export function trustedPolicy(state) {
  return guarded((event, ctx) => {
    const reason = localRefusal(state, event, ctx);
    return reason === null ? undefined : { allow: false, reason: written(state, reason) };
  }, () => ({ allow: false, reason: REFUSED.error }));
}

/** before_tool_call. Gateway: a throw or 15 s blocks, a malformed answer allows, the last returned params win. */
export function beforeToolCall(state) {
  return guarded(async (event, ctx) => {
    const { id, context } = state.calls.announce(event, ctx);
    const reason = localRefusal(state, event, ctx);
    if (reason !== null) return block(written(state, reason));
    if (state.own.has(event.toolName)) return undefined; // decided and run in one frame, in execute
    const params = event.params;
    if (!isPlain(params)) return block(written(state, REFUSED.malformed));
    const body = { tool_call_id: id, tool: event.toolName, kind: kindOf(event), params, context };
    const reply = await state.link.request("decide", body, HOOK_MS);
    const answer = reply.ok ? readDecide(reply.answer) : null;
    if (answer === null) return block(written(state, REFUSED[reply.ok ? "odd" : reply.why]));
    if (answer.decision.outcome !== "allow") return block(written(state, answer.decision.reason));
    return { params: answer.params };
  }, () => block(REFUSED.error));
}

/** A claim only: the registry of the core knows the kind. */
function kindOf(event) {
  if (event.toolKind !== undefined) return "code";
  if (event.toolName === "message") return "message";
  if (event.toolName === "sessions_spawn") return "spawn";
  return event.toolName.includes("__") ? "mcp" : "builtin";
}

/** A reason becomes the tool's result, word for word: it is no foreign text, so the later hooks let it pass. */
function written(state, reason) {
  state.clean.add(reason, 0);
  return reason;
}

/** Tool-result middleware: what the model sees. Gateway: a throw hides the result; no time limit. */
export function resultMiddleware(state) {
  return guarded(async (event, ctx) => {
    const { content, details } = event.result ?? {};
    if (state.clean.has(content)) return undefined;
    const parts = Array.isArray(content) ? content.map(textPart) : [{ type: "text", text: "" }];
    const body = {
      tool_call_id: claim(event.toolCallId) ?? "",
      tool: claim(event.toolName) ?? "",
      content: parts,
      is_error: event.isError === true,
      context: contextOf({ agent: ctx?.agentId, session: ctx?.sessionKey, run: ctx?.runId }),
    };
    const reply = state.fault() === null ? await state.link.request("result", body, HOOK_MS) : { ok: false };
    const answer = reply.ok ? readCleaned(reply.answer, parts.length) : null;
    if (answer === null || answer.withheld) return withheldResult();
    state.clean.add(answer.content, answer.registry);
    return { result: { content: answer.content, details: plainDetails(details) } };
  }, withheldResult);
}

const withheldResult = () => ({ result: { content: [{ type: "text", text: WITHHELD }], details: {} } });

function textPart(part) {
  const text = part?.type === "text" && typeof part.text === "string" ? part.text.toWellFormed() : WITHHELD_PART;
  return { type: "text", text };
}

const KEPT = new Set(["status", "childSessionKey", "runId", "mode", "exitReason"]);

/** Details are stored raw on disk: numbers, flags and the gateway's own ids stay, texts go. */
function plainDetails(details) {
  if (!isPlain(details)) return {};
  const plain = Object.entries(details).filter(
    ([key, value]) => typeof value === "number" || typeof value === "boolean" || (KEPT.has(key) && claim(value) !== undefined),
  );
  return Object.fromEntries(plain);
}

/**
 * tool_result_persist and before_message_write for all rows but the user's. Gateway: synchronous; a throw or a promise
 * keeps the raw text. So: the safe message, the same message when it is known to be clean, or a withheld one.
 */
export function persist(state) {
  return (event, ctx) => {
    const message = event?.message;
    try {
      if (!isPlain(message)) return { message: withheldMessage(message) };
      if (message.role === "toolResult" && state.clean.has(message.content) && isPlainCopy(message.details ?? {})) {
        return undefined;
      }
      const context = contextOf({ agent: ctx?.agentId, session: ctx?.sessionKey });
      const sent = softened(message, Number.POSITIVE_INFINITY, 24);
      const answer = state.fault() === null ? state.sync.ask({ message: sent, context }) : null;
      const read = answer === null ? null : readPersist(answer, sent);
      if (read === null || read.withheld) return { message: withheldMessage(message) };
      state.clean.add(read.message.content, 0);
      return { message: read.message };
    } catch {
      return { message: withheldMessage(message) };
    }
  };
}

function isPlainCopy(details) {
  return isPlain(details) && Object.keys(plainDetails(details)).length === Object.keys(details).length;
}

/** The same row without its texts. Tool calls stay: without them the next request would be refused by the provider. */
function withheldMessage(message) {
  if (!isPlain(message)) return { role: "custom", content: WITHHELD };
  const { details, ...row } = message;
  const calls = Array.isArray(row.content) ? row.content.filter((part) => part?.type === "toolCall") : [];
  const text = { type: "text", text: WITHHELD };
  return { ...row, content: typeof row.content === "string" ? WITHHELD : [text, ...calls] };
}

/** before_message_write: the user's rows are observed, in full; the core decides whether they are the user's words. */
export function beforeMessageWrite(state) {
  const write = persist(state);
  return (event, ctx) => {
    if (event?.message?.role !== "user") return write(event, ctx);
    try {
      const { role, content, idempotencyKey, provenance, timestamp, __openclaw: origin } = event.message;
      const message = { role, content, idempotencyKey, provenance, timestamp, __openclaw: origin };
      observe(state, "before_message_write", { message }, ctx, 262_144);
    } catch {
      // Words that the core never heard of count as not said.
    }
    return undefined;
  };
}

/** message_sending. Gateway: a throw or a timeout SENDS. So every failure cancels. */
export function messageSending(state) {
  const cancel = (reason) => ({ cancel: true, cancelReason: reason });
  return guarded(async (event, ctx) => {
    if (typeof event.content !== "string" || (event.metadata?.mediaUrls ?? []).length > 0) {
      return cancel("safety-wrapper: only text is let through");
    }
    const fault = state.fault();
    if (fault !== null) return cancel(REFUSED[fault]);
    const channel = claim(ctx?.channelId) ?? claim(event.metadata?.channel);
    const context = contextOf({ session: ctx?.sessionKey, run: ctx?.runId, channel });
    const body = { to: claim(event.to) ?? "", content: event.content, channel, context };
    const reply = await state.link.request("send", body, HOOK_MS);
    const answer = reply.ok ? readSend(reply.answer) : null;
    if (answer === null) return cancel(REFUSED[reply.ok ? "odd" : reply.why]);
    return answer.cancel ? cancel(answer.reason) : { content: answer.content };
  }, () => cancel(REFUSED.error));
}

/** before_agent_run. Gateway: a throw or 15 s blocks. No engine, no run; the person reads why. */
export function beforeAgentRun(state) {
  const blocked = { outcome: "block", reason: "safety-wrapper: not ready", message: RUN_BLOCKED };
  return guarded(async (event, ctx) => {
    state.calls.startRun(ctx?.runId, ctx?.trigger);
    if (state.broken !== null) return blocked;
    return (await state.link.confirm(RUN_READY_MS)) ? { outcome: "pass" } : blocked;
  }, () => blocked);
}

/** Observed events, each with the fields that the core needs and no others. Gateway: all of these ignore the answer. */
export const OBSERVED = {
  after_tool_call: ({ toolName, toolCallId, runId, durationMs, error, result }) => ({
    toolName, toolCallId, runId, durationMs,
    error: error === undefined && !["blocked", "error"].includes(result?.details?.status) ? undefined : "error",
    exitCode: result?.details?.exitCode,
  }),
  before_prompt_build: () => ({}),
  llm_output: ({ runId, sessionId, provider, model, resolvedRef, harnessId, usage }) => ({
    runId, sessionId, provider, model, resolvedRef, harnessId, usage,
  }),
  subagent_spawned: (event) => event,
  session_start: (event) => event,
  session_end: (event) => event,
  gateway_start: ({ port }) => ({ port }),
  gateway_stop: () => ({}),
};

export function observer(state, hook) {
  return (event, ctx) => {
    try {
      if (hook === "before_prompt_build") state.calls.startRun(ctx?.runId, ctx?.trigger);
      observe(state, hook, OBSERVED[hook](event ?? {}), ctx, 4096);
    } catch {
      // An observation that can't be made is missing, nothing more.
    }
  };
}

function observe(state, hook, event, ctx, chars) {
  const { agentId, sessionKey, sessionId, runId, trigger, requesterSessionKey, childSessionKey } = ctx ?? {};
  const known = { agentId, sessionKey, sessionId, runId, trigger, requesterSessionKey, childSessionKey };
  state.link.observe("observe", { hook, raw: { event: softened(event, chars), ctx: softened(known, 256) } });
}

/** `gate`, but a throw or a rejection gives `refuse()`. */
function guarded(gate, refuse) {
  return async (event, ctx) => {
    try {
      return await gate(event, ctx);
    } catch {
      return refuse();
    }
  };
}
