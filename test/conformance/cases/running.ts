import assert from "node:assert/strict";
import { z } from "zod";
import { FRAME_MAX_BYTES, jobErrorBodySchema, statsSchema } from "../../../src/protocol/index.ts";
import { failureOf, logged, memberOf, newJob, valueOf, type Case } from "../case.ts";
import type { Reply, WorkerUnderTest } from "../worker-under-test.ts";

/** Starts an action that waits; resolves when it runs. */
async function startWaiting(
  worker: WorkerUnderTest,
  job_id: string,
): Promise<{ reply: Promise<Reply> }> {
  const reply = worker.execute("wait", {}, { job_id });
  reply.catch(() => undefined);
  await worker.frame((frame) => frame.type === "progress" && frame.job_id === job_id);
  return { reply };
}

function linesOf(reply: Reply): unknown[] {
  assert.match(reply.contentType, /^application\/x-ndjson/u);
  return reply.text
    .trimEnd()
    .split("\n")
    .map((line): unknown => JSON.parse(line));
}

function stream(
  worker: WorkerUnderTest,
  kwargs: Readonly<Record<string, unknown>>,
  job_id = newJob(),
): Promise<Reply> {
  return worker.post("/execute_stream", worker.callBody("stream", kwargs, { job_id }));
}

export const cancelling: readonly Case[] = [
  {
    title: "cancels the call of one job and no other",
    fixture: true,
    run: async (worker) => {
      const [first, second] = [newJob(), newJob()];
      const one = await startWaiting(worker, first);
      const two = await startWaiting(worker, second);
      assert.deepEqual(valueOf(await worker.post("/cancel", { job_id: first })), {
        status: "cancelled",
        calls: 1,
      });
      const reply = await one.reply;
      assert.equal(reply.status, 409);
      assert.equal(failureOf(reply, "CAPABILITY_CANCELLED").retriable, false);
      assert.equal(memberOf(await worker.post("/cancel", { job_id: second }), "calls"), 1);
      assert.equal((await two.reply).status, 409);
    },
  },
  {
    title: "cancels every call where no job is named",
    fixture: true,
    run: async (worker) => {
      const one = await startWaiting(worker, newJob());
      const two = await startWaiting(worker, newJob());
      assert.equal(memberOf(await worker.post("/cancel", {}), "calls"), 2);
      assert.equal((await one.reply).status, 409);
      assert.equal((await two.reply).status, 409);
    },
  },
  {
    title: "takes a closed connection for a cancel",
    fixture: true,
    run: async (worker) => {
      const job_id = newJob();
      const { request } = worker.begin("POST", "/execute", worker.callBody("wait", {}, { job_id }));
      await worker.frame((frame) => frame.type === "progress" && frame.job_id === job_id);
      request.destroy();
      await worker.frame(
        (f) => f.type === "log" && f.job_id === job_id && f.message === "wait over",
      );
    },
  },
  {
    title: "answers a cancel of a job that does not run, and goes on",
    run: async (worker) => {
      const reply = await worker.post("/cancel", { job_id: newJob() });
      assert.equal(memberOf(reply, "status"), "cancelled");
      valueOf(await worker.get("/health"));
    },
  },
  {
    title: "ends a call at its deadline with a timeout, not a cancel",
    fixture: true,
    run: async (worker) => {
      const reply = await worker.execute("wait", {}, { job_id: newJob(), deadline_ms: 50 });
      assert.equal(failureOf(reply, "CAPABILITY_TIMEOUT").category, "transient");
    },
  },
  {
    title: "keeps a call that ends before its deadline",
    fixture: true,
    run: async (worker) => {
      const reply = await worker.execute("wait", { seconds: 0.01 }, { deadline_ms: 60_000 });
      assert.equal(valueOf(reply), "done");
    },
  },
];

