import type { ResolvedAdapter } from "../../engine.ts";
import { failure, reasonOf } from "../failure.ts";
import { refusalError } from "../http/refusal.ts";
import type { AdapterSupport, Distribution, ServerFacts } from "./dialect.ts";
import { listModels } from "./generic.ts";
import type { VllmControl } from "./vllm-control.ts";

/**
 * LoRA adapters of a vLLM server, loaded and unloaded at run time.
 *
 * Each content has a name of its own on the server: with one name for two contents vLLM has served
 * the first one's weights. After each change the server's list is asked, not its status code.
 */
export class VllmAdapters implements AdapterSupport {
  readonly #control: VllmControl;

  constructor(control: VllmControl) {
    this.#control = control;
  }

  async load(adapter: ResolvedAdapter, _facts: ServerFacts, signal: AbortSignal): Promise<void> {
    if (adapter.format !== "peft") {
      const message = `vLLM takes PEFT folders, and ${adapter.path} is ${adapter.format}`;
      throw failure("adapter_mismatch", message, { fields: ["adapters"] });
    }
    const name = serverName(adapter.sha256);
    // It may be there from an earlier life of this worker: its name is its content.
    if (await this.#isListed(name, signal)) return;
    const body = { lora_name: name, lora_path: adapter.path };
    const refusal = await this.#post("/load_lora_adapter", body, signal);
    if (refusal !== undefined && !/already been loaded/u.test(refusal.message)) {
      throw this.#loadError(adapter, refusal);
    }
    if (await this.#isListed(name, signal)) return;
    const message = `vLLM answered 200 to /load_lora_adapter and does not list ${adapter.id}`;
    throw failure("server_lied", message, { details: { adapter: adapter.sha256 } });
  }

  async unload(sha256: string, _facts: ServerFacts, signal: AbortSignal): Promise<string> {
    const name = serverName(sha256);
    const refusal = await this.#post("/unload_lora_adapter", { lora_name: name }, signal);
    if (refusal !== undefined && refusal.status !== 404) {
      throw refusalError(refusal, "/unload_lora_adapter");
    }
    if (!(await this.#isListed(name, signal))) return "";
    throw failure("server_lied", "vLLM answered 200 to /unload_lora_adapter and still lists it");
  }

  async probe(
    [adapter]: readonly ResolvedAdapter[],
    facts: ServerFacts,
    signal: AbortSignal,
  ): Promise<Distribution | undefined> {
    const model = adapter === undefined ? facts.model : serverName(adapter.sha256);
    const probed = await this.#control.probe(model, signal);
    return probed.size === 0 ? undefined : probed;
  }

  /** 404 for a name that was loaded: the server has been restarted since. */
  isForgotten(error: unknown): boolean {
    return reasonOf(error) === "model_missing";
  }

  async #isListed(name: string, signal: AbortSignal): Promise<boolean> {
    return (await listModels(this.#control.link, signal)).some(({ id }) => id === name);
  }

  async #post(
    path: string,
    body: unknown,
    signal: AbortSignal,
  ): Promise<
    { status: number; message: string; type: string; param: string | undefined } | undefined
  > {
    const { link } = this.#control;
    const url = `${link.address.api}${path}`;
    const { refusal } = await link.http.attempt({ method: "POST", url, body, signal, what: path });
    return refusal;
  }

  #loadError(
    adapter: ResolvedAdapter,
    refusal: { status: number; message: string; type: string; param: string | undefined },
  ): Error {
    const isEndpointMissing = refusal.status === 404 && !/lora|adapter/iu.test(refusal.message);
    if (isEndpointMissing || refusal.status === 405) {
      const how = "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True and --enable-lora";
      const message = `this vLLM server loads no adapters at run time: start it with ${how}`;
      return failure("method_unsupported", message);
    }
    const known = refusalError(refusal, "/load_lora_adapter");
    if (reasonOf(known) === "memory" || reasonOf(known) === "key_refused") return known;
    const message = `vLLM refuses adapter ${adapter.id}: ${refusal.message}`;
    return failure("adapter_mismatch", message, { fields: ["adapters"], cause: known });
  }
}

/** The adapter's name on the server: its content. */
export function serverName(sha256: string): string {
  return `cjm-${sha256.slice("sha256:".length, "sha256:".length + 32)}`;
}
