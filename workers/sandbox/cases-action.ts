import { randomBytes } from "node:crypto";
import { CjmError, type Call } from "cjm-substrate/worker";
import type { Case, CaseResult, CasesInput, CasesOutput } from "./cases-schema.ts";
import { sameText, sameValue, type Comparison } from "./compare.ts";
import { DRIVERS, DRIVER_FILES } from "./drivers.ts";
import type { StagedFile } from "./guest-files.ts";
import { PROGRAMS } from "./languages.ts";
import type { LineChannel } from "./line-channel.ts";
import { accountFor, contextOf, languageOf } from "./run-action.ts";
import { runProgram, type Program } from "./run-program.ts";
import { openSite, type Site } from "./run-site.ts";
import type { RunOutput } from "./schemas.ts";
import type { Workbench } from "./workbench.ts";

/**
 * The action `check_cases`: the guest computes, this process compares and counts.
 *
 * Expected values never enter the jail and inputs go in one at a time, so nothing that the guest
 * prints, returns or exits with passes a case except the right answer.
 */
export async function casesAction(
  workbench: Workbench,
  input: CasesInput,
  call: Call,
): Promise<CasesOutput> {
  const language = languageOf(input);
  using site = await openSite(workbench, { ...input, language }, call.signal);
  const checker = { site, input, call, results: new Array<CaseResult>() };
  const run = await (input.function === undefined
    ? checkPrograms(checker)
    : checkCalls(checker, input.function));
  for (let index = checker.results.length; index < input.cases.length; index += 1) {
    checker.results.push({ name: nameOf(input, index), outcome: "not_run" });
  }
  const passed = checker.results.filter(({ outcome }) => outcome === "passed").length;
  const total = input.cases.length;
  call.account("sandbox_cases", { passed, total });
  return {
    trust: "isolated",
    passed,
    total,
    all_passed: passed === total,
    cases: checker.results,
    run,
  };
}

interface Checker {
  readonly site: Site;
  readonly input: CasesInput;
  readonly call: Call;
  /** One per case, in their order; grows as cases are decided. */
  readonly results: CaseResult[];
}

/** One jail per case: stdin in, stdout compared. */
async function checkPrograms(checker: Checker): Promise<RunOutput> {
  const { site, input, call, results } = checker;
  const language = programLanguage(input);
  let last: RunOutput | undefined;
  for (const [index, { stdin, args, expected }] of input.cases.entries()) {
    const words = [...PROGRAMS[language].args, ...args.map(String)];
    const program = {
      policy: { ...site.policy, argv: [...site.interpreter, ...words] },
      files: [...stagedFiles(input), { name: PROGRAMS[language].file, content: input.code }],
      stdin: stdin ?? "",
      collect: [],
    };
    last = await runProgram(site.engine, program, contextOf(call));
    accountFor(call, last);
    results.push(judgeProgram(nameOf(input, index), last, { expected, input }));
    call.progress((index + 1) / input.cases.length, `${index + 1} of ${input.cases.length} cases`);
  }
  if (last === undefined) throw new TypeError("The schema asks for at least one case");
  return last;
}

function judgeProgram(
  name: string,
  run: RunOutput,
  { expected, input }: { expected: Case["expected"]; input: CasesInput },
): CaseResult {
  if (run.is_timed_out) return { name, outcome: "timeout", message: run.message };
  if (run.status !== "ok") {
    return { name, outcome: "ended", message: `${run.message}: ${run.stderr.slice(-500)}` };
  }
  const wanted = typeof expected === "string" ? expected : JSON.stringify(expected);
  const isSame = !run.stdout_truncated && sameText(run.stdout, wanted, comparisonOf(input));
  return { name, outcome: isSame ? "passed" : "wrong", got: run.stdout.slice(0, MAX_GOT) };
}

const MAX_GOT = 10_000;

/** A program that ends every jail is not asked for ever. */
const MAX_FRUITLESS_JAILS = 3;

/** One jail answers calls until a case ends it; the next case gets a new one. */
async function checkCalls(checker: Checker, functionName: string): Promise<RunOutput> {
  const { site, input, call, results } = checker;
  const program = driverProgram(site, input, functionName);
  let fruitless = 0;
  for (;;) {
    const before = results.length;
    const run = await runProgram(
      site.engine,
      { ...program, converse: (channel) => askCases(checker, channel) },
      contextOf(call),
    );
    accountFor(call, run);
    if (results.length === before) results.push({ name: nameOf(input, before), outcome: "ended" });
    nameTheEnd(results.at(-1), run);
    fruitless = results.length === before + 1 ? fruitless + 1 : 0;
    if (results.length >= input.cases.length || fruitless === MAX_FRUITLESS_JAILS) return run;
  }
}