export const streaming: readonly Case[] = [
  {
    title: "streams chunks in order, one JSON line each",
    fixture: true,
    run: async (worker) => {
      const reply = await stream(worker, { n: 3 });
      assert.deepEqual(linesOf(reply), [{ index: 0 }, { index: 1 }, { index: 2 }]);
    },
  },
  {
    title: "sends a chunk when it is made, not when the stream ends",
    fixture: true,
    run: async (worker) => {
      const body = worker.callBody("stream", { n: 1000, seconds: 0.05 }, { job_id: newJob() });
      const { message, leave } = await worker.open("POST", "/execute_stream", body);
      for await (const part of message) {
        assert.match(String(part), /^\{"index":0\}\n/u);
        break;
      }
      leave();
    },
  },
  {
    title: "ends a stream's call when the host leaves it",
    fixture: true,
    run: async (worker) => {
      const job_id = newJob();
      const body = worker.callBody("stream", { n: 100_000, seconds: 0.01 }, { job_id });
      const { message, leave } = await worker.open("POST", "/execute_stream", body);
      for await (const part of message) {
        assert.ok(String(part).length > 0);
        break;
      }
      leave();
      await worker.frame(
        (f) => f.type === "log" && f.job_id === job_id && f.message === "stream over",
      );
    },
  },
  {
    title: "ends a stream that fails with the failure as its last line",
    fixture: true,
    run: async (worker) => {
      const reply = await stream(worker, { n: 3, fail_at: 2 });
      assert.equal(reply.status, 200);
      const [first, second, last] = linesOf(reply);
      assert.deepEqual([first, second], [{ index: 0 }, { index: 1 }]);
      const { _job_error: error } = jobErrorBodySchema.parse(last);
      assert.equal(error.code, "CAPABILITY_TRANSIENT");
      assert.equal(error.retry_after_seconds, 1.5);
    },
  },
  {
    title: "ends a cancelled stream with the cancel as its last line",
    fixture: true,
    run: async (worker) => {
      const job_id = newJob();
      const body = worker.callBody("stream", { n: 100_000, seconds: 0.01 }, { job_id });
      const { message } = await worker.open("POST", "/execute_stream", body);
      let text = "";
      for await (const part of message) {
        if (text === "") await worker.post("/cancel", { job_id });
        text += String(part);
      }
      const last: unknown = JSON.parse(text.trimEnd().split("\n").at(-1) ?? "");
      assert.equal(jobErrorBodySchema.parse(last)._job_error.code, "CAPABILITY_CANCELLED");
    },
  },
  {
    title: "refuses wrong input of a stream before it begins",
    fixture: true,
    run: async (worker) => {
      const reply = await stream(worker, { n: "three" });
      assert.equal(reply.status, 400);
      assert.deepEqual(failureOf(reply, "CAPABILITY_INPUT").fields_invalid, ["n"]);
    },
  },
  {
    title: "refuses to answer at once with an action that streams",
    fixture: true,
    run: async (worker) => {
      failureOf(await worker.execute("stream", { n: 1 }), "METHOD_NOT_SUPPORTED");
    },
  },
  {
    title: "streams the one result of an action that does not stream",
    fixture: true,
    run: async (worker) => {
      const body = worker.callBody("echo", { value: 1 });
      assert.deepEqual(linesOf(await worker.post("/execute_stream", body)), [{ value: 1 }]);
    },
  },
];

const progressOf = (
  worker: WorkerUnderTest,
  job: string,
): { progress: number; message: string }[] =>
  worker.frames.filter((frame) => frame.type === "progress").filter((f) => f.job_id === job);

