import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { join, relative } from "node:path";
import { z } from "zod";
import { dirRefSchema, fileRefSchema } from "../../../src/protocol/index.ts";
import { failureOf, memberOf, newJob, valueOf, type Case } from "../case.ts";

const VALUES: readonly (readonly [string, unknown])[] = [
  ["text beyond the basic plane", 'naïve 漢字 🦜  \u0000 \u2028 "quoted" \\ end'],
  ["numbers", [0, -1, 1.5, 1e-7, 1e21, 9007199254740991, -9007199254740991]],
  ["nested lists and objects", { a: [{ b: [null, true, false] }], "": {}, ключ: [] }],
  ["null", null],
];

const sha256 = (content: string | Buffer): string =>
  `sha256:${createHash("sha256").update(content).digest("hex")}`;

const results: readonly Case[] = VALUES.map(([title, value]): Case => ({
  title: `gives back ${title} unchanged`,
  fixture: true,
  run: async (worker) => {
    assert.deepEqual(memberOf(await worker.execute("echo", { value }), "value"), value);
  },
}));

const dispatch: readonly Case[] = [
  {
    title: "runs the default action where none is named",
    fixture: true,
    run: async (worker) => {
      assert.equal(memberOf(await worker.execute(undefined, { value: 7 }), "value"), 7);
    },
  },
  {
    title: "gives positional arguments to the inputs in their order",
    fixture: true,
    run: async (worker) => {
      const body = { args: [3, "three"], kwargs: { action: "typed", ratio: 0.5 } };
      const reply = await worker.post("/execute", body);
      assert.deepEqual(valueOf(reply), { count: 3, name: "three", ratio: 0.5, tags: [] });
    },
  },
  {
    title: "refuses more positional arguments than there are inputs, and the same input twice",
    fixture: true,
    run: async (worker) => {
      const many = { args: [1, "a", 1, [], 5], kwargs: { action: "typed" } };
      failureOf(await worker.post("/execute", many), "CAPABILITY_INPUT");
      const twice = { args: [1], kwargs: { action: "typed", count: 1, name: "a" } };
      const error = failureOf(await worker.post("/execute", twice), "CAPABILITY_INPUT");
      assert.deepEqual(error.fields_invalid, ["count"]);
    },
  },
  {
    title: "refuses an action it does not have",
    run: async (worker) => {
      for (const action of ["no_such_action", "__init__", "constructor", "execute"]) {
        const reply = await worker.execute(action);
        assert.deepEqual(failureOf(reply, "ACTION_UNKNOWN").fields_invalid, ["action"]);
        assert.equal(reply.status, 404);
      }
    },
  },
  {
    title: "refuses arguments that are no object, and a body that is no object",
    run: async (worker) => {
      for (const body of [{ kwargs: [] }, { args: {} }, { kwargs: "text" }, [1], "text"]) {
        const reply = await worker.post("/execute", body);
        assert.ok(
          reply.status >= 400 && reply.status < 500,
          `${JSON.stringify(body)}: ${reply.text}`,
        );
      }
    },
  },
  {
    title: "names every bad input at once",
    fixture: true,
    run: async (worker) => {
      const kwargs = { count: 11.5, ratio: "half", tags: ["a", 1], colour: "red" };
      const reply = await worker.execute("typed", kwargs);
      const { fields_invalid, category } = failureOf(reply, "CAPABILITY_INPUT");
      assert.deepEqual(fields_invalid?.toSorted(), ["colour", "count", "name", "ratio", "tags.1"]);
      assert.equal(category, "user_input");
      assert.equal(reply.status, 400);
    },
  },
  {
    title: "takes an input that may be null, and one that is left out",
    fixture: true,
    run: async (worker) => {
      const reply = await worker.execute("typed", { count: 0, name: "", ratio: null });
      assert.deepEqual(valueOf(reply), { count: 0, name: "", ratio: null, tags: [] });
    },
  },
  {
    title: "refuses its own result when it does not fit the output schema",
    fixture: true,
    run: async (worker) => {
      const error = failureOf(await worker.execute("wrong_output"), "CAPABILITY_OUTPUT");
      assert.equal(error.category, "fatal");
    },
  },
  {
    title: "sees the whole envelope, and no member it does not know",
    fixture: true,
    run: async (worker) => {
      const envelope = {
        job_id: newJob(),
        run_id: "run",
        composition_id: "composition",
        node_id: "node",
        actor: "operator",
        control: { force: true },
        traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        deadline_ms: 600_000,
        capability_instance_id: "instance-1",
      };
      const reply = await worker.execute("envelope", {}, { ...envelope, future: 1 });
      const seen = { ...envelope, output_folder: worker.outputFolder };
      assert.deepEqual(memberOf(reply, "envelope"), seen);
    },
  },
];

