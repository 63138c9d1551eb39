import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { execa } from "execa";
import { expect, test } from "vitest";
import { writeTinyModel } from "./tiny-model.ts";

test("a worker without the native package starts, and a call says what to install", async () => {
  const folder = mkdtempSync(join(tmpdir(), "cjm-inference-"));
  try {
    const model = await writeTinyModel(folder);
    const script = join(import.meta.dirname, "without-native-driver.ts");
    const args = ["-C", "@cjm/source", script, folder, model];
    const { stdout } = await execa(process.execPath, args);
    expect(JSON.parse(stdout)).toMatchObject({
      error: {
        code: "SETUP_REQUIRED",
        message: expect.stringMatching(/^engine_missing: .*install-all/u) as string,
      },
      info: { architecture: "llama" },
    });
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});
