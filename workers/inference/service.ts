import { stat, readdir } from "node:fs/promises";
import { basename, join, resolve } from "node:path";
import { CjmError, type Call, type WorkerContext } from "cjm-substrate/worker";
import { AdapterBook, type AdapterSource } from "./adapter-book.ts";
import { registryFolder } from "./adapter-registry.ts";
import type { InferenceConfig } from "./config.ts";
import type { Engine, LoadCall, TextInput } from "./engine.ts";
import { errnoOf, refuse, unsupported } from "./fault.ts";
import { LlamaCppEngine } from "./llama-cpp/engine.ts";
import { Endpoint } from "./http/endpoint.ts";
import { createOpenAiEngine } from "./openai/index.ts";
import type { Profile } from "./profile-book.ts";
import { checkParameters, toRequest, type Asked } from "./task/request.ts";
import type { AdapterInfo, Delta, Generation, Score } from "./task/schemas.ts";
import type { AdapterUse } from "./task/parameters.ts";

/** A call, as far as this worker needs it. */
export type TextCall = Pick<Call, "signal">;

interface State {
  readonly config: InferenceConfig;
  readonly engine: Engine;
  readonly adapters: AdapterBook;
}

/** The worker's one engine and what is kept beside it. */
export class Service {
  #state: State | undefined;
  #endpoint: Endpoint | undefined;
  #modelsFolder = "";

  /** Applies a config; what a release has ended is made anew, the rest stays. */
  async initialize(config: InferenceConfig, { dataFolder, log }: WorkerContext): Promise<void> {
    this.#modelsFolder = process.env["CJM_MODELS_DIR"] ?? join(dataFolder, "models");
    const kept = this.#state;
    const context = { dataFolder, log };
    this.#state = {
      config,
      engine: kept?.engine ?? (await createEngine(config, this.#modelsFolder, context)),
      adapters: kept?.adapters ?? new AdapterBook(dataFolder),
    };
    this.#state.adapters.registry = registryFolder(config.adapter_registry);
    if (config.endpoint !== null) {
      this.#endpoint ??= await Endpoint.open(config.endpoint, { service: this, dataFolder, log });
    }
  }

  get engine(): Engine {
    return this.#ready.engine;
  }

  get adapters(): AdapterBook {
    return this.#ready.adapters;
  }

  get modelsFolder(): string {
    return this.#modelsFolder;
  }

  get modelFolders(): readonly string[] {
    return [this.#modelsFolder, ...this.#ready.config.model_folders];
  }

  get endpoint(): Endpoint | undefined {
    return this.#endpoint;
  }

  get profiles(): readonly Profile[] {
    const { engine } = this.#ready;
    return engine instanceof LlamaCppEngine ? engine.profiles.all() : [];
  }

  /** @throws {CjmError} as the engine does, and `parameter_unsupported` */
  async *stream(
    input: TextInput,
    asked: Asked,
    { signal }: TextCall,
  ): AsyncGenerator<Delta, Generation, void> {
    const { engine } = this.#ready;
    checkParameters(engine, asked);
    const adapters = await this.#resolve(asked.adapters, signal);
    return yield* engine.stream(toRequest(input, asked, adapters), { signal });
  }

  async score(
    request: {
      readonly prompt: string;
      readonly top: number;
      readonly adapters?: readonly AdapterUse[] | undefined;
    },
    { signal }: TextCall,
  ): Promise<Score> {
    const { engine } = this.#ready;
    if (engine.score === undefined) throw unsupported("score", engine.name);
    const adapters = await this.#resolve(request.adapters, signal);
    return await engine.score({ ...request, adapters }, { signal });
  }

  async loadAdapter(
    { id, ...source }: AdapterSource & { readonly id: string },
    call: LoadCall,
  ): Promise<{ adapter: AdapterInfo; effect: number | null }> {
    const { engine, adapters } = this.#ready;
    if (engine.loadAdapter === undefined) throw unsupported("adapters", engine.name);
    const adapter = await adapters.describe(source, id, call.signal);
    adapters.checkFree(adapter);
    const effect = await engine.loadAdapter({ ...adapter, scale: 1 }, call);
    adapters.add(adapter);
    return { adapter, effect };
  }

  async unloadAdapter(id: string): Promise<{ id: string; sha256: string; held: string }> {
    const { engine, adapters } = this.#ready;
    const { sha256 } = adapters.named(id);
    // From here on no call can name it, also while the engine still ends it.
    adapters.remove(id);
    const held = (await engine.unloadAdapter?.({ id, sha256, scale: 1 })) ?? "";
    return { id, sha256, held };
  }

  /** Ends the engine; the next `initialize` makes another. */
  async closeEngine(): Promise<void> {
    const state = this.#state;
    this.#state = undefined;
    await state?.engine.close();
  }

  async closeEndpoint(): Promise<void> {
    await this.#endpoint?.close();
    this.#endpoint = undefined;
  }

  async close(): Promise<void> {
    await this.closeEndpoint();
    await this.closeEngine();
  }

  async #resolve(
    uses: readonly AdapterUse[] | undefined,
    signal: AbortSignal,
  ): ReturnType<AdapterBook["resolve"]> {
    return uses === undefined || uses.length === 0
      ? []
      : await this.#ready.adapters.resolve(uses, signal);
  }

  get #ready(): State {
    if (this.#state === undefined) throw refuse("model_missing", "The worker has no config yet");
    return this.#state;
  }
}

async function createEngine(
  config: InferenceConfig,
  modelsFolder: string,
  context: { readonly dataFolder: string; readonly log: WorkerContext["log"] },
): Promise<Engine> {
  if (config.engine === "openai") return createServerEngine(config, context.log);
  const modelPath = await modelFile(resolve(modelsFolder, config.model), config.model);
  return new LlamaCppEngine(
    {
      modelPath,
      modelId: config.model_id === "" ? basename(modelPath, ".gguf") : config.model_id,
      gpu: config.gpu,
      gpuLayers: config.gpu_layers,
      contextSize: config.context_size,
      slots: config.slots,
      threads: config.threads,
      adapterSets: config.adapter_sets,
      idleUnloadSeconds: config.idle_unload_seconds,
    },
    context,
  );
}

function createServerEngine({ openai }: InferenceConfig, log: WorkerContext["log"]): Engine {
  if (openai === null) {
    throw new CjmError("CONFIG_INVALID", "Engine openai needs a server", {
      fieldsInvalid: ["openai"],
    });
  }
  const apiKey = process.env["INFERENCE_SERVER_API_KEY"];
  return createOpenAiEngine(openai, {
    log: (message) => {
      log.info(message);
    },
    ...(apiKey === undefined || apiKey === "" ? {} : { apiKey }),
  });
}

/** The GGUF file that a config means; one that is missing is the first call's error, not the start's. */
async function modelFile(path: string, given: string): Promise<string> {
  if (given === "" || path.endsWith(".gguf")) return path;
  try {
    if (!(await stat(path)).isDirectory()) return path;
    const files = (await readdir(path)).filter((name) => name.endsWith(".gguf"));
    const [only] = files;
    if (only !== undefined && files.length === 1) return join(path, only);
    const hint = files.length === 0 ? "convert_model makes one of a Llama checkpoint" : "name one";
    throw refuse("model_missing", `${path} holds ${files.length} GGUF files: ${hint}`, {
      fields: ["model"],
    });
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return path;
    throw error;
  }
}
