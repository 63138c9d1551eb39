import { Duplex } from "node:stream";
import { ActiveCalls } from "../../../src/capability/active-calls.ts";
import { redactRecord } from "../../../src/capability/redaction.ts";
import { CjmError, toJobError } from "../../../src/errors/index.ts";
import { ControlStream } from "../../../src/process/control-stream.ts";
import { failureOf, refusalOf } from "../../../src/process/failures.ts";
import { OutputPump } from "../../../src/process/output-pump.ts";
import { outputTexts } from "../../../src/util/lines.ts";
import { readJson, readJsonLines } from "../../../src/process/response-reader.ts";
import {
  BODY_LIMITS,
  healthSchema,
  jobErrorBodySchema,
  readLogFrames,
  statsSchema,
  statusReplySchema,
  structuralSurfaceSchema,
  type WorkerFrame,
} from "../../../src/protocol/index.ts";
import { boundedAccounts } from "../../../src/queue/worker-accounts.ts";
import { below, pick, randomFrom } from "../support/random.ts";
import { GOLDEN, GOLDEN_FRAMES, HOSTILE, HOSTILE_FRAMES } from "./corpus.ts";
import { mutate, pieces } from "./mutate.ts";

export interface Tally {
  values: number;
  errors: Record<string, number>;
  frames: number;
  notes: number;
  lines: number;
  /** What must not happen, with the input that made it happen. */
  readonly faults: string[];
}

export function newTally(): Tally {
  return { values: 0, errors: {}, frames: 0, notes: 0, lines: 0, faults: [] };
}

const EXPECTED: ReadonlySet<string> = new Set(["RESPONSE_INVALID", "RESPONSE_TOO_LARGE"]);
const ORIGINALS = [...GOLDEN.map((text) => Buffer.from(text)), ...HOSTILE.filter(isSmall)];
const FRAMES = [...GOLDEN_FRAMES, ...HOSTILE_FRAMES].map((text) => Buffer.from(text));

function isSmall(bytes: Buffer): boolean {
  return bytes.length < 4_096;
}

/** Gives each recorded body to the reader, whole. */
export async function recordedBodies(tally: Tally): Promise<void> {
  for (const bytes of [...HOSTILE, ...GOLDEN.map((text) => Buffer.from(text))]) {
    await oneBody(tally, randomFrom(1), bytes);
  }
}

/** Gives `count` mutated bodies to the reader and what it accepts to everything that reads it next. */
export async function mutatedBodies(tally: Tally, seed: number, count: number): Promise<void> {
  const random = randomFrom(seed);
  for (let index = 0; index < count; index += 1) {
    await oneBody(tally, random, mutate(random, pick(random, ORIGINALS)));
  }
  if (Object.keys(Object.prototype).length > 0 || "polluted" in {}) {
    tally.faults.push("Object.prototype was changed");
  }
}

async function oneBody(tally: Tally, random: () => number, bytes: Buffer): Promise<void> {
  const parts = pieces(random, bytes);
  try {
    if (random() < 0.2) {
      for await (const line of readJsonLines(fed(parts))) interpret(tally, line);
    } else {
      interpret(tally, await readJson(fed(parts)));
    }
  } catch (error) {
    count(tally, error, bytes);
  }
}

async function* fed(parts: readonly Buffer[]): AsyncGenerator<Uint8Array> {
  yield* parts;
}

/** What the host does with a value of a worker, whatever it is. */
function interpret(tally: Tally, value: unknown): void {
  tally.values += 1;
  for (const schema of [healthSchema, statsSchema, statusReplySchema, structuralSurfaceSchema]) {
    schema.safeParse(value);
  }
  const failure = jobErrorBodySchema.safeParse(value);
  if (failure.success) throw failureOf(failure.data._job_error);
  const refusal = refusalOf(500, value, "A worker answered");
  if (!toJobError(refusal).code) tally.faults.push("a refusal without a code");
}

function count(tally: Tally, error: unknown, bytes: Buffer): void {
  if (!(error instanceof CjmError)) {
    tally.faults.push(`${String(error)} for ${bytes.toString("latin1", 0, 300)}`);
    return;
  }
  // A typed failure of the worker's own keeps its category: its code is only listed.
  const code = EXPECTED.has(error.code) ? error.code : "reported by the worker";
  tally.errors[code] = (tally.errors[code] ?? 0) + 1;
}

