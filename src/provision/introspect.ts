import { join } from "node:path";
import type { z } from "zod";
import { hostPackage, problemsError, problemsOf } from "../config/index.ts";
import { CjmError } from "../errors/index.ts";
import { buildWorkerEnvironment } from "../process/environment.ts";
import {
  adapterManifestSchema,
  codeSectionSchema,
  type AdapterManifest,
} from "../protocol/index.ts";
import { compact } from "../util/compact.ts";
import { isRecord } from "../util/record.ts";
import type { BuildContext, EnvironmentSpec, WorkerStart } from "./kind.ts";
import { runCommand } from "./run-command.ts";

const TIMEOUT_MS = 120_000;
const MAX_ANSWER_BYTES = 8 * 1024 * 1024;

export type CodeSection = z.output<typeof codeSectionSchema>;

/**
 * Starts the installed worker once and asks it what it is.
 *
 * @throws {CjmError} `INSTALL_FAILED` when it fails, takes over two minutes, answers something else,
 * or is another capability than the one asked for.
 */
export async function introspect(
  spec: Pick<EnvironmentSpec, "name" | "isOriginal">,
  start: WorkerStart,
  context: BuildContext,
): Promise<CodeSection> {
  context.step("asking the worker what it is");
  const answer = await ask(spec.name, start, context);
  const code = check(codeSectionSchema, answer, start.introspect);
  if (spec.isOriginal) return { ...code, name: spec.name };
  if (code.name === spec.name) return code;
  throw new CjmError(
    "INSTALL_FAILED",
    `The worker calls itself "${code.name}"; capabilities.yaml calls it "${spec.name}"`,
    { category: "user_input" },
  );
}

/** Asks an installed task adapter for its manifest. */
export async function introspectAdapter(
  name: string,
  start: WorkerStart,
  context: BuildContext,
): Promise<AdapterManifest> {
  const answer = await ask(name, start, context);
  return check(adapterManifestSchema, answer, start.introspect);
}

async function ask(name: string, start: WorkerStart, context: BuildContext): Promise<unknown> {
  const command = start.introspect;
  const { config, log, signal } = context;
  const timeout = AbortSignal.timeout(TIMEOUT_MS);
  try {
    const output = await runCommand(command, {
      cwd: config.projectDir,
      env: introspectionEnvironment(name, start, context),
      signal: AbortSignal.any([signal, timeout]),
      log,
      captureBytes: MAX_ANSWER_BYTES,
    });
    return lastObject(output, command);
  } catch (error) {
    if (!timeout.aborted || signal.aborted) throw error;
    throw new CjmError(
      "INSTALL_FAILED",
      `Worker "${name}" did not say what it is within ${TIMEOUT_MS / 1000} s`,
      { cause: error },
    );
  }
}

function introspectionEnvironment(
  name: string,
  start: WorkerStart,
  { config, env }: BuildContext,
): Record<string, string> {
  const shared = join(config.dataDir, "data");
  return buildWorkerEnvironment({
    host: env,
    pass: config.substrate.passEnv,
    install: start.env ?? {},
    declared: {},
    protocol: compact({
      CJM_INTROSPECT: "1",
      CJM_CAPABILITY_DATA_DIR: shared,
      CAPABILITY_DATA_DIR: join(shared, name),
      CAPABILITY_NAME: name,
      CJM_MODELS_DIR: config.modelsDir,
    }),
  });
}

/** The command that describes a task adapter in its environment. */
export function adapterCommand(
  python: string,
  target: string,
  isOriginal: boolean,
): readonly string[] {
  if (!isOriginal) return [python, "-m", "cjm_worker.introspect", "--adapter", target];
  return [python, join(hostPackage().root, "python", "introspect", "adapter.py"), target];
}

/** The last line that is a JSON object: libraries print when they are imported. */
function lastObject(output: string, command: readonly string[]): unknown {
  for (const line of output.trimEnd().split("\n").toReversed()) {
    if (!line.startsWith("{")) continue;
    try {
      const value: unknown = JSON.parse(line);
      if (isRecord(value)) return value;
    } catch {
      continue;
    }
  }
  const shown = output.length > 500 ? `...${output.slice(-500)}` : output;
  throw new CjmError(
    "INSTALL_FAILED",
    `\`${command.join(" ")}\` did not describe a capability; it printed: ${JSON.stringify(shown)}`,
  );
}

function check<Schema extends z.ZodType>(
  schema: Schema,
  answer: unknown,
  command: readonly string[],
): z.output<Schema> {
  const parsed = schema.safeParse(answer);
  if (parsed.success) return parsed.data;
  throw problemsError(
    "INSTALL_FAILED",
    problemsOf(parsed.error, { source: `the answer of \`${command.join(" ")}\`` }),
  );
}
