// Stands for the gateway: evaluates the plugin as often as asked, registers it, and calls what it registered.
// argv: JSON {folders: [...], version, config}. Then one JSON command a line in, one JSON answer a line out.
import { createInterface } from "node:readline";

const { folders, version, config } = JSON.parse(process.argv[2]);
const hooks = {};
const tools = {};
let policy = null;
let middleware = null;
const refuse = new Set();
let evaluations = 0;

process.on("unhandledRejection", (error) => fatal("unhandledRejection", error));
process.on("uncaughtException", (error) => fatal("uncaughtException", error));
function fatal(kind, error) {
  process.stdout.write(`${JSON.stringify({ fatal: kind, error: String(error?.stack ?? error) })}\n`);
  process.exit(70);
}

function api(mode) {
  return {
    registrationMode: mode,
    pluginConfig: config,
    runtime: { version },
    on(name, handler, options) {
      if (refuse.has(name)) throw new Error("refused on purpose");
      hooks[name] = { handler, options };
    },
    registerTool: (factory, options) => (tools[options.name] = factory),
    registerTrustedToolPolicy: (given) => (policy = given),
    registerAgentToolResultMiddleware: (given) => (middleware = given),
  };
}

async function load() {
  for (const folder of folders) {
    const plugin = (await import(`file://${folder}/index.js`)).default;
    plugin.register(api(evaluations++ === 0 ? "full" : "discovery"));
  }
  return { tools: Object.keys(tools), hooks: Object.keys(hooks), evaluations };
}

async function execute({ tool, id, params, ctx, abort_ms: abortMs }) {
  const controller = new AbortController();
  if (abortMs !== undefined) setTimeout(() => controller.abort(), abortMs);
  return tools[tool](ctx).execute(id, params, controller.signal, () => fatal("onUpdate", "was called"));
}

const odd = { undefined, nan: Number.NaN, surrogate: "\ud800", big: 2 ** 60, cycle: null, fn: () => 1, date: new Date(0) };
odd.cycle = { self: null };
odd.cycle.self = odd.cycle;
/** {"$": "nan"} stands for a value that JSON does not know. */
function revive(key, value) {
  return value !== null && typeof value === "object" && typeof value.$ === "string" ? odd[value.$] : value;
}

const commands = {
  load,
  execute,
  refuse: ({ names }) => names.forEach((name) => refuse.add(name)),
  hook: ({ name, event, ctx }) => hooks[name].handler(event, ctx),
  options: ({ name }) => hooks[name].options,
  policy: ({ event, ctx }) => policy.evaluate(event, ctx),
  middleware: ({ event, ctx }) => middleware(event, ctx),
  offered: ({ tool }) => tools[tool]({}),
  sleep: ({ ms }) => new Promise((resolve) => setTimeout(resolve, ms)),
};

process.stdout.write("{}\n");
for await (const line of createInterface({ input: process.stdin })) {
  const { n, command, ...rest } = JSON.parse(line, revive);
  answer(n, command, rest);
}

async function answer(n, command, rest) {
  const start = performance.now();
  let value;
  try {
    value = commands[command](rest);
    const promised = value instanceof Promise;
    value = { value: await value, promised };
  } catch (error) {
    value = { thrown: String(error?.stack ?? error) };
  }
  process.stdout.write(`${JSON.stringify({ n, ...value, ms: performance.now() - start })}\n`);
}
