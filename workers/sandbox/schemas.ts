import { z } from "cjm-substrate/worker";
import { LANGUAGES } from "./languages.ts";
import { STATUSES } from "./status.ts";

const DAY_MS = 86_400_000;

/** What a caller may set; see the README for what each one covers. */
export const limitsSchema = z.strictObject({
  wall_ms: z.int().positive().max(DAY_MS).optional().describe("Wall clock, in milliseconds."),
  cpu_ms: z
    .int()
    .positive()
    .max(DAY_MS)
    .optional()
    .describe("CPU time of all processes together, in milliseconds. Default: wall_ms."),
  memory_mb: z.int().min(8).max(1_048_576).optional().describe("Memory of all processes together."),
  pids: z.int().positive().max(32_768).optional().describe("Processes and threads at one time."),
  output_bytes: z
    .int()
    .positive()
    .max(64 * 1_048_576)
    .optional()
    .describe("Bytes kept of stdout and of stderr, each; the rest is read and thrown away."),
  disk_mb: z
    .int()
    .positive()
    .max(1_048_576)
    .optional()
    .describe("Size of each private file system (/work, /tmp, /var/tmp, /dev/shm)."),
});
export type LimitsInput = z.output<typeof limitsSchema>;

const effectiveLimitsSchema = z.object({
  wall_ms: z.number(),
  cpu_ms: z.number(),
  memory_mb: z.number(),
  pids: z.number(),
  output_bytes: z.number(),
  disk_mb: z.number(),
});

const fileRefSchema = z.object({
  __wire__: z.literal("file.ref"),
  data: z.object({
    path: z.string(),
    size: z.number(),
    sha256: z.string(),
    media_type: z.string().optional(),
  }),
});

const isolationSchema = z.enum(["auto", "nsjail", "bubblewrap", "none"]);
export type IsolationChoice = z.output<typeof isolationSchema>;

const fileContentSchema = z.union([
  z.string().describe("The content as text."),
  fileRefSchema,
  z.strictObject({ path: z.string().describe("A file on this machine.") }),
  z.strictObject({ base64: z.base64().describe("The content as bytes.") }),
]);
export type FileContent = z.output<typeof fileContentSchema>;

/** Where a run happens and within what; shared by every action that starts jails. */
export const placeSchema = z.object({
  language: z
    .enum([...LANGUAGES, "javascript"])
    .default("python")
    .describe("python, node (javascript means the same), bash, or command."),
  files: z
    .record(z.string(), fileContentSchema)
    .default({})
    .describe("Files put into the working folder, by relative name."),
  input_dirs: z
    .record(z.string(), z.string())
    .default({})
    .describe("Folders of this machine, shown read-only as /input/<name>."),
  limits: limitsSchema.default({}),
  isolation: isolationSchema.default("auto").describe("none means no isolation and must be named."),
  env: z.record(z.string(), z.string()).default({}),
});

export const runInputSchema = placeSchema.extend({
  code: z.string().optional().describe("Source of a program in the language."),
  argv: z
    .array(z.string())
    .min(1)
    .optional()
    .describe("With code: its arguments. Without: the command to run."),
  stdin: z.string().optional(),
  input: z
    .json()
    .optional()
    .describe("Any JSON value: input.json in the working folder, and stdin where none is given."),
  collect: z
    .array(z.string())
    .default([])
    .describe("Names of files in the working folder to return by reference."),
  workspace: z
    .string()
    .regex(/^[\w-]{1,64}$/u)
    .optional()
    .describe("Name of a working folder that is kept between runs."),
});
export type RunInput = z.output<typeof runInputSchema>;

const isolationReportSchema = z.object({
  backend: z.enum(["nsjail", "bubblewrap", "none"]),
  version: z.string(),
  memory_enforced_by: z.enum(["cgroup", "sampled"]),
  not_enforced: z.array(z.string()).describe("What this backend leaves open."),
});

const printedTestsSchema = z.object({
  passed: z.number(),
  total: z.number(),
  failed: z.string().describe('The first five lines that name a failure, joined by "; ".'),
});

/** How one jail ended. */
export const runOutputSchema = z.object({
  status: z.enum(STATUSES),
  message: z.string(),
  exit_code: z.number().nullable(),
  signal: z.string().nullable(),
  stdout: z.string(),
  stderr: z.string(),
  stdout_base64: z.string().optional(),
  stderr_base64: z.string().optional(),
  stdout_file: fileRefSchema.optional().describe("All that was kept, where it is long."),
  stderr_file: fileRefSchema.optional(),
  stdout_truncated: z.boolean(),
  stderr_truncated: z.boolean(),
  wall_ms: z.number(),
  cpu_ms: z.number(),
  peak_memory_mb: z.number(),
  limits: effectiveLimitsSchema,
  isolation: isolationReportSchema,
  is_timed_out: z.boolean(),
  printed_tests: printedTestsSchema
    .optional()
    .describe(
      "Read from what a Python program with unittest classes printed. It can print that without a test: no verdict.",
    ),
  files: z.record(z.string(), fileRefSchema),
  files_refused: z.record(z.string(), z.string()),
});
export type RunOutput = z.output<typeof runOutputSchema>;