/** A case that got no answer is told by how the jail ended. */
function nameTheEnd(result: CaseResult | undefined, run: RunOutput): void {
  if (result?.outcome !== "ended" || result.message !== undefined) return;
  if (run.is_timed_out) result.outcome = "timeout";
  result.message = run.message;
}

/** Asks until a case gets no answer. */
async function askCases(checker: Checker, channel: LineChannel): Promise<void> {
  const { input, results, call } = checker;
  while (results.length < input.cases.length) {
    const index = results.length;
    const testCase = input.cases[index];
    if (testCase === undefined) return;
    const reply = await ask(channel, testCase);
    const name = nameOf(input, index);
    results.push(judgeReply(name, reply, { expected: testCase.expected, input }));
    call.progress(results.length / input.cases.length, `${results.length} cases`);
    if (reply === undefined) return;
  }
}

interface Reply {
  readonly value?: unknown;
  readonly error?: unknown;
}

/** An answer counts only with the random name of its question, so none can be sent ahead. */
async function ask(
  channel: LineChannel,
  { args, kwargs }: Pick<Case, "args" | "kwargs">,
): Promise<Reply | undefined> {
  const id = randomBytes(12).toString("hex");
  channel.send(JSON.stringify({ id, args, kwargs }));
  for (;;) {
    const line = await channel.receive();
    if (line === undefined) return undefined;
    const reply = parseReply(line);
    if (reply?.["id"] === id) return reply;
  }
}

function parseReply(line: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(line);
    const isObject = typeof value === "object" && value !== null;
    return isObject ? Object.fromEntries(Object.entries(value)) : undefined;
  } catch {
    return undefined;
  }
}

function judgeReply(
  name: string,
  reply: Reply | undefined,
  { expected, input }: { expected: unknown; input: CasesInput },
): CaseResult {
  if (reply === undefined) return { name, outcome: "ended" };
  if (reply.error !== undefined) {
    return { name, outcome: "error", message: JSON.stringify(reply.error).slice(0, MAX_GOT) };
  }
  const isSame = "value" in reply && sameValue(reply.value, expected, comparisonOf(input));
  const text = JSON.stringify(reply.value ?? null);
  const got = text.length > MAX_GOT ? text.slice(0, MAX_GOT) : jsonValue(text);
  return { name, outcome: isSame ? "passed" : "wrong", got };
}

function jsonValue(text: string): Case["expected"] {
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- JSON.parse gives a JSON value
  return JSON.parse(text) as Case["expected"];
}

function driverProgram(site: Site, input: CasesInput, functionName: string): Program {
  const language = programLanguage(input);
  if (language === "bash") throw unsupported("bash has no functions to call");
  if (language === "node" && input.cases.some(({ kwargs }) => Object.keys(kwargs).length > 0)) {
    throw unsupported("kwargs are for Python");
  }
  const driver = DRIVER_FILES[language];
  const words = language === "python" ? ["-B", driver] : [driver];
  return {
    policy: {
      ...site.policy,
      hasChannel: true,
      argv: [...site.interpreter, ...words, functionName],
    },
    files: [
      ...stagedFiles(input),
      { name: PROGRAMS[language].file, content: input.code },
      { name: driver, content: DRIVERS[language] },
    ],
    collect: [],
  };
}

function programLanguage(input: CasesInput): "python" | "node" | "bash" {
  const language = languageOf(input);
  if (language === "command") throw unsupported('"command" has no code to check');
  return language;
}

function unsupported(message: string): CjmError {
  return new CjmError("CAPABILITY_INPUT", message, { fieldsInvalid: ["language"] });
}

function stagedFiles({ files }: CasesInput): StagedFile[] {
  return Object.entries(files).map(([name, content]) => ({ name, content }));
}

function comparisonOf({ compare_text: text, tolerance }: CasesInput): Comparison {
  return { text, tolerance };
}

function nameOf({ cases }: CasesInput, index: number): string {
  return cases[index]?.name ?? `case ${index + 1}`;
}
