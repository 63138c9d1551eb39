import { spawn } from "node:child_process";
import { once } from "node:events";
import { chmod, mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import {
  acquireHostLock,
  createRedactor,
  INLINE_RESULT_BYTES,
  readHostInfo,
  ResultFiles,
  SecretStore,
} from "../../../src/store/index.ts";

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "cjm-files-"));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

describe("results", () => {
  test("up to 256 KiB stay in their row, larger ones become files named by content", async () => {
    const results = new ResultFiles(folder);
    const small = await results.store({ text: "x" });
    expect(small).toEqual({ kind: "inline", json: '{"text":"x"}' });
    expect(await results.store(undefined)).toEqual({ kind: "inline", json: "null" });

    const value = { text: "ä".repeat(INLINE_RESULT_BYTES / 2) };
    const large = await results.store(value);
    expect(large.kind).toBe("file");
    expect(await results.store(value)).toEqual(large);
    expect(await results.load(small)).toEqual({ text: "x" });
    expect(await results.load(large)).toEqual(value);
  });

  test("that are gone or changed are never given out", async () => {
    const results = new ResultFiles(folder);
    const stored = await results.store("x".repeat(INLINE_RESULT_BYTES));
    if (stored.kind !== "file") expect.fail("it is not large enough");
    const path = results.path(stored.hash);
    await writeFile(path, (await readFile(path, "utf8")).replace("xxx", "xyx"));
    await expect(results.load(stored)).rejects.toMatchObject({ code: "DATABASE_CORRUPT" });
    await results.remove(stored.hash);
    await results.remove(stored.hash);
    await expect(results.load(stored)).rejects.toMatchObject({ code: "DATABASE_CORRUPT" });
    expect(() => results.path("../../etc/passwd")).toThrow(TypeError);
  });
});

describe("the host lock", () => {
  test("lets one host in and names it to the next", async () => {
    {
      await using lock = await acquireHostLock(folder, { pid: 4711, door: null });
      await lock.announce({ pid: 4711, door: "/run/host.sock" });
      await expect(acquireHostLock(folder, { pid: 1, door: null })).rejects.toMatchObject({
        code: "DATA_DIR_LOCKED",
        message: `${folder} is in use by the host with pid 4711 (door /run/host.sock)`,
        details: { pid: 4711, door: "/run/host.sock" },
      });
      expect(await readHostInfo(folder)).toEqual({ pid: 4711, door: "/run/host.sock" });
    }
    expect(await readHostInfo(folder)).toBeUndefined();
    await using _again = await acquireHostLock(folder, { pid: 2, door: null });
  });

  test("is freed by the kernel when its host is killed; what it left behind locks nobody out", async () => {
    const source = new URL("../../../src/store/host-lock.ts", import.meta.url).href;
    const script = `
      const { acquireHostLock } = await import(${JSON.stringify(source)});
      await acquireHostLock(${JSON.stringify(folder)}, { pid: process.pid, door: null });
      process.stdout.write("held");
      setInterval(() => {}, 1000);`;
    const host = spawn(process.execPath, ["--input-type=module", "-e", script], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    await once(host.stdout, "data");
    await expect(acquireHostLock(folder, { pid: 1, door: null })).rejects.toMatchObject({
      code: "DATA_DIR_LOCKED",
      details: { pid: host.pid },
    });
    host.kill("SIGKILL");
    await once(host, "exit");
    expect(await readHostInfo(folder)).toBeUndefined();
    await using _lock = await acquireHostLock(folder, { pid: process.pid, door: null });
    expect(await readHostInfo(folder)).toEqual({ pid: process.pid, door: null });
  });

  test("of a folder that nobody ever used is free", async () => {
    expect(await readHostInfo(join(folder, "nothing"))).toBeUndefined();
  });
});

describe("secrets", () => {
  const path = (): string => join(folder, "secrets", "secrets.json");
  const key = { capability: "tool", key: "API_KEY" };

  test("are set, read, listed by name and deleted, in the original's layout", async () => {
    const secrets = new SecretStore(folder);
    expect(await secrets.get(key)).toBeUndefined();
    expect(await secrets.delete(key)).toBe(false);
    await Promise.all([
      secrets.set(key, "first-value"),
      secrets.set({ ...key, scope: "anna" }, "annas-value"),
      secrets.set({ capability: "other", key: "B" }, "second-value"),
      secrets.set({ capability: "tool", key: "A_KEY" }, "third-value"),
    ]);
    expect(JSON.parse(await readFile(path(), "utf8"))).toEqual({
      __default__: {
        tool: { API_KEY: "first-value", A_KEY: "third-value" },
        other: { B: "second-value" },
      },
      anna: { tool: { API_KEY: "annas-value" } },
    });
    expect(await secrets.get({ ...key, scope: "anna" })).toBe("annas-value");
    expect(await secrets.listKeys("tool")).toEqual(["API_KEY", "A_KEY"]);
    expect(await secrets.list()).toEqual({ tool: ["API_KEY", "A_KEY"], other: ["B"] });
    expect(await secrets.values()).toHaveLength(4);
    expect(await secrets.delete({ ...key, scope: "anna" })).toBe(true);
    expect(await secrets.delete({ capability: "other", key: "B" })).toBe(true);
    expect(JSON.parse(await readFile(path(), "utf8"))).toEqual({
      __default__: { tool: { API_KEY: "first-value", A_KEY: "third-value" } },
    });
  });

  test("lie in a file and a folder that only their owner can read", async () => {
    await new SecretStore(folder).set(key, "first-value");
    expect((await stat(path())).mode & 0o777).toBe(0o600);
    expect((await stat(join(folder, "secrets"))).mode & 0o777).toBe(0o700);
  });

  test.each([
    ["a file that others may read", () => chmod(path(), 0o644)],
    ["a folder that others may enter", () => chmod(join(folder, "secrets"), 0o755)],
    ["a torn file", () => writeFile(path(), '{"__default__":{"tool":{"API_KEY":"first-va')],
    ["a file of another shape", () => writeFile(path(), '{"API_KEY":"first-value"}')],
  ])("in %s are refused without telling one", async (_what, spoil) => {
    const secrets = new SecretStore(folder);
    await secrets.set(key, "first-value");
    await spoil();
    const error: unknown = await secrets.get(key).catch((reason: unknown) => reason);
    expect(error).toMatchObject({ code: "SECRET_INVALID" });
    expect(error instanceof Error ? `${error.message}${String(error.cause)}` : "").not.toMatch(
      /first-va/u,
    );
    await expect(secrets.set(key, "other-value")).rejects.toMatchObject({ code: "SECRET_INVALID" });
  });

  test("too short to be redacted are refused", async () => {
    await expect(new SecretStore(folder).set(key, "1234567")).rejects.toMatchObject({
      code: "SECRET_INVALID",
    });
  });

  test("are replaced in text as they are, in JSON and in a URI, longest first", () => {
    const redact = createRedactor(["secret-1", "secret-1-long", 'a"b\\c d$', ""]);
    expect(redact("x secret-1-long y secret-1")).toBe("x [redacted] y [redacted]");
    expect(redact(JSON.stringify({ k: 'a"b\\c d$' }))).toBe('{"k":"[redacted]"}');
    expect(redact(`?k=${encodeURIComponent('a"b\\c d$')}`)).toBe("?k=[redacted]");
    const pem = createRedactor(["-----BEGIN KEY-----\nMIIEvQIBADANBg\nshort\n"]);
    expect(pem("line: MIIEvQIBADANBg, short")).toBe("line: [redacted], short");
    expect(createRedactor([])("nothing")).toBe("nothing");
  });
});
