import { GUEST_CHANNEL } from "./policy.ts";

/** Name of a driver in the working folder; the code under test is beside it. */
export const DRIVER_FILES = { python: "_driver.py", node: "_driver.mjs" } as const;

/**
 * Loads main.py and answers one call a line. It runs with the guest and is not trusted: whatever it
 * answers is only compared, outside, with what the guest never sees.
 */
const PYTHON_DRIVER = `
import importlib, json, os, sys, traceback
def main():
    def answer(reply):
        data = (json.dumps(reply, allow_nan=False) + "\\n").encode()
        while data:
            data = data[os.write(${GUEST_CHANNEL}, data):]
    name = sys.argv[1]
    sys.path.insert(0, os.getcwd())
    function, failure = None, None
    try:
        function = getattr(importlib.import_module("main"), name)
    except BaseException:
        failure = traceback.format_exc(limit=-3)
    pending = b""
    while True:
        chunk = os.read(${GUEST_CHANNEL}, 65536)
        if not chunk:
            return
        pending += chunk
        while b"\\n" in pending:
            line, pending = pending.split(b"\\n", 1)
            request = json.loads(line)
            reply = {"id": request["id"]}
            try:
                if failure is not None:
                    raise RuntimeError(failure)
                reply["value"] = function(*request["args"], **request["kwargs"])
                answer(reply)
            except BaseException:
                answer({"id": request["id"], "error": traceback.format_exc(limit=-3)[-4000:]})
main()
`;

/** The same for main.js, as a module, as CommonJS, or as plain function declarations. */
const NODE_DRIVER = `
import { readFileSync, readSync, writeSync } from "node:fs";
import { createRequire } from "node:module";
import { runInThisContext } from "node:vm";
const name = process.argv[2];
const answer = (reply) => {
  let data = Buffer.from(JSON.stringify(reply) + "\\n");
  while (data.length > 0) data = data.subarray(writeSync(${GUEST_CHANNEL}, data));
};
let call;
let failure;
try {
  const source = readFileSync("main.js", "utf8");
  if (/^\\s*(import|export)\\b|\\bexports\\b/mu.test(source)) {
    const loaded = await import("/work/main.js").catch(() => import(process.cwd() + "/main.js"));
    call = loaded[name] ?? loaded.default?.[name] ?? loaded.default;
  } else {
    globalThis.require = createRequire(process.cwd() + "/");
    call = runInThisContext(source + "\\n;" + name, { filename: "main.js" });
  }
  if (typeof call !== "function") throw new TypeError(name + " is not a function");
} catch (error) {
  failure = error;
}
let pending = "";
const chunk = Buffer.alloc(65536);
for (;;) {
  const count = readSync(${GUEST_CHANNEL}, chunk);
  if (count === 0) process.exit(0);
  pending += chunk.toString("latin1", 0, count);
  const lines = pending.split("\\n");
  pending = lines.pop();
  for (const line of lines) {
    const { id, args } = JSON.parse(Buffer.from(line, "latin1").toString("utf8"));
    try {
      if (failure !== undefined) throw failure;
      answer({ id, value: (await call(...args)) ?? null });
    } catch (error) {
      answer({ id, error: String(error?.stack ?? error).slice(0, 4000) });
    }
  }
}
`;

export const DRIVERS = { python: PYTHON_DRIVER, node: NODE_DRIVER } as const;
