// Frames: four bytes of length, big-endian, then one JSON object. The same shape as safety_wrapper/frames.py.
import { MAX_DEPTH, MAX_FRAME_BYTES } from "./constants.js";

/** One frame, or null when `message` has no strict JSON form or is too long. */
export function encode(message) {
  if (!isStrict(message, MAX_DEPTH)) return null;
  const body = Buffer.from(JSON.stringify(message), "utf8");
  if (body.length > MAX_FRAME_BYTES) return null;
  const frame = Buffer.allocUnsafe(4 + body.length);
  frame.writeUInt32BE(body.length, 0);
  body.copy(frame, 4);
  return frame;
}

/** Collects bytes; `take(data)` gives the whole frames so far, or throws when the peer does not keep to the form. */
export class Decoder {
  #parts = [];
  #length = 0;

  take(data) {
    this.#parts.push(data);
    this.#length += data.length;
    const messages = [];
    if (this.#length < 4) return messages;
    let buffer = this.#parts.length === 1 ? data : Buffer.concat(this.#parts, this.#length);
    while (buffer.length >= 4) {
      const length = buffer.readUInt32BE(0);
      if (length < 2 || length > MAX_FRAME_BYTES) throw new RangeError("frame length");
      if (buffer.length < 4 + length) break;
      const message = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(buffer.subarray(4, 4 + length)));
      if (!isPlain(message)) throw new TypeError("frame is no object");
      messages.push(message);
      buffer = buffer.subarray(4 + length);
    }
    this.#parts = buffer.length ? [buffer] : [];
    this.#length = buffer.length;
    return messages;
  }
}

/** A JSON object: no array, no class instance. */
export function isPlain(value) {
  if (value === null || typeof value !== "object") return false;
  const prototype = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null;
}

/**
 * True when `value` means the same to every strict parser: plain JSON types, safe integers, finite numbers, whole
 * characters, bounded depth. The core closes the connection on anything else, which would hurt other calls.
 */
export function isStrict(value, depth) {
  switch (typeof value) {
    case "string":
      return value.isWellFormed();
    case "boolean":
      return true;
    case "number":
      return Number.isFinite(value) && (!Number.isInteger(value) || Number.isSafeInteger(value));
    case "object":
      break;
    default:
      return false;
  }
  if (value === null) return true;
  if (depth <= 0) return false;
  if (Array.isArray(value)) return value.every((item) => isStrict(item, depth - 1));
  if (!isPlain(value) || typeof value.toJSON === "function") return false;
  return Object.entries(value).every(([key, item]) => key.isWellFormed() && (item === undefined || isStrict(item, depth - 1)));
}

/**
 * A strict copy of something the gateway gave us, for observing only: functions, signals and cycles dropped, broken
 * characters replaced, odd numbers null, strings cut at `chars`.
 */
export function softened(value, chars, depth = 12) {
  switch (typeof value) {
    case "string":
      return (value.length > chars ? value.slice(0, chars) : value).toWellFormed();
    case "boolean":
      return value;
    case "number":
      return isStrict(value, 1) ? value : null;
    case "object":
      break;
    default:
      return undefined;
  }
  if (value === null || depth <= 0) return null;
  if (Array.isArray(value)) return value.slice(0, 256).map((item) => softened(item, chars, depth - 1) ?? null);
  if (!isPlain(value)) return undefined;
  const copy = {};
  for (const [key, item] of Object.entries(value).slice(0, 256)) {
    const soft = softened(item, chars, depth - 1);
    if (soft !== undefined && key !== "__proto__") copy[key.toWellFormed().slice(0, 256)] = soft;
  }
  return copy;
}
