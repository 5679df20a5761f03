// Our own tools: described by tools.json, executed in the core. The shim hands over and hands back.
import { EXECUTE_MS, MAY_HAVE_RUN, OBSERVE_MS, REFUSED } from "./constants.js";
import { readExecute } from "./answers.js";
import { isPlain } from "./frames.js";
import { claim, contextOf } from "./memory.js";

/** tools.json → [{name, description, parameters}], or null when it is not what the installer writes. */
export function readTools(text) {
  const tools = JSON.parse(text);
  const good = (tool) =>
    isPlain(tool) && /^sw_[a-z0-9_]{1,61}$/.test(tool.name) && typeof tool.description === "string" && isPlain(tool.parameters);
  return Array.isArray(tools) && tools.every(good) ? tools : null;
}

/** The factory form: the gateway tells it agent and session, but not the run. */
export function toolFactory(state, tool) {
  return (ctx) => ({
    name: tool.name,
    label: tool.name,
    description: tool.description,
    parameters: tool.parameters,
    execute: (toolCallId, params, signal) => execute(state, tool.name, ctx, toolCallId, params, signal),
  });
}

async function execute(state, name, ctx, toolCallId, params, signal) {
  try {
    return await run(state, name, ctx, toolCallId, params, signal);
  } catch {
    return refusal(state, REFUSED.error);
  }
}

async function run(state, name, ctx, toolCallId, params, signal) {
  const id = claim(toolCallId);
  const announced = id === undefined ? {} : state.calls.take(claim(ctx?.sessionKey), id);
  const context = contextOf({
    agent: ctx?.agentId,
    session: ctx?.sessionKey,
    run: announced.run,
    channel: announced.channel ?? ctx?.messageChannel ?? ctx?.deliveryContext?.channel,
    trigger: announced.trigger,
  });
  if (id === undefined || context.run === undefined) return refusal(state, REFUSED.no_run);
  if (signal?.aborted) return refusal(state, REFUSED.aborted);
  const fault = state.fault();
  if (fault !== null) return refusal(state, REFUSED[fault]);
  if (!isPlain(params)) return refusal(state, REFUSED.malformed);

  const cancel = () => state.link.request("cancel", { tool_call_id: id }, OBSERVE_MS);
  const aborted = new Promise((resolve) => {
    signal?.addEventListener("abort", () => resolve("aborted"), { once: true });
  });
  const asked = state.link.request("execute", { tool_call_id: id, tool: name, params, context }, state.executeMs ?? EXECUTE_MS);
  const reply = await Promise.race([asked, aborted]);
  if (reply === "aborted") {
    cancel();
    return refusal(state, REFUSED.aborted);
  }
  if (!reply.ok) {
    if (reply.sent && reply.why !== "lost") cancel();
    return refusal(state, (reply.sent && MAY_HAVE_RUN[reply.why]) || REFUSED[reply.why]);
  }
  const answer = readExecute(reply.answer);
  if (answer === null) {
    cancel();
    return refusal(state, MAY_HAVE_RUN.odd);
  }
  if (answer.decision.outcome !== "allow") return refusal(state, answer.decision.reason);
  if (answer.job !== undefined) {
    const text = `Started; it goes on in the background. Call sw_resume with the id ${answer.job} to read the result.`;
    return result(state, [{ type: "text", text }], 0, "ok");
  }
  return finished(state, answer.result);
}

/** The gateway's wire has no flag for an error: the text must say it. */
function finished(state, { content, is_error: isError, clean }) {
  const said = !isError || /^(error|refused|held)\b/i.test(content[0].text);
  const parts = said ? content : [{ type: "text", text: `Error: ${content[0].text}` }, ...content.slice(1)];
  return result(state, parts, clean.registry, isError ? "error" : "ok");
}

function refusal(state, text) {
  return result(state, [{ type: "text", text }], 0, "blocked");
}

/** `details` is stored by the gateway, and its status is how the gateway knows a failure. */
function result(state, content, registry, status) {
  state.clean.add(content, registry);
  return { content, details: { status } };
}
