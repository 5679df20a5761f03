// The gateway's thread side of the synchronous bridge. tool_result_persist and before_message_write take no promise,
// and an error there keeps the raw text: so this waits, at most 50 ms with the whole gateway standing still, and
// answers null for "withhold".
import { Worker } from "node:worker_threads";
import { MAX_DEPTH, MAX_FRAME_BYTES, SYNC_MS } from "./constants.js";
import { isPlain, isStrict } from "./frames.js";
import { ABANDONED, DONE, FAILED, IDLE, LENGTH, LINK, REQUEST, STATE, TAKEN, WORDS } from "./sync_states.js";

const RESTART_MS = 1_000;

export class SyncBridge {
  #data;
  #worker = null;
  #control;
  #ctl;
  #input;
  #output;

  constructor(path, greeting) {
    this.#data = { path, greeting };
    this.#start();
  }

  #start() {
    // Fresh memory for each worker: an old one can't write into a new one's request.
    this.#control = new SharedArrayBuffer(4 * WORDS);
    this.#ctl = new Int32Array(this.#control);
    this.#input = new SharedArrayBuffer(MAX_FRAME_BYTES);
    this.#output = new SharedArrayBuffer(MAX_FRAME_BYTES);
    try {
      const shared = { control: this.#control, input: this.#input, output: this.#output };
      const options = { workerData: { ...this.#data, ...shared }, execArgv: [], env: {}, stdout: true, stderr: true };
      const worker = new Worker(new URL("./sync_worker.js", import.meta.url), options);
      this.#worker = worker;
      worker.on("error", () => {}); // unhandled, it would end the gateway
      worker.on("exit", () => this.#restart());
      worker.unref();
    } catch {
      this.#restart();
    }
  }

  #restart() {
    if (this.#worker === null) return;
    this.#worker = null;
    Atomics.store(this.#ctl, LINK, 0);
    setTimeout(() => this.#start(), RESTART_MS).unref();
  }

  /** Ask `persist`; the answer's own keys, or null when there is none in time. */
  ask(body) {
    const ctl = this.#ctl;
    if (this.#worker === null || Atomics.load(ctl, LINK) !== 1 || !isStrict(body, MAX_DEPTH)) return null;
    const bytes = Buffer.from(JSON.stringify(body), "utf8");
    if (bytes.length > MAX_FRAME_BYTES - 128 || Atomics.load(ctl, STATE) !== IDLE) return null;
    new Uint8Array(this.#input).set(bytes);
    ctl[LENGTH] = bytes.length;
    Atomics.store(ctl, STATE, REQUEST);
    Atomics.notify(ctl, STATE);
    if (!this.#await()) return null;
    const done = Atomics.load(ctl, STATE) === DONE;
    const text = done ? Buffer.from(new Uint8Array(this.#output).slice(0, ctl[LENGTH])).toString("utf8") : "";
    Atomics.store(ctl, STATE, IDLE);
    if (!done) return null;
    const { id, ok, ...answer } = JSON.parse(text);
    return ok === true && isPlain(answer) ? answer : null;
  }

  /** Wait for DONE or FAILED; false when the budget was spent and the request given up. */
  #await() {
    const ctl = this.#ctl;
    const end = performance.now() + SYNC_MS;
    for (;;) {
      const state = Atomics.load(ctl, STATE);
      if (state === DONE || state === FAILED) return true;
      const left = end - performance.now();
      if (left > 0) {
        Atomics.wait(ctl, STATE, state, left);
      } else if (Atomics.compareExchange(ctl, STATE, state, ABANDONED) === state) {
        Atomics.notify(ctl, STATE);
        return false;
      }
    }
  }
}