export const reporting: readonly Case[] = [
  {
    title: "reports log, progress, usage, account and memory with the job they belong to",
    fixture: true,
    run: async (worker) => {
      const job_id = newJob();
      valueOf(await worker.execute("report", {}, { job_id }));
      await worker.frame((frame) => frame.type === "memory" && frame.job_id === job_id);
      const mine = worker.frames.filter((frame) => "job_id" in frame && frame.job_id === job_id);
      const kinds = mine.map((frame) => frame.type).filter((kind) => kind !== "progress");
      assert.deepEqual(kinds, ["log", "usage", "usage", "account", "memory"]);
      const units = mine.filter((frame) => frame.type === "usage").map((frame) => frame.units);
      assert.deepEqual(units, [{ tokens: 3 }, { tokens: 4, pages: 1 }]);
      const memory = mine.find((frame) => frame.type === "memory");
      assert.equal(memory?.gpu_peak_mb, 12.5);
      const stats = statsSchema.parse(valueOf(await worker.get("/stats")));
      assert.deepEqual(stats.usage, { tokens: 7, pages: 1 });
    },
  },
  {
    title: "sends few of many progress reports, and always the last",
    fixture: true,
    run: async (worker) => {
      const job_id = newJob();
      const startedAt = performance.now();
      valueOf(await worker.execute("progress_burst", { n: 500 }, { job_id }));
      await worker.frame(
        (f) => f.type === "progress" && f.job_id === job_id && f.message === "step 500",
      );
      const seconds = (performance.now() - startedAt) / 1000;
      const sent = progressOf(worker, job_id);
      assert.ok(sent.length <= 11 * Math.ceil(seconds), `${sent.length} frames in ${seconds} s`);
      assert.deepEqual(sent.at(-1)?.progress, 1);
    },
  },
  {
    title: "answers /progress for a job that runs",
    fixture: true,
    run: async (worker) => {
      const job_id = newJob();
      const { reply } = await startWaiting(worker, job_id);
      const progress = await worker.get(`/progress?job_id=${job_id}`);
      assert.deepEqual(valueOf(progress), { progress: 0.1, message: "waiting" });
      await worker.post("/cancel", { job_id });
      await reply;
      assert.equal(memberOf(await worker.get("/progress?job_id=none"), "progress"), 0);
    },
  },
  {
    title: "beats while a tool is silent, without piling up the elapsed seconds",
    fixture: true,
    run: async (worker) => {
      const job_id = newJob();
      valueOf(await worker.execute("heartbeat", { seconds: 1.2 }, { job_id }));
      const beats = progressOf(worker, job_id).filter((frame) => frame.message.includes("("));
      assert.ok(beats.length >= 1);
      for (const { message } of beats) assert.match(message, /^working \(\d+(?:\.\d+)? ?s\)$/u);
    },
  },
  {
    title: "stamps the log lines of calls that run at once with the right job",
    fixture: true,
    run: async (worker) => {
      const texts = ["a", "b", "c", "d"].map((letter) => `${letter}-${newJob()}`);
      await Promise.all(
        texts.map((text) =>
          worker.execute("log_around", { text, seconds: 0.05 }, { job_id: `job-of-${text}` }),
        ),
      );
      for (const text of texts) {
        for (const message of [`before ${text}`, `after ${text}`]) {
          assert.equal((await worker.frame(logged(message))).job_id, `job-of-${text}`);
        }
      }
    },
  },
  {
    title: "logs an exception with its cause and a UTC time",
    fixture: true,
    run: async (worker) => {
      const job_id = newJob();
      valueOf(await worker.execute("log_error", {}, { job_id }));
      const frame = await worker.frame((f) => f.type === "log" && f.job_id === job_id);
      assert.ok(frame.type === "log");
      assert.equal(frame.level, "error");
      assert.match(frame.exc ?? "", /the cause/u);
      assert.match(frame.ts, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z$/u);
    },
  },
  {
    title: "cuts a log line that is too long, and says so",
    fixture: true,
    run: async (worker) => {
      const job_id = newJob();
      valueOf(await worker.execute("log_error", { characters: 200_000 }, { job_id }));
      const frame = await worker.frame((f) => f.type === "log" && f.job_id === job_id);
      assert.ok(frame.type === "log");
      assert.ok(frame.message.length < 70_000 && frame.message.startsWith("xxx"));
      assert.match(frame.message, /cut/u);
      assert.ok(worker.longestLine <= FRAME_MAX_BYTES, `${worker.longestLine} bytes`);
    },
  },
];

const MEGABYTE = 1024 * 1024;
const nested = (levels: number): string =>
  `{"kwargs":{"action":"echo","value":${"[".repeat(levels)}${"]".repeat(levels)}}}`;

/** The answer of a refused body, or undefined where the refusal ended the connection first. */
async function refusal(reply: Promise<Reply>): Promise<Reply | undefined> {
  try {
    return await reply;
  } catch (error) {
    const { code } = z.object({ code: z.string() }).parse(error);
    assert.ok(["EPIPE", "ECONNRESET"].includes(code), code);
    return undefined;
  }
}

