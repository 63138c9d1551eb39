import { createServer, type Server } from "node:http";
import { once } from "node:events";
import { mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { loadConfig, type ResolvedConfig } from "../../../src/config/index.ts";
import { setupRuntime } from "../../../src/provision/index.ts";
import { sha256 } from "../../../src/util/canonical-json.ts";

const BINARY = "#!/bin/sh\necho 9.9.9\n";
const CHECKSUM = sha256(BINARY).slice("sha256:".length);

let project = "";
let config: ResolvedConfig;
let server: Server;
let mirror = "";
let asked: string[] = [];
beforeEach(async () => {
  project = await mkdtemp(join(tmpdir(), "cjm-runtime-"));
  await writeFile(
    join(project, "cjm.yaml"),
    "runtime:\n  mode: local\n  conda_type: micromamba\n  prefix: rt\n",
  );
  config = await loadConfig({ cwd: project, env: {} });
  asked = [];
  server = createServer((request, response) => {
    asked.push(request.url ?? "");
    response.statusCode = request.url?.includes("missing") === true ? 404 : 200;
    response.end(BINARY);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  mirror = `http://127.0.0.1:${typeof address === "object" ? address?.port : ""}`;
});
afterEach(async () => {
  server.close();
  await rm(project, { recursive: true });
});

describe("setupRuntime", () => {
  test("installs from a mirror what has the right checksum, once", async () => {
    const path = join(project, "rt/bin/micromamba");
    const options = { config, mirror, sha256: CHECKSUM };
    expect(await setupRuntime(options)).toMatchObject({ path, outcome: "installed" });
    expect(await readFile(path, "utf8")).toBe(BINARY);
    expect((await stat(path)).mode & 0o111).not.toBe(0);
    expect(asked).toHaveLength(1);
    expect(await setupRuntime(options)).toMatchObject({ outcome: "unchanged" });
    expect(asked).toHaveLength(1);
    expect(await setupRuntime({ ...options, force: true })).toMatchObject({ outcome: "installed" });
    expect(asked).toHaveLength(2);
  });

  test("installs nothing whose checksum is not the pinned one", async () => {
    await expect(setupRuntime({ config, mirror })).rejects.toThrow(
      /checksum is sha256:.*expected/u,
    );
    await expect(stat(join(project, "rt"))).rejects.toMatchObject({ code: "ENOENT" });
  });

  test("takes a file of this machine instead of a download", async () => {
    const file = join(project, "micromamba");
    await writeFile(file, BINARY);
    expect(await setupRuntime({ config, file, sha256: CHECKSUM })).toMatchObject({
      outcome: "installed",
    });
    expect(asked).toEqual([]);
  });

  test("names the address that does not answer with it", async () => {
    const missing = `${mirror}/missing`;
    await expect(setupRuntime({ config, mirror: missing })).rejects.toThrow("HTTP 404");
  });

  test("says what to set where the project has no runtime of its own", async () => {
    await writeFile(join(project, "cjm.yaml"), "");
    const system = await loadConfig({ cwd: project, env: {} });
    await expect(setupRuntime({ config: system })).rejects.toThrow(
      "Set `local` and `micromamba` in cjm.yaml",
    );
  });
});
