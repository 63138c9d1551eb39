import { fileURLToPath } from "node:url";
import { z } from "zod";
import { CjmError } from "../../../src/errors/index.ts";
import type { WorkerConnection } from "../../../src/process/index.ts";
import { healthSchema } from "../../../src/protocol/index.ts";
import { call, type Workbench } from "../../integration/process/support.ts";
import { WorkerConnection as Connection } from "../../../src/process/index.ts";

const SCRIPT = fileURLToPath(new URL("hostile-worker.ts", import.meta.url));

/** A hostile worker that has come up. */
export async function startHostile(bench: Workbench): Promise<WorkerConnection> {
  const command = [process.execPath, "-C", "@cjm/source", SCRIPT];
  return await Connection.start(bench.spec("hostile", command, { cage: "group" }), bench.recorder);
}

/** The code of the error a call ends with, or "value". @throws what is not a typed error. */
export async function outcome(
  connection: WorkerConnection,
  kwargs: Readonly<Record<string, unknown>>,
  signal?: AbortSignal,
): Promise<string> {
  try {
    await connection.post("/execute", call("any", kwargs), z.unknown(), { signal });
    return "value";
  } catch (error) {
    if (!(error instanceof CjmError)) throw error;
    return error.code;
  }
}

/** The same, of a call that streams. */
export async function streamOutcome(
  connection: WorkerConnection,
  kwargs: Readonly<Record<string, unknown>>,
): Promise<string> {
  try {
    let chunks = 0;
    for await (const _ of connection.stream("/execute_stream", call("any", kwargs))) chunks += 1;
    return chunks === 0 ? "nothing" : "value";
  } catch (error) {
    if (!(error instanceof CjmError)) throw error;
    return error.code;
  }
}

/** The worker is reached as before: no answer has confused the connections that are kept. */
export async function stillAnswers(connection: WorkerConnection): Promise<boolean> {
  const { value } = await connection.get("/health", healthSchema);
  return value.name === "hostile";
}