/** A body that never ends is left as soon as it is over the limit; answers how much was read. */
export async function endlessBody(part: Buffer): Promise<{ code: string; bytes: number }> {
  let bytes = 0;
  async function* endless(): AsyncGenerator<Uint8Array> {
    for (;;) {
      bytes += part.length;
      yield part;
    }
  }
  const error: unknown = await readJson(endless()).catch((thrown: unknown) => thrown);
  return { code: error instanceof CjmError ? error.code : String(error), bytes };
}

/** Writes `count` mutated control frames to a host's end and follows each to where it would go. */
export function mutatedFrames(tally: Tally, seed: number, count: number): void {
  const random = randomFrom(seed);
  const each = 10_000;
  for (let done = 0; done < count; done += each) {
    const { send, close, calls } = frameReader(tally);
    for (let index = Math.min(each, count - done); index > 0; index -= 1) {
      const original = pick(random, FRAMES);
      const bytes = random() < 0.3 ? original : mutate(random, original);
      const line = Buffer.concat([bytes, Buffer.from("\n")]);
      const cut = below(random, line.length);
      send(line.subarray(0, cut));
      send(line.subarray(cut));
    }
    const units = Object.keys(calls.usage).length;
    if (units > 100) tally.faults.push(`a call has ${units} units`);
    close();
  }
}

function frameReader(tally: Tally): {
  readonly send: (bytes: Buffer) => void;
  readonly close: () => void;
  readonly calls: { readonly usage: Readonly<Record<string, number>> };
} {
  const socket = new Duplex({
    read: () => undefined,
    write: (_chunk, _encoding, done) => {
      done();
    },
  });
  const account = boundedAccounts((eventType, payload) => {
    JSON.stringify(redactRecord(payload, (text) => text));
    if (eventType === "state_transition") tally.faults.push("a worker wrote state_transition");
  });
  const calls = new ActiveCalls();
  const active = calls.begin("j", {
    sent: () => undefined,
    progress: () => undefined,
    account,
    chunk: () => Promise.resolve(),
    measured: () => undefined,
  });
  const frame = (frame: WorkerFrame): void => {
    tally.frames += 1;
    try {
      calls.route(frame);
    } catch (error) {
      tally.faults.push(`${String(error)} for ${JSON.stringify(frame).slice(0, 300)}`);
    }
  };
  const note = (): void => {
    tally.notes += 1;
  };
  const stream = new ControlStream(socket, "0".repeat(64), {
    frame,
    logs: ({ bytes, count }) => {
      for (const log of readLogFrames(bytes, count)) {
        if (typeof log === "string") note();
        else tally.frames += 1;
      }
    },
    note,
    ended: () => undefined,
  });
  return {
    send: (bytes) => socket.emit("data", bytes),
    close: () => {
      stream.close();
    },
    calls: active,
  };
}

/** Random bytes as a worker's output: every line ends as text, and nothing is lost of valid UTF-8. */
export async function randomOutput(tally: Tally, seed: number, bytes: number): Promise<void> {
  const random = randomFrom(seed);
  const stream = new Duplex({ read: () => undefined, write: () => undefined });
  const pump = new OutputPump(stream, ({ bytes }) => {
    for (const line of outputTexts(bytes)) {
      tally.lines += 1;
      // Four characters stand for a byte that is no text.
      if (line.length > 4 * 64 * 1024 + 64)
        tally.faults.push(`a line of ${line.length} characters`);
    }
  });
  for (let left = bytes; left > 0; left -= 65_536) {
    const chunk = Buffer.alloc(Math.min(left, 65_536));
    const highest = pick(random, [128, 256]);
    for (let at = 0; at < chunk.length; at += 1) chunk[at] = below(random, highest);
    stream.push(chunk);
  }
  stream.push(null);
  await pump.drain();
}

/** The reader may take this much before it must have refused. */
export const READ_AT_MOST = BODY_LIMITS.bytes + 65_536;
