// The one connection of this process to the core. It never throws and never rejects: a request ends in
// {ok: true, answer} or {ok: false, why, sent}, and every `why` means "refuse". `sent` tells whether the core may have
// seen the request: a call that was sent may have run, whatever became of the answer.
import net from "node:net";
import { HELLO_MS, MAX_IN_FLIGHT, MAX_OBSERVING, OBSERVE_MS, RECONNECT_MS } from "./constants.js";
import { readError, readEvent, readHello } from "./answers.js";
import { Decoder, encode } from "./frames.js";

const REASONS = { busy: "busy", bad_request: "malformed", deadline: "late" };

const unsent = (why) => ({ ok: false, why, sent: false });

export class Link {
  #path;
  #greeting;
  #supported;
  #socket = null;
  #next = 0;
  #waiting = new Map();
  #observing = 0;
  #attempt = 0;
  #timer = null;
  #waiters = new Set();
  #closed = false;
  /** What the last hello said; null while there is no greeted connection. */
  #hello = null;

  constructor(path, greeting, supported) {
    this.#path = path;
    this.#greeting = greeting;
    this.#supported = supported;
    this.#connect();
  }

  /** True when the core is there, greeted us and accepts this gateway. */
  get ready() {
    return this.#supported && this.#hello?.ready === true;
  }

  /** Why a call can't be asked about now, or null. */
  get fault() {
    if (!this.#supported) return "not_ready";
    if (this.#hello === null) return "away";
    return this.#hello.ready ? null : "not_ready";
  }

  /** "recommended" until the core says otherwise. */
  get profile() {
    return this.#hello?.profile ?? "recommended";
  }

  /** One request. Resolves always, within `ms`. */
  request(verb, body, ms) {
    if (this.#hello === null) return Promise.resolve(unsent("away"));
    return this.#send(verb, body, ms);
  }

  /** A request that nobody waits for. Dropped when the connection is away or busy: the core then knows less, never more. */
  observe(verb, body) {
    if (this.#hello === null || this.#observing >= MAX_OBSERVING) return;
    this.#observing += 1;
    this.#send(verb, body, OBSERVE_MS).then(() => {
      this.#observing -= 1;
    });
  }

  /** Ask the core now whether it is ready; waits for a connection if there is none. Resolves within `ms`. */
  async confirm(ms) {
    const end = Date.now() + ms;
    if (this.#hello === null) await this.#greeted(ms);
    if (this.#hello === null) return false;
    const greeted = await this.#greet(Math.max(1, end - Date.now()));
    return greeted && this.ready;
  }

  close() {
    this.#closed = true;
    clearTimeout(this.#timer);
    this.#drop();
  }

  #connect() {
    if (this.#closed) return;
    this.#timer = null;
    const decoder = new Decoder();
    const socket = net.connect({ path: this.#path });
    this.#socket = socket;
    socket.unref(); // a command line that loads plugins must be able to end
    socket.on("error", () => {});
    socket.on("close", () => this.#lost(socket));
    socket.on("data", (data) => {
      if (socket !== this.#socket) return;
      try {
        for (const message of decoder.take(data)) this.#receive(message);
      } catch {
        this.#drop();
      }
    });
    socket.on("connect", () => {
      this.#greet(HELLO_MS).then((greeted) => {
        if (!greeted && socket === this.#socket) this.#drop();
      });
    });
  }

  /** Say hello, again or for the first time. A late answer changes nothing; an odd one ends the connection. */
  async #greet(ms) {
    const reply = await this.#send("hello", this.#greeting, ms);
    if (!reply.ok) return false;
    this.#hello = readHello(reply.answer);
    if (this.#hello === null) {
      this.#drop();
      return false;
    }
    this.#attempt = 0;
    for (const wake of [...this.#waiters]) wake();
    return true;
  }

  #greeted(ms) {
    return new Promise((resolve) => {
      const timer = setTimeout(done, ms);
      timer.unref();
      const waiters = this.#waiters;
      waiters.add(done);
      function done() {
        clearTimeout(timer);
        waiters.delete(done);
        resolve();
      }
    });
  }

  #send(verb, body, ms) {
    const socket = this.#socket;
    if (socket === null || socket.destroyed) return Promise.resolve(unsent("away"));
    if (this.#waiting.size >= MAX_IN_FLIGHT) return Promise.resolve(unsent("busy"));
    const id = ++this.#next;
    const frame = encode({ v: 1, id, verb, ...body });
    if (frame === null) return Promise.resolve(unsent("malformed"));
    return new Promise((resolve) => {
      const timer = setTimeout(() => this.#settle(id, { ok: false, why: "late", sent: true }), ms);
      timer.unref();
      this.#waiting.set(id, { resolve, timer });
      socket.write(frame);
    });
  }

  #settle(id, reply) {
    const waiting = this.#waiting.get(id);
    if (waiting === undefined) return;
    this.#waiting.delete(id);
    clearTimeout(waiting.timer);
    waiting.resolve(reply);
  }

  #receive(message) {
    if (message.id === undefined) {
      const event = readEvent(message);
      if (event === null) return this.#drop();
      // Waking is done by the supervisor, which holds the gateway's token: nothing to do here for "wake".
      if (event.event === "profile_changed") this.#greet(HELLO_MS);
      return undefined;
    }
    const late = Number.isSafeInteger(message.id) && message.id >= 1 && message.id <= this.#next;
    if (!late) return this.#drop(); // no question of ours, or the core could not read us
    if (!this.#waiting.has(message.id)) return undefined; // its caller has been refused already
    if (message.ok === true) {
      const { id, ok, ...answer } = message;
      return this.#settle(id, { ok, answer });
    }
    const code = readError(message);
    const why = code === null ? "odd" : (REASONS[code] ?? "error");
    return this.#settle(message.id, { ok: false, why, sent: why !== "busy" && why !== "malformed" });
  }

  #drop() {
    const socket = this.#socket;
    this.#hello = null;
    for (const id of [...this.#waiting.keys()]) this.#settle(id, { ok: false, why: "lost", sent: true });
    socket?.destroy();
  }

  #lost(socket) {
    if (socket !== this.#socket) return;
    this.#drop();
    this.#socket = null;
    if (this.#closed || this.#timer !== null) return;
    const pause = RECONNECT_MS[Math.min(this.#attempt, RECONNECT_MS.length - 1)];
    this.#attempt += 1;
    this.#timer = setTimeout(() => this.#connect(), pause);
    this.#timer.unref();
  }
}
