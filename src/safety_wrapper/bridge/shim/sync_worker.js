// The worker side of the synchronous bridge: it owns a connection of its own, since the gateway's thread stands
// still while it waits. One request at a time; see sync.js for the states.
import net from "node:net";
import { workerData } from "node:worker_threads";
import { HELLO_MS, RECONNECT_MS } from "./constants.js";
import { readHello } from "./answers.js";
import { Decoder, encode } from "./frames.js";
import { ABANDONED, DONE, FAILED, IDLE, LENGTH, LINK, REQUEST, STATE, TAKEN } from "./sync_states.js";

const { path, greeting, control, input, output } = workerData;
const ctl = new Int32Array(control);
const incoming = new Uint8Array(input);
const outgoing = new Uint8Array(output);
let socket = null;
let next = 0;
let asked = null; // id of the request that the gateway's thread waits for
let attempt = 0;

function connect() {
  const decoder = new Decoder();
  const mine = net.connect({ path });
  socket = mine;
  mine.on("error", () => {});
  mine.on("close", () => {
    Atomics.store(ctl, LINK, 0);
    if (asked !== null) finish(FAILED);
    socket = null;
    setTimeout(connect, RECONNECT_MS[Math.min(attempt++, RECONNECT_MS.length - 1)]);
  });
  let hello = null;
  mine.on("connect", () => {
    hello = ++next;
    mine.write(encode({ v: 1, id: hello, verb: "hello", ...greeting }));
    setTimeout(() => Atomics.load(ctl, LINK) === 0 && mine.destroy(), HELLO_MS).unref();
  });
  mine.on("data", (data) => {
    try {
      for (const message of decoder.take(data)) {
        if (message.id === undefined) continue; // events are the main connection's business
        if (message.id === hello) greeted(message, mine);
        else if (message.id === asked) answered(message);
        else if (!(Number.isSafeInteger(message.id) && message.id <= next)) mine.destroy();
      }
    } catch {
      mine.destroy();
    }
  });
}

function greeted({ id, ok, ...answer }, mine) {
  const hello = ok === true ? readHello(answer) : null;
  if (hello === null || !hello.ready) return void mine.destroy(); // asked again after a pause
  attempt = 0;
  Atomics.store(ctl, LINK, 1);
}

function answered(message) {
  const bytes = Buffer.from(JSON.stringify(message), "utf8");
  if (bytes.length > outgoing.length) return finish(FAILED);
  outgoing.set(bytes);
  ctl[LENGTH] = bytes.length;
  finish(DONE);
}

/** Hand over, unless the gateway's thread has given up in the meantime: then the place is free again. */
function finish(state) {
  asked = null;
  if (Atomics.compareExchange(ctl, STATE, TAKEN, state) === ABANDONED) Atomics.store(ctl, STATE, IDLE);
  Atomics.notify(ctl, STATE);
}

function take() {
  const bytes = Buffer.from(incoming.slice(0, ctl[LENGTH]));
  if (Atomics.compareExchange(ctl, STATE, REQUEST, TAKEN) !== REQUEST) return;
  const frame = encode({ v: 1, id: ++next, verb: "persist", ...JSON.parse(bytes.toString("utf8")) });
  asked = next;
  if (frame === null || socket === null) return finish(FAILED);
  socket.write(frame);
}

async function serve() {
  for (;;) {
    const state = Atomics.load(ctl, STATE);
    if (state === REQUEST) {
      take();
    } else if (state === ABANDONED) {
      asked = null;
      Atomics.store(ctl, STATE, IDLE);
    } else {
      const wait = Atomics.waitAsync(ctl, STATE, state); // the event loop goes on, for the socket
      if (wait.async) await wait.value;
    }
  }
}

connect();
serve();
