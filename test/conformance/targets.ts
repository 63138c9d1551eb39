import { execFileSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import type { Target } from "./worker-under-test.ts";

const at = (path: string): string => fileURLToPath(new URL(path, import.meta.url));

/** The fixture capability, written with the TypeScript SDK and run from source. */
export const typescriptTarget: Target = {
  name: "typescript",
  command: [process.execPath, "-C", "@cjm/source", at("../fixtures/workers/conformance.ts")],
  adapters: {
    fits: "./conformance-adapter.ts:whisper",
    lacks: "./conformance-adapter.ts:demanding",
    missing: "./no-such-module.ts:nothing",
  },
};

/** Its twin, written with the Python SDK; undefined where there is no Python 3.9 or newer. */
export function pythonTarget(): Target | undefined {
  const program = process.env["CJM_TEST_PYTHON"] ?? "python3";
  try {
    execFileSync(program, ["-c", "import sys; sys.exit(sys.version_info < (3, 9))"]);
  } catch {
    return undefined;
  }
  return {
    name: "python",
    command: [program, at("../fixtures/workers/conformance.py")],
    env: { CJM_TEST_SDK: at("../../python/src"), PYTHONDONTWRITEBYTECODE: "1" },
    adapters: {
      fits: "conformance_adapter:Whisper",
      lacks: "conformance_adapter:Demanding",
      missing: "no_such_module:Nothing",
    },
  };
}