const failures: readonly Case[] = [
  ...(
    [
      ["user_input", "CAPABILITY_INPUT", { fields_invalid: ["x"] }],
      ["transient", "CAPABILITY_TRANSIENT", { retry_after_seconds: 1.5, retriable: true }],
      [
        "resource",
        "CAPABILITY_RESOURCE",
        { resource_shortfall: { resource: "gpu_vram_mb", needed: 4096, available: 1024 } },
      ],
      ["fatal", "CAPABILITY_ERROR", { message: "broken", retriable: false }],
    ] as const
  ).map(([category, code, side]): Case => ({
    title: `answers a typed ${category} failure with what it carries`,
    fixture: true,
    run: async (worker) => {
      const error = failureOf(await worker.execute("fail", { category }), code);
      assert.equal(error.category, category);
      for (const [key, value] of Object.entries(side)) {
        assert.deepEqual(Object.entries(error).find(([name]) => name === key)?.[1], value);
      }
    },
  })),
  ...(
    [
      ["a missing file", "missing_file", "user_input", "CAPABILITY_INPUT"],
      ["a timeout", "timeout", "transient", "CAPABILITY_TIMEOUT"],
      ["CUDA out of memory", "cuda_oom", "resource", "CAPABILITY_RESOURCE"],
      ["a bug", "bug", "fatal", "CAPABILITY_ERROR"],
    ] as const
  ).map(([what, kind, category, code]): Case => ({
    title: `takes ${what} for ${category} without the author's help`,
    fixture: true,
    run: async (worker) => {
      const error = failureOf(await worker.execute("fail_bare", { kind }), code);
      assert.equal(error.category, category);
    },
  })),
  {
    title: "says in a failure who failed, when and where",
    fixture: true,
    run: async (worker) => {
      const envelope = { capability_instance_id: "instance-1" };
      const reply = await worker.execute("fail_bare", { kind: "bug" }, envelope);
      const error = failureOf(reply, "CAPABILITY_ERROR");
      assert.equal(error.message, "a bug");
      assert.equal(error.capability_name, "conformance");
      assert.equal(error.capability_instance_id, "instance-1");
      assert.ok(!Number.isNaN(Date.parse(error.occurred_at ?? "")));
      assert.match(error.traceback ?? "", /conformance\.(?:ts|py)/u);
      assert.match(error.original_exc_repr, /^\w*Error\b.*a bug/u);
    },
  },
  {
    title: "goes on after a failure",
    fixture: true,
    run: async (worker) => {
      await worker.execute("fail", { category: "fatal" });
      assert.equal(memberOf(await worker.execute("echo", { value: 1 }), "value"), 1);
    },
  },
];