export const bounding: readonly Case[] = [
  {
    title: "takes a text of one megabyte both ways",
    fixture: true,
    run: async (worker) => {
      const value = "ä\\".repeat(MEGABYTE / 4);
      assert.equal(memberOf(await worker.execute("echo", { value }), "value"), value);
    },
  },
  ...([false, true] as const).map((chunked): Case => ({
    title: `refuses a body over 4 MiB ${chunked ? "that arrives in chunks" : "by its length"}`,
    run: async (worker) => {
      const raw = Buffer.from(JSON.stringify({ kwargs: { value: "x".repeat(5 * MEGABYTE) } }));
      const reply = await refusal(worker.post("/execute", undefined, { raw, chunked }));
      if (reply !== undefined) {
        assert.equal(reply.status, 413);
        failureOf(reply, "REQUEST_TOO_LARGE");
      }
      valueOf(await worker.get("/health"));
    },
  })),
  {
    title: "takes 64 levels and refuses 65",
    fixture: true,
    run: async (worker) => {
      valueOf(await worker.post("/execute", undefined, { raw: nested(62) }));
      const reply = await worker.post("/execute", undefined, { raw: nested(63) });
      assert.equal(reply.status, 413);
      failureOf(reply, "REQUEST_TOO_LARGE");
    },
  },
  {
    title: "refuses a bottomless body before it parses it",
    run: async (worker) => {
      const raw = `{"kwargs":${"[".repeat(2 * MEGABYTE)}`;
      const reply = await refusal(worker.post("/execute", undefined, { raw }));
      if (reply !== undefined) assert.equal(reply.status, 413);
      valueOf(await worker.get("/health"));
    },
  },
  {
    title: "refuses more than 200,000 values",
    run: async (worker) => {
      const raw = `{"kwargs":{"value":[${"0,".repeat(200_000)}0]}}`;
      const reply = await refusal(worker.post("/execute", undefined, { raw }));
      if (reply !== undefined) assert.equal(reply.status, 413);
    },
  },
  {
    title: "does not count what stands inside strings",
    fixture: true,
    run: async (worker) => {
      const value = `${'[{"\\,'.repeat(100_000)}]`;
      assert.equal(memberOf(await worker.execute("echo", { value }), "value"), value);
    },
  },
  {
    title: "refuses a body that is not JSON",
    run: async (worker) => {
      for (const raw of [
        "{",
        "{'a': 1}",
        '{"a": NaN}',
        "\u0000",
        '{"a":1}}',
        Buffer.from([0xff]),
      ]) {
        const reply = await worker.post("/execute", undefined, { raw });
        assert.equal(reply.status, 400, `${String(raw)}: ${reply.text}`);
        failureOf(reply, "CAPABILITY_INPUT");
      }
    },
  },
  {
    title: "refuses to send a result over 4 MiB",
    fixture: true,
    run: async (worker) => {
      const reply = await worker.execute("big_output", { characters: 5 * MEGABYTE });
      failureOf(reply, "RESPONSE_TOO_LARGE");
    },
  },
  {
    title: "wrote nothing but frames on the control stream",
    run: async (worker) => {
      assert.deepEqual(worker.malformed, []);
      assert.ok(worker.longestLine <= FRAME_MAX_BYTES);
    },
  },
];

export const adapting: readonly Case[] = [
  {
    title: "binds the task adapters the host names",
    fixture: true,
    fresh: async (start) => {
      const worker = await start({ env: { CJM_ADAPTERS: "fits" } });
      const call = { task: "whisper", method: "whisper", kwargs: { text: "HEY" } };
      assert.equal(valueOf(await worker.post("/task", call)), "hey");
    },
  },
  {
    title: "serves on when an adapter does not load or lacks members of the tool",
    fixture: true,
    fresh: async (start) => {
      const worker = await start({ env: { CJM_ADAPTERS: "missing,lacks" } });
      const errors = worker.frames.filter((f) => f.type === "log" && f.level === "error");
      assert.equal(errors.length, 2);
      assert.ok(errors.some((f) => JSON.stringify(f).includes("sing")));
      for (const task of ["demanding", "nowhere"]) {
        assert.equal((await worker.post("/task", { task, method: "sing" })).status, 404);
      }
      assert.equal(memberOf(await worker.execute("echo", { value: 1 }), "value"), 1);
    },
  },
];
