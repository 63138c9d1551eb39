/**
 * A tool that needs memory of the scripted GPU: <name> <folder> <gpu> <bytes>.
 *
 * It publishes what it holds as a file that the monitor reads, in place of a driver
 * (`docs/gpu-monitor.md`, The scripted device). When it is asked to release, it lives on and holds
 * nothing; the next call takes the memory again.
 */
import { readlinkSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { defineAction, defineCapability, serve, z } from "cjm-substrate/worker";

const [name = "", folder = "", gpu = "", bytes = "0"] = process.argv.slice(2);
const path = join(folder, `${process.pid}.json`);
/** Long enough to be seen by several samples of the monitor. */
const WORK_MS = 600;

function hold(): void {
  const held = {
    pid: process.pid,
    pid_namespace: readlinkSync("/proc/self/ns/pid"),
    name,
    allocations: [{ gpu, bytes: Number(bytes) }],
  };
  // A rename, so that the monitor never reads half a file.
  writeFileSync(`${path}.part`, JSON.stringify(held));
  renameSync(`${path}.part`, path);
}

await serve(
  defineCapability({
    name,
    version: "1.0.0",
    config: z.strictObject({}),
    actions: {
      run: defineAction({
        input: z.strictObject({ after: z.number().optional() }),
        output: z.object({ pid: z.number() }),
        handler: async () => {
          hold();
          await delay(WORK_MS);
          return { pid: process.pid };
        },
      }),
    },
    releaseMemory: () => {
      rmSync(path, { force: true });
      return { held: "" };
    },
  }),
);
