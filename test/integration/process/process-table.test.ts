import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { processesWithVariable } from "../../../src/process/index.ts";

test("a process that starts one program after another is found by its environment", async () => {
  const folder = await mkdtemp(join(tmpdir(), "cjm-table-"));
  const program = join(folder, "again.sh");
  // While it starts a program, the kernel shows no environment of it.
  await writeFile(program, '#!/bin/sh\nexec "$0"\n', { mode: 0o755 });
  const child = spawn(program, { env: { PATH: process.env["PATH"], CJM_TEST_AGAIN: folder } });
  try {
    await once(child, "spawn");
    for (let look = 0; look < 10; look += 1) {
      const found = await processesWithVariable("CJM_TEST_AGAIN", (value) => value === folder);
      expect(found.map(({ pid }) => pid)).toEqual([child.pid]);
    }
  } finally {
    child.kill("SIGKILL");
    await rm(folder, { recursive: true });
  }
});