const files: readonly Case[] = [
  {
    title: "returns a file as its hash, in the folder of the attempt",
    fixture: true,
    run: async (worker) => {
      const output_folder = join(worker.folder, newJob());
      const reply = await worker.execute("write_files", { text: "añb" }, { output_folder });
      const { data } = fileRefSchema.parse(memberOf(reply, "file"));
      const content = readFileSync(data.path);
      assert.equal(content.toString("utf8"), "añb");
      assert.equal(data.size, content.length);
      assert.equal(data.sha256, sha256(content));
      assert.equal(data.media_type, "text/plain");
      assert.ok(!relative(output_folder, data.path).startsWith(".."));
      const folder = dirRefSchema.parse(memberOf(reply, "folder")).data;
      const names = folder.files.map((file) => file.name);
      assert.deepEqual(names, ["a.txt", "b.txt", "deep/c.txt"]);
      for (const file of folder.files) {
        assert.equal(file.sha256, sha256(readFileSync(join(folder.path, file.name))));
      }
      const lines = folder.files.map((file) => `${file.sha256} ${file.size} ${file.name}\n`).sort();
      assert.equal(folder.sha256, sha256(lines.join("")));
    },
  },
  {
    title: "takes a file by reference",
    fixture: true,
    run: async (worker) => {
      const path = join(worker.folder, "input.txt");
      writeFileSync(path, "input");
      const data = { path, size: 5, sha256: sha256("input") };
      const reply = await worker.execute("read_file", { file: { __wire__: "file.ref", data } });
      assert.deepEqual(valueOf(reply), { text: "input", size: 5 });
    },
  },
  {
    title: "refuses a reference that is none",
    fixture: true,
    run: async (worker) => {
      for (const file of ["/etc/passwd", { __wire__: "file.ref", data: { path: "/x" } }]) {
        const reply = await worker.execute("read_file", { file });
        const { fields_invalid } = failureOf(reply, "CAPABILITY_INPUT");
        assert.ok(fields_invalid?.every((field) => field.startsWith("file")));
      }
    },
  },
];

const taskAccount = z.object({
  task: z.string(),
  method: z.string(),
  ok: z.boolean(),
  duration_s: z.number().nonnegative(),
  error_category: z.string().optional(),
});

const tasks: readonly Case[] = [
  {
    title: "runs a method of a task adapter and accounts for it by itself",
    fixture: true,
    run: async (worker) => {
      const job_id = newJob();
      const call = { task: "shout", method: "shout", kwargs: { text: "hey" } };
      const reply = await worker.post("/task", { ...call, envelope: { job_id } });
      assert.equal(valueOf(reply), "HEY");
      const frame = await worker.frame((f) => f.type === "account" && f.job_id === job_id);
      assert.ok(frame.type === "account");
      assert.equal(frame.event_type, "task_account");
      const { duration_s, ...account } = taskAccount.parse(frame.payload);
      assert.deepEqual(account, { task: "shout", method: "shout", ok: true });
      assert.ok(duration_s < 60);
    },
  },
  {
    title: "accounts for a failed task method with its category",
    fixture: true,
    run: async (worker) => {
      const job_id = newJob();
      const call = { task: "shout", method: "fail", kwargs: {}, envelope: { job_id } };
      failureOf(await worker.post("/task", call), "CAPABILITY_TRANSIENT");
      const frame = await worker.frame((f) => f.type === "account" && f.job_id === job_id);
      assert.ok(frame.type === "account");
      const account = taskAccount.parse(frame.payload);
      assert.equal(account.ok, false);
      assert.equal(account.error_category, "transient");
    },
  },
  {
    title: "holds the input of a task method to its schema",
    fixture: true,
    run: async (worker) => {
      const call = { task: "shout", method: "shout", kwargs: { text: 1 } };
      const error = failureOf(await worker.post("/task", call), "CAPABILITY_INPUT");
      assert.deepEqual(error.fields_invalid, ["text"]);
    },
  },
  {
    title: "answers 404 to tasks and methods that are not there or not public",
    run: async (worker) => {
      for (const [task, method] of [
        ["no_such_task", "run"],
        ["shout", "no_such_method"],
        ["shout", "_hidden"],
        ["shout", "__init__"],
        ["shout", "constructor"],
        ["__proto__", "toString"],
      ]) {
        assert.equal((await worker.post("/task", { task, method })).status, 404);
      }
    },
  },
];

export const calling: readonly Case[] = [...results, ...dispatch, ...failures, ...files, ...tasks];
