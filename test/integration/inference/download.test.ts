import { createHash } from "node:crypto";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { download } from "../../../workers/inference/actions/download.ts";
import { downloadInputSchema } from "../../../workers/inference/actions/schemas.ts";

const CONTENT = Buffer.from(Array.from({ length: 300_000 }, (_, i) => (i * 7) % 251));
const SHA = `sha256:${createHash("sha256").update(CONTENT).digest("hex")}`;

/** A file server that knows ranges; `behave` may answer in its place. */
let folder = "";
let url = "";
let asked: IncomingMessage[] = [];
let behave: (request: IncomingMessage, response: ServerResponse) => boolean = () => false;
const server = createServer((request, response) => {
  asked.push(request);
  if (behave(request, response)) return;
  const from = Number(/bytes=(\d+)-/u.exec(request.headers.range ?? "")?.[1] ?? 0);
  const isSame = request.headers["if-range"] === undefined || request.headers["if-range"] === '"1"';
  const start = isSame ? from : 0;
  response.writeHead(start > 0 ? 206 : 200, {
    etag: '"1"',
    "content-length": CONTENT.byteLength - start,
  });
  response.end(CONTENT.subarray(start));
});

let onBytes: (fraction: number) => void = () => undefined;
const call = {
  signal: new AbortController().signal,
  progress: (fraction: number): void => onBytes(fraction),
};
const fetchIt = (sha256 = SHA): ReturnType<typeof download> =>
  download(folder, { url: `${url}/model.gguf`, sha256 }, call);

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), "cjm-download-"));
  asked = [];
  onBytes = () => undefined;
  behave = () => false;
  await new Promise<void>((resolve) => {
    server.listen(0, "127.0.0.1", resolve);
  });
  url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
});
afterEach(async () => {
  server.closeAllConnections();
  await new Promise((resolve) => {
    server.close(resolve);
  });
  rmSync(folder, { recursive: true, force: true });
});

/** Ends the first answer once the client has all that it will get of it. */
function breakOnce(at: number): void {
  behave = (_, response) => {
    if (asked.length > 1) return false;
    onBytes = (fraction) => {
      if (fraction * CONTENT.byteLength >= at) response.destroy();
    };
    response.writeHead(200, { etag: '"1"', "content-length": CONTENT.byteLength });
    response.write(CONTENT.subarray(0, at));
    return true;
  };
}

describe("a download", () => {
  test("is kept under its name when its hash is right, and fetched once", async () => {
    const first = await fetchIt();
    expect(first).toMatchObject({ bytes: CONTENT.byteLength, resumed_from: 0, was_there: false });
    expect(readFileSync(first.path).equals(CONTENT)).toBe(true);
    expect(readdirSync(folder)).toEqual(["model.gguf"]);
    expect(await fetchIt()).toMatchObject({ was_there: true });
    expect(asked).toHaveLength(1);
  });

  test("may be one file of a model's folder", async () => {
    const name = "tiny/model.safetensors";
    const file = await download(folder, { url: `${url}/resolve`, sha256: SHA, name }, call);
    expect(file.path).toBe(join(folder, name));
    expect(readdirSync(join(folder, "tiny"))).toEqual(["model.safetensors"]);
    for (const bad of ["../x", "a/../../x", "/etc/x", "a//b", ".hidden/x", "a/b/c/d/e"]) {
      const asked = { url: `${url}/x`, sha256: SHA, name: bad };
      expect(downloadInputSchema.safeParse(asked).success, bad).toBe(false);
    }
  });

  test("that was broken off goes on where it was", async () => {
    breakOnce(120_000);
    await expect(fetchIt()).rejects.toMatchObject({ code: "CAPABILITY_TRANSIENT" });
    const whole = await fetchIt();
    expect(whole.resumed_from).toBeGreaterThan(0);
    expect(asked[1]?.headers.range).toBe(`bytes=${whole.resumed_from}-`);
    expect(readFileSync(whole.path).equals(CONTENT)).toBe(true);
  });

  test("starts anew where the server has another file by now", async () => {
    breakOnce(120_000);
    await expect(fetchIt()).rejects.toMatchObject({ code: "CAPABILITY_TRANSIENT" });
    behave = (_, response) => {
      response.writeHead(200, { etag: '"2"', "content-length": CONTENT.byteLength });
      response.end(CONTENT);
      return true;
    };
    expect(await fetchIt()).toMatchObject({ resumed_from: 0 });
  });

  test("of another content is not kept", async () => {
    const wrong = fetchIt(`sha256:${"0".repeat(64)}`);
    await expect(wrong).rejects.toMatchObject({ details: { reason: "download_hash" } });
    expect(readdirSync(folder)).toEqual([]);
  });

  test("fails clearly without a network, and by the server's word", async () => {
    const nowhere = download(folder, { url: "http://127.0.0.1:9/model.gguf", sha256: SHA }, call);
    await expect(nowhere).rejects.toMatchObject({
      code: "CAPABILITY_TRANSIENT",
      message: expect.stringContaining("is there a network?") as string,
    });
    const answers = [
      [404, "CAPABILITY_INPUT"],
      [503, "CAPABILITY_TRANSIENT"],
    ] as const;
    for (const [status, code] of answers) {
      behave = (_, response) => {
        response.writeHead(status).end();
        return true;
      };
      await expect(fetchIt()).rejects.toMatchObject({ code, details: { status } });
    }
  });
});
