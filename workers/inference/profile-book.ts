import { mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { cpus } from "node:os";
import { dirname, join } from "node:path";
import { z, type WorkerLogger } from "cjm-substrate/worker";

const ENTRIES_MAX = 500;

/** One measured load of a model with a set of adapters. */
export const profileSchema = z.object({
  model_sha256: z.string(),
  quantization: z.string(),
  context_size: z.int(),
  slots: z.int(),
  adapters: z.string().describe("`<sha256>@<scale>`, comma between; empty for the bare model."),
  threads: z.int(),
  load_ms: z.number().describe("Time to make the context, weights not counted."),
  rss_mb: z
    .number()
    .describe("Growth of this process's resident memory by it, weights not counted."),
  total_rss_mb: z.number().describe("Resident memory of this process afterwards."),
});
export type Profile = z.output<typeof profileSchema>;

const fileSchema = z.object({
  machine: z.string(),
  threads: z.record(z.string(), z.int()),
  profiles: z.record(z.string(), profileSchema),
});
type Book = z.output<typeof fileSchema>;

/** What was measured on this machine, kept between runs; measurements of another machine are dropped. */
export class ProfileBook {
  readonly #file: string;
  readonly #log: WorkerLogger;
  readonly #book: Book;

  constructor(dataFolder: string, log: WorkerLogger) {
    this.#file = join(dataFolder, "profiles.json");
    this.#log = log;
    this.#book = read(this.#file);
  }

  all(): readonly Profile[] {
    return Object.values(this.#book.profiles);
  }

  async threads(modelSha256: string, measure: () => Promise<number>): Promise<number> {
    const known = this.#book.threads[modelSha256];
    if (known !== undefined) return known;
    const measured = await measure();
    this.#book.threads[modelSha256] = measured;
    this.#write();
    return measured;
  }

  record(profile: Profile): void {
    const { model_sha256: model, context_size: context, slots, adapters } = profile;
    const key = [model, context, slots, adapters].join(" ");
    // An entry measured again becomes the newest.
    delete this.#book.profiles[key];
    this.#book.profiles[key] = profile;
    const [oldest] = Object.keys(this.#book.profiles);
    if (Object.keys(this.#book.profiles).length > ENTRIES_MAX && oldest !== undefined) {
      delete this.#book.profiles[oldest];
    }
    this.#write();
  }

  #write(): void {
    try {
      mkdirSync(dirname(this.#file), { recursive: true });
      const partial = `${this.#file}.${process.pid}`;
      writeFileSync(partial, JSON.stringify(this.#book, null, 1));
      renameSync(partial, this.#file);
    } catch (error) {
      // A measurement that is not kept is made again.
      this.#log.warning("the profiles could not be kept", error);
    }
  }
}

function read(file: string): Book {
  const machine = `${cpus()[0]?.model ?? "unknown"} x${cpus().length}`;
  try {
    const book = fileSchema.parse(JSON.parse(readFileSync(file, "utf8")));
    if (book.machine === machine) return book;
  } catch {
    // Not there yet, or not readable: measured again.
  }
  return { machine, threads: {}, profiles: {} };
}
