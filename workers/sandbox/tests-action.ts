import { randomBytes } from "node:crypto";
import { CjmError, z, type Call } from "cjm-substrate/worker";
import type { StagedFile } from "./guest-files.ts";
import type { LineChannel } from "./line-channel.ts";
import { NODE_HARNESS, NODE_HARNESS_FILE } from "./node-harness.ts";
import { readNodeTestNames, type DeclaredTest } from "./node-test-names.ts";
import {
  PYTHON_HARNESS,
  PYTHON_HARNESS_FILE,
  PYTHON_LISTER,
  PYTHON_LISTER_FILE,
} from "./python-harness.ts";
import { accountFor, contextOf, languageOf } from "./run-action.ts";
import { runProgram } from "./run-program.ts";
import { openSite, type Site } from "./run-site.ts";
import { judgeTests, type TestReport } from "./test-verdict.ts";
import type { TestsInput, TestsOutput } from "./tests-schema.ts";
import type { Workbench } from "./workbench.ts";

const declaredSchema = z.array(z.object({ name: z.string(), many: z.boolean() }));
const reportSchema = z.tuple([z.string(), z.string(), z.string()]);

/**
 * The action `run_tests`: which tests there are is read from their source beforehand, each result
 * comes over a descriptor with a random word, and only a passed one of every declared test counts.
 *
 * The tests share a process with the code they test, so code that attacks the runner's memory can
 * forge this verdict; `check_cases` is the one it cannot forge.
 */
export async function testsAction(
  workbench: Workbench,
  input: TestsInput,
  call: Call,
): Promise<TestsOutput> {
  const suite = suiteOf(input);
  using site = await openSite(workbench, { ...input, language: suite.language }, call.signal);
  const declared = await suite.declared(site, call);
  const seen: TestReport[] = [];
  const nonce = randomBytes(16).toString("hex");
  const program = {
    policy: { ...site.policy, hasChannel: true, argv: [...site.interpreter, ...suite.words] },
    files: suite.files,
    collect: [],
    converse: (channel: LineChannel) => listen(channel, nonce, seen),
  };
  const run = await runProgram(site.engine, program, contextOf(call));
  accountFor(call, run);
  const verdict = judgeTests(declared, seen, run);
  call.account("sandbox_tests", { passed: verdict.passed, total: verdict.total });
  return { trust: "in_process", ...verdict, run };
}

/** Reads reports until the harness says it is done; a line without the nonce is remembered as forged. */
async function listen(channel: LineChannel, nonce: string, seen: TestReport[]): Promise<void> {
  channel.send(nonce);
  for (;;) {
    const line = await channel.receive();
    if (line === undefined) return;
    const report = line.startsWith(`${nonce} `)
      ? parseReport(line.slice(nonce.length + 1))
      : FORGED;
    seen.push(report);
    if (report.outcome === "done") return;
  }
}

const FORGED: TestReport = { name: "", outcome: "forged", message: "" };

function parseReport(text: string): TestReport {
  try {
    const [name, outcome, message] = reportSchema.parse(JSON.parse(text));
    return { name, outcome, message };
  } catch {
    return FORGED;
  }
}

interface Suite {
  readonly language: "python" | "node";
  readonly words: readonly string[];
  readonly files: readonly StagedFile[];
  declared(site: Site, call: Call): Promise<readonly DeclaredTest[]>;
}

function suiteOf(input: TestsInput): Suite {
  const language = languageOf(input);
  const framework = input.framework ?? (language === "node" ? "node" : "unittest");
  if (language !== (framework === "node" ? "node" : "python")) {
    const message = `framework "${framework}" does not test "${input.language}"`;
    throw new CjmError("CAPABILITY_INPUT", message, { fieldsInvalid: ["framework", "language"] });
  }
  return framework === "node" ? nodeSuite(input) : pythonSuite(input, framework);
}

function nodeSuite(input: TestsInput): Suite {
  return {
    language: "node",
    words: [NODE_HARNESS_FILE, "main.test.js"],
    files: [
      ...extraFiles(input),
      { name: "main.js", content: input.code },
      { name: "main.test.js", content: input.tests },
      { name: NODE_HARNESS_FILE, content: NODE_HARNESS },
    ],
    declared: () => Promise.resolve(readNodeTestNames(input.tests)),
  };
}

function pythonSuite(input: TestsInput, framework: "unittest" | "pytest"): Suite {
  return {
    language: "python",
    words: ["-B", PYTHON_HARNESS_FILE, framework, "test_main"],
    files: [
      ...extraFiles(input),
      { name: "main.py", content: input.code },
      { name: "test_main.py", content: input.tests },
      { name: PYTHON_HARNESS_FILE, content: PYTHON_HARNESS },
    ],
    declared: (site, call) => listPythonTests(site, call, { tests: input.tests, framework }),
  };
}

/** Python reads Python: its own parser, in a jail of its own, with none of the guest's code in it. */
async function listPythonTests(
  site: Site,
  call: Call,
  { tests, framework }: { tests: string; framework: string },
): Promise<DeclaredTest[]> {
  const words = ["-I", "-S", "-B", PYTHON_LISTER_FILE, "test_main.py", framework];
  const run = await runProgram(
    site.engine,
    {
      policy: { ...site.policy, argv: [...site.interpreter, ...words] },
      files: [
        { name: "test_main.py", content: tests },
        { name: PYTHON_LISTER_FILE, content: PYTHON_LISTER },
      ],
      collect: [],
    },
    { signal: call.signal, outputFolder: () => call.outputFolder },
  );
  if (run.status === "ok") return declaredSchema.parse(JSON.parse(run.stdout));
  const message = `The tests cannot be read: ${run.message}: ${run.stderr.slice(-1_000)}`;
  throw new CjmError("CAPABILITY_INPUT", message, { fieldsInvalid: ["tests"] });
}

function extraFiles({ files }: TestsInput): StagedFile[] {
  return Object.entries(files).map(([name, content]) => ({ name, content }));
}
