import type { LoadCall, ReleaseEvidence } from "../../engine.ts";
import type { ModelCard } from "../../task/schemas.ts";
import type { z } from "cjm-substrate/worker";
import { failure, quote, reasonOf } from "../failure.ts";
import { malformed, type LineStream } from "../http/client.ts";
import { parseJson, readRefusal, refusalError } from "../http/refusal.ts";
import { until } from "../or-abort.ts";
import { ask } from "./ask.ts";
import type { Link } from "./dialect.ts";
import { errorSchema, psSchema, pullSchema, showSchema, versionSchema } from "./ollama-wire.ts";

const MEGABYTE = 1024 * 1024;
const STEP_MS = 100;

type Running = NonNullable<z.output<typeof psSchema>["models"]>[number];

/** Ollama's models: there or pulled, loaded or not, by its own list and never by a status code. */
export class OllamaModels {
  readonly #link: Link;
  readonly #hashes = new Map<string, string | null>();

  constructor(link: Link) {
    this.#link = link;
  }

  async version(signal: AbortSignal): Promise<string> {
    this.#hashes.clear();
    return (await ask(this.#link, "GET", "/api/version", { signal, schema: versionSchema }))
      .version;
  }

  /** Loads the model, pulling it first where that is allowed. */
  async load(model: string, { signal, progress }: LoadCall): Promise<void> {
    try {
      await this.#show(model, signal);
    } catch (error) {
      if (reasonOf(error) !== "model_missing" || !this.#link.config.pull) throw error;
      await this.#pull(model, { signal, progress });
    }
    progress(-1, `Ollama loads ${model}`);
    const { keep_alive: keepAlive, context_length: context } = this.#link.config;
    const options = context === null ? {} : { num_ctx: context };
    const body = { model, stream: false, keep_alive: keepAlive, options };
    await this.#post("/api/generate", body, signal);
    const running = await this.#running(model, signal);
    if (running === undefined) {
      throw failure("server_lied", `Ollama answered 200 to loading ${model} and does not run it`);
    }
    this.#reportPlacement(running);
    progress(1, `Ollama runs ${model}`);
  }

  /** Unloads the model; gone is what the list of running models says. */
  async unload(model: string, signal: AbortSignal): Promise<ReleaseEvidence> {
    const { measureVramMb } = this.#link;
    const before = await measureVramMb();
    await this.#post("/api/generate", { model, stream: false, keep_alive: 0 }, signal);
    let running: Running | undefined;
    const isGone = async (): Promise<boolean> => {
      running = await this.#running(model, signal);
      return running === undefined;
    };
    const ms = this.#link.config.settle_seconds * 1000;
    if (!(await until(isGone, { ms, stepMs: STEP_MS, signal }))) {
      signal.throwIfAborted();
      const held = Math.round((running?.size_vram ?? 0) / MEGABYTE);
      const message = `Ollama answered 200 to unloading ${model} and still runs it with ${held} MB`;
      throw failure("server_lied", message, { details: { held_mb: held } });
    }
    const after = await measureVramMb();
    if (before === undefined || after === undefined) return { held: "" };
    return { held: "", freedMb: Math.max(0, before - after) };
  }

  async card(model: string, signal: AbortSignal): Promise<Partial<ModelCard>> {
    const shown = await this.#show(model, signal);
    const info = shown.model_info ?? {};
    const architecture = shown.details?.family ?? null;
    const number = (name: string): number | null => {
      const value = info[name];
      return typeof value === "number" ? value : null;
    };
    return {
      id: model,
      architecture,
      quantization: shown.details?.quantization_level ?? null,
      parameters: number("general.parameter_count"),
      context_length: number(`${String(info["general.architecture"])}.context_length`),
      chat_template: (shown.template ?? "") !== "",
      sha256: hashIn(shown.modelfile),
    };
  }

  /** Content of the model's weights, from its Modelfile; asked once per connection. */
  async sha256(model: string, signal: AbortSignal): Promise<string | null> {
    const known = this.#hashes.get(model);
    if (known !== undefined) return known;
    const hash = hashIn((await this.#show(model, signal)).modelfile);
    this.#hashes.set(model, hash);
    return hash;
  }

  async #pull(model: string, { signal, progress }: LoadCall): Promise<void> {
    this.#hashes.delete(model);
    const layers = new Map<string, { total: number; completed: number }>();
    const url = `${this.#link.address.root}/api/pull`;
    const what = "/api/pull";
    const spec = { method: "POST", url, body: { model, stream: true }, signal, what } as const;
    let status = "";
    for await (const line of this.#link.http.lines(spec, readPull)) {
      status = line.status;
      const { digest, total, completed } = line;
      if (typeof digest === "string" && typeof total === "number") {
        layers.set(digest, { total, completed: completed ?? 0 });
      }
      progress(shareOf([...layers.values()]), `Ollama pulls ${model}: ${quote(status, 80)}`);
    }
    if (status === "success") return;
    throw failure("server_error", `Ollama's pull of ${model} ended at "${quote(status, 80)}"`);
  }

  /** A model of which a part lies in RAM answers slowly, which nobody would be told otherwise. */
  #reportPlacement({ name, size, size_vram: vram }: Running): void {
    if (vram === 0 || vram >= size) return;
    const share = Math.round((100 * vram) / size);
    this.#link.log(`Ollama has ${share} % of ${name} in VRAM and the rest in RAM`);
  }

  async #running(model: string, signal: AbortSignal): Promise<Running | undefined> {
    const { models } = await ask(this.#link, "GET", "/api/ps", { signal, schema: psSchema });
    const wanted = fullName(model);
    return models?.find(({ name, model: other }) => name === wanted || other === wanted);
  }

  async #show(model: string, signal: AbortSignal): Promise<z.output<typeof showSchema>> {
    return ask(this.#link, "POST", "/api/show", { signal, body: { model }, schema: showSchema });
  }

  async #post(path: string, body: unknown, signal: AbortSignal): Promise<void> {
    const url = `${this.#link.address.root}${path}`;
    await this.#link.http.text({ method: "POST", url, body, signal, what: path });
  }
}

async function* readPull({
  lines,
  alive,
}: LineStream): AsyncGenerator<z.output<typeof pullSchema>, void, void> {
  for await (const line of lines) {
    if (line.trim() === "") continue;
    alive();
    const value = parseJson(line);
    // The status line had already said 200.
    if (errorSchema.safeParse(value).success) throw pullError(line);
    const parsed = pullSchema.safeParse(value);
    if (!parsed.success) throw malformed("/api/pull", quote(line));
    yield parsed.data;
  }
}

function pullError(line: string): Error {
  const refusal = readRefusal(500, line);
  if (/no such host|dial tcp|connection refused|timeout|network/iu.test(refusal.message)) {
    return failure("server_down", `Ollama reaches no registry: ${refusal.message}`);
  }
  if (/not found|does not exist|manifest/iu.test(refusal.message)) {
    return failure("model_missing", `Ollama's registry: ${refusal.message}`, { fields: ["model"] });
  }
  return refusalError(refusal, "/api/pull");
}

function shareOf(layers: readonly { total: number; completed: number }[]): number {
  const total = layers.reduce((sum, layer) => sum + layer.total, 0);
  if (total === 0) return -1;
  return Math.min(1, layers.reduce((sum, layer) => sum + layer.completed, 0) / total);
}

/** A model's name with its tag. */
function fullName(model: string): string {
  return model.slice(model.lastIndexOf("/") + 1).includes(":") ? model : `${model}:latest`;
}

/** `FROM …/blobs/sha256-<hex>` */
function hashIn(modelfile: string): string | null {
  const hex = /^FROM .*sha256-([0-9a-f]{64})\s*$/mu.exec(modelfile)?.[1];
  return hex === undefined ? null : `sha256:${hex}`;
}
