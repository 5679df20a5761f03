// Digests. The shim names its own bytes in `hello`; the core knows which bytes it installed.
import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";

export function sha256(data) {
  return createHash("sha256").update(data).digest("hex");
}

/**
 * Digest of the code beside this file: every .js file and package.json, sorted by name, as lines "<sha256>  <name>\n".
 * The manifest and tools.json are left out: they are written at install time and compared by themselves.
 */
export function ownDigest(folder) {
  const names = readdirSync(folder).filter((name) => name.endsWith(".js") || name === "package.json");
  const lines = names.sort().map((name) => `${sha256(readFileSync(new URL(name, folder)))}  ${name}\n`);
  return sha256(lines.join(""));
}

/**
 * The text of a message's content, as it is digested: the texts joined by NUL. Null when there is a part that is no
 * text, or no part at all.
 */
export function textOf(content) {
  if (typeof content === "string") return content;
  if (!Array.isArray(content) || content.length === 0) return null;
  const texts = content.map((part) => (part?.type === "text" && typeof part.text === "string" ? part.text : null));
  return texts.includes(null) ? null : texts.join("\u0000");
}
