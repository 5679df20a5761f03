// What the shim remembers between hooks, all of it bounded: the oldest entry makes room.
import { MAX_REMEMBERED } from "./constants.js";
import { sha256, textOf } from "./digest.js";

class Bounded extends Map {
  set(key, value) {
    this.delete(key);
    if (this.size >= MAX_REMEMBERED) this.delete(this.keys().next().value);
    return super.set(key, value);
  }
}

/** A claim that the gateway made, or undefined: a short, whole string. */
export function claim(value) {
  return typeof value === "string" && value.length > 0 && value.length <= 256 && value.isWellFormed() ? value : undefined;
}

/** The context of a call: what is known, and nothing else. All of it claims; the core treats them so. */
export function contextOf({ agent, session, run, channel, trigger }) {
  const context = {};
  for (const [key, value] of Object.entries({ agent, session, run, channel, trigger })) {
    if (claim(value) !== undefined) context[key] = value;
  }
  return context;
}

/** Tool calls that the gateway announced in before_tool_call, so that execute knows the run of its call id. */
export class Calls {
  #seen = new Bounded();
  #triggers = new Bounded();

  announce(event, ctx) {
    const id = claim(event?.toolCallId ?? ctx?.toolCallId);
    const context = contextOf({
      agent: ctx?.agentId,
      session: ctx?.sessionKey,
      run: event?.runId ?? ctx?.runId,
      channel: ctx?.requester?.channel,
      trigger: this.#triggers.get(event?.runId ?? ctx?.runId),
    });
    if (id !== undefined) this.#seen.set(key(context.session, id), context);
    return { id, context };
  }

  /** The context of an announced call of that very session; empty when it was never announced. Taken once. */
  take(session, id) {
    const found = this.#seen.get(key(session, id));
    this.#seen.delete(key(session, id));
    return found ?? {};
  }

  startRun(run, trigger) {
    if (claim(run) !== undefined && claim(trigger) !== undefined) this.#triggers.set(run, trigger);
  }
}

function key(session, id) {
  return `${session ?? ""}\u0000${id}`;
}

/** Texts that the core cleaned (or wrote), by digest, with the version of the registry that cleaned them. */
export class Clean {
  #registry = 0;
  #texts = new Bounded();

  add(content, registry) {
    const text = textOf(content);
    if (text === null) return;
    if (registry > this.#registry) {
      this.#registry = registry;
      this.#texts.clear(); // newer secrets are known now: what was clean before is checked again
    }
    this.#texts.set(sha256(text), registry);
  }

  has(content) {
    const text = textOf(content);
    return text !== null && this.#texts.has(sha256(text));
  }
}
