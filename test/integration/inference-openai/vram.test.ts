import { execFileSync } from "node:child_process";
import { randomUUID } from "node:crypto";
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { NEVER, openEngine, reasonOf, type OwnedEngine } from "./support.ts";
import { startVllm } from "./stubs/vllm-stub.ts";

const HELD = { held: "vLLM keeps the weights in RAM" };
/** MiB that the fake driver tells for each process of the server: the program and its child. */
const EACH = 9000;

let folder = "";
let mark = "";
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "cjm-smi-"));
  mark = `FAKE_GPU=${randomUUID()}`;
  vi.stubEnv("PATH", `${folder}${delimiter}${process.env["PATH"]}`);
  say(EACH);
});
afterEach(() => {
  vi.unstubAllEnvs();
  rmSync(folder, { recursive: true });
});

function say(mib: number): void {
  writeFileSync(join(folder, "mib"), String(mib));
}

/** A program `nvidia-smi` that answers by a shell script. */
function install(script: string): void {
  const path = join(folder, "nvidia-smi");
  writeFileSync(path, `#!/bin/sh\ncd ${folder}\n${script}\n`);
  chmodSync(path, 0o755);
}

/** Names every process with the mark in its environment, and a stranger. */
function truthful(): string {
  return `echo "1, 70000"
for file in $(grep -ls ${mark} /proc/[0-9]*/environ); do
  pid=\${file#/proc/}
  echo "\${pid%/environ}, $(cat mib)"
done`;
}

/** A vLLM stub that says what it frees, and a program in its place that holds the memory. */
async function open(lies: Parameters<typeof startVllm>[0] = {}): Promise<{
  readonly engine: OwnedEngine;
  readonly stub: Awaited<ReturnType<typeof startVllm>>;
}> {
  const stub = await startVllm(lies);
  let mib = stub.state.vramMb;
  Object.defineProperty(stub.state, "vramMb", {
    get: () => mib,
    set: (value: number) => {
      mib = value;
      say((EACH * value) / 20_000);
    },
  });
  const [name = "", token = ""] = mark.split("=");
  const engine = openEngine({
    server: "vllm",
    base_url: stub.url,
    managed: {
      command: ["sh", "-c", "sleep 600 & wait"],
      env: { [name]: token },
      grace_seconds: 0.3,
    },
  });
  await engine.prefetch({ signal: NEVER, progress: () => undefined });
  const count = `grep -ls ${mark} /proc/[0-9]*/environ | wc -l`;
  await expect.poll(() => execFileSync("sh", ["-c", count], { encoding: "utf8" }).trim()).toBe("2");
  return { engine, stub };
}

describe("the VRAM of a managed server", () => {
  it("is that of its processes, by the driver", async () => {
    install(truthful());
    const { engine, stub } = await open();
    await using _stub = stub;
    await using _engine = engine;
    expect(await engine.release("sleep")).toEqual({ ...HELD, freedMb: 2 * EACH });
    say(EACH);
    expect(await engine.release("unload")).toEqual({ held: "", freedMb: 2 * EACH });
  });

  it("that a sleep does not free is a lie", async () => {
    install(truthful());
    const { engine, stub } = await open({ freedShare: 0.3 });
    await using _stub = stub;
    await using _engine = engine;
    expect(await reasonOf(engine.release("sleep"))).toBe("CAPABILITY_ERROR server_lied");
    expect(stub.state.isSleeping).toBe(false);
  });

  it.each([
    ["fails", "exit 9"],
    ["says something else", "echo 'No devices were found'"],
    ["does not tell", () => truthful().replace("$(cat mib)", "[N/A]")],
    ["names others only", "echo '1, 70000'"],
  ])("is not told where nvidia-smi %s", async (_, script) => {
    install(typeof script === "string" ? script : script());
    const { engine, stub } = await open();
    await using _stub = stub;
    await using _engine = engine;
    expect(await engine.release("sleep")).toEqual(HELD);
    expect(engine.status().state).toBe("asleep");
  });
});
