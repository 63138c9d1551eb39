import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { gone } from "../worker/start-worker.ts";
import { collect, failureOf, NEVER, openEngine, reasonOf, requestOf } from "./support.ts";

const program = fileURLToPath(new URL("stubs/managed-driver.ts", import.meta.url));
const open = (behaviour = "well", config: object = {}, managed: object = {}) =>
  openEngine({
    server: "generic",
    managed: {
      command: [process.execPath, program, "{port}", behaviour],
      ready_seconds: 25,
      grace_seconds: 0.3,
      ...managed,
    },
    ...config,
  });
const load = { signal: NEVER, progress: () => undefined };

async function pidsOf(engine: Parameters<typeof collect>[0]): Promise<[number, number]> {
  const [server, child] = (await collect(engine)).result.text.split(" ").map(Number);
  return [server ?? 0, child ?? 0];
}

describe("a managed server", () => {
  it("starts with the first call, once for all of them, and its output is logged", async () => {
    await using engine = open();
    expect(engine.status().state).toBe("unloaded");
    const texts = await Promise.all(Array.from({ length: 20 }, () => collect(engine)));
    expect(new Set(texts.map(({ result }) => result.text)).size).toBe(1);
    expect(engine.status()).toMatchObject({ state: "loaded", loads: 1 });
    expect(engine.logged).toContain("starting: well");
  });

  it("ends with the engine, its own children too, whether it wants to or not", async () => {
    for (const behaviour of ["well", "ignores-sigterm"]) {
      const engine = open(behaviour);
      const pids = await pidsOf(engine);
      await engine.close();
      await Promise.all(pids.map(gone));
    }
  });

  it("gives everything back when it is released, and starts again", async () => {
    const measuredMb = [900, 400, 0];
    await using engine = openEngine(
      { server: "generic", managed: { command: [process.execPath, program, "{port}"] } },
      { measureVramMb: async () => measuredMb.shift() },
    );
    const [before] = await pidsOf(engine);
    expect(engine.releaseLevels).toEqual(["unload"]);
    expect(await engine.release("unload")).toEqual({ held: "", freedMb: 900 });
    await gone(before);
    expect(engine.status().state).toBe("unloaded");
    const [after] = await pidsOf(engine);
    expect(after).not.toBe(before);
  });

  it("ends when nobody has called for as long as was asked, and starts again", async () => {
    await using engine = open("well", {}, { idle_unload_seconds: 0.05 });
    const pids = await pidsOf(engine);
    await Promise.all(pids.map(gone));
    await expect.poll(() => engine.status().state).toBe("unloaded");
    expect(await pidsOf(engine)).not.toEqual(pids);
    expect(engine.status().loads).toBe(2);
  });

  it("that is killed ends its calls with its last words, and the next call starts it", async () => {
    await using engine = open("hangs");
    const stream = engine.stream(requestOf(), { signal: NEVER });
    const first = await stream.next();
    const pid = Number(first.done === true ? 0 : first.value.text.split(" ")[0]);
    const failed = failureOf(stream.next());
    process.kill(pid, "SIGKILL");
    const error = await failed;
    expect(error.code).toBe("CAPABILITY_TRANSIENT");
    expect(error.details).toMatchObject({ reason: "engine_crashed", signal: "SIGKILL" });
    const again = engine.stream(requestOf(), { signal: NEVER });
    const next = await again.next();
    expect(next.done).toBe(false);
    expect(engine.status().loads).toBe(2);
    await again.return(undefined as never);
  });

  it("that dies while it starts is named with its last words", async () => {
    await using engine = open("dies");
    const error = await failureOf(engine.prefetch(load));
    expect(error.details).toMatchObject({ reason: "engine_crashed", code: 3 });
    expect(error.message).toContain("no such model");
    expect(engine.status().state).toBe("unloaded");
  });

  it("that never answers is ended at its limit", async () => {
    await using engine = open("mute", {}, { ready_seconds: 0.5 });
    expect(await reasonOf(engine.prefetch(load))).toBe("CAPABILITY_TIMEOUT server_hangs");
  });

  it("that is not installed is named", async () => {
    await using engine = open("well", {}, { command: ["cjm-no-such-program"] });
    expect(await reasonOf(engine.prefetch(load))).toBe("SETUP_REQUIRED engine_missing");
  });

  it("starts for a call that was aborted meanwhile, and serves the next one", async () => {
    await using engine = open();
    const controller = new AbortController();
    const aborted = collect(engine, {}, controller.signal);
    controller.abort(new Error("enough"));
    await expect(aborted).rejects.toThrow("enough");
    await collect(engine);
    expect(engine.status().loads).toBe(1);
  });

  it("of vLLM gets a key of its own, and no allocator with which sleep frees nothing", async () => {
    const show =
      "const { PYTORCH_CUDA_ALLOC_CONF: alloc, VLLM_SERVER_DEV_MODE: mode, ...env } = process.env;" +
      "console.log('alloc', alloc, mode, env.VLLM_API_KEY?.length, env.INFERENCE_API_KEY);" +
      "process.exit(0)";
    await using engine = openEngine({
      server: "vllm",
      managed: {
        command: [process.execPath, "-e", show],
        env: { PYTORCH_CUDA_ALLOC_CONF: "expandable_segments:True", INFERENCE_API_KEY: "x" },
      },
    });
    const error = await failureOf(engine.prefetch(load));
    expect(error.message).toContain("alloc undefined 1 32 undefined");
  });

  it("is not started to say what it is", async () => {
    await using engine = open();
    expect(await engine.card()).toMatchObject({ id: "generic", format: "server", bytes: null });
    expect(engine.status().loads).toBe(0);
  });
});
