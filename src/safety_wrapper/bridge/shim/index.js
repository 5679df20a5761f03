// The plugin. It decides nothing: it asks the core, reads the answer strictly, and refuses when the core is silent,
// late or odd. The gateway evaluates this module more than once in a process; everything is registered each time, and
// all instances share one state with one connection.
import { readFileSync } from "node:fs";
import {
  EXECUTE_MS, GATEWAY_HOOK_MS, GATEWAY_VERSION, LAST, PLUGIN_ID, POLICY_ID,
} from "./constants.js";
import { ownDigest, sha256 } from "./digest.js";
import {
  OBSERVED, beforeAgentRun, beforeMessageWrite, beforeToolCall, messageSending, observer, persist, resultMiddleware,
  trustedPolicy,
} from "./gates.js";
import { Link } from "./link.js";
import { Calls, Clean } from "./memory.js";
import { SyncBridge } from "./sync.js";
import { readTools, toolFactory } from "./tools.js";

const SHARED = Symbol.for("safety-wrapper.shim");
const HERE = new URL(".", import.meta.url);

/** The state of this process, made by the first instance that registers. */
function sharedState(api) {
  const found = globalThis[SHARED];
  if (found !== undefined) return found;
  const state = {
    link: null,
    sync: null,
    calls: new Calls(),
    clean: new Clean(),
    own: new Set(),
    tools: [],
    executeMs: EXECUTE_MS,
    /** Set when this installation can't work at all; then everything is refused. */
    broken: null,
    fault: () => state.broken ?? state.link.fault,
  };
  globalThis[SHARED] = state;
  try {
    const text = readFileSync(new URL("tools.json", HERE));
    state.tools = readTools(text.toString("utf8")) ?? [];
    state.own = new Set(state.tools.map((tool) => tool.name));
    state.executeMs = api.pluginConfig.executeDeadlineMs ?? EXECUTE_MS;
    const version = api.runtime?.version;
    const greeting = {
      gateway_version: typeof version === "string" ? version : "unknown",
      shim_sha256: ownDigest(HERE),
      tools_sha256: sha256(text),
      mode: api.registrationMode === "full" ? "full" : "discovery",
    };
    state.link = new Link(api.pluginConfig.socket, greeting, version === GATEWAY_VERSION);
    state.sync = new SyncBridge(api.pluginConfig.socket, greeting);
  } catch {
    state.broken = "not_ready";
  }
  return state;
}

function register(api) {
  const state = sharedState(api);
  // The gates first: whatever fails after them leaves a gateway that refuses.
  const gate = { priority: LAST, timeoutMs: GATEWAY_HOOK_MS };
  attempt(state, () => api.on("before_tool_call", beforeToolCall(state), gate));
  attempt(state, () => api.on("before_agent_run", beforeAgentRun(state), gate));
  attempt(state, () => api.on("message_sending", messageSending(state), gate));
  attempt(state, () => api.on("tool_result_persist", persist(state), { priority: LAST }));
  attempt(state, () => api.on("before_message_write", beforeMessageWrite(state), { priority: LAST }));
  attempt(state, () => api.registerTrustedToolPolicy({
    id: POLICY_ID,
    description: "Refuses what needs no question: no run, no engine, not one of our tools.",
    evaluate: trustedPolicy(state),
  }));
  attempt(state, () => api.registerAgentToolResultMiddleware(resultMiddleware(state), { runtimes: ["openclaw"] }));
  for (const hook of Object.keys(OBSERVED)) {
    attempt(state, () => api.on(hook, observer(state, hook), { priority: LAST }));
  }
  for (const tool of state.tools) {
    attempt(state, () => api.registerTool(toolFactory(state, tool), { name: tool.name }));
  }
}

/** A registration that the gateway refuses leaves a hole: then this process refuses everything. */
function attempt(state, step) {
  try {
    step();
  } catch {
    state.broken = "not_ready";
  }
}

export default {
  id: PLUGIN_ID,
  name: "safety-wrapper",
  description: "Asks the safety engine before anything runs; decides nothing itself.",
  register,
};
