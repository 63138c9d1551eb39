import type { ReleaseEvidence } from "../../engine.ts";
import { failure, reasonOf } from "../failure.ts";
import { until } from "../or-abort.ts";
import type { Distribution, ServerFacts } from "./dialect.ts";
import { largestChange } from "./probe.ts";
import type { VllmControl } from "./vllm-control.ts";

const STEP_MS = 100;
/** Largest difference of one log-probability before and after a sleep of the same weights. */
const CANARY_NOISE = 0.05;

/**
 * Sleep and wake of a vLLM server, neither believed: asleep is what `/is_sleeping` says and, where
 * something measures it, what the freed VRAM shows; awake is the same answer to a fixed prompt as
 * before.
 *
 * A sleep that failed half-way is undone, so that nobody finds the server in an unknown state.
 */
export class VllmSleep {
  readonly #control: VllmControl;
  #isAsleep = false;
  #level: 1 | 2 = 1;
  #before: Distribution | undefined;

  constructor(control: VllmControl) {
    this.#control = control;
  }

  get isAsleep(): boolean {
    return this.#isAsleep;
  }

  async sleep(facts: ServerFacts, signal: AbortSignal): Promise<ReleaseEvidence> {
    const { config, measureVramMb } = this.#control.link;
    await this.#checkDevelopmentMode(signal);
    await this.#drainOthers(signal);
    this.#before = await this.#control.probe(facts.model, signal);
    const heldMb = await measureVramMb();
    this.#level = config.sleep_level;
    // From here on the server may be asleep, whatever it answers.
    this.#isAsleep = true;
    try {
      await this.#control.post(`/sleep?level=${this.#level}&mode=wait`, signal);
      const isSo = await until(async () => (await this.#control.isSleeping(signal)) === true, {
        ms: this.#settleMs,
        stepMs: STEP_MS,
        signal,
      });
      if (!isSo) throw failure("server_lied", "vLLM answered 200 to /sleep and does not sleep");
      return await this.#measure(heldMb, signal);
    } catch (error) {
      await this.#undo(facts, signal);
      throw error;
    }
  }

  async wake(facts: ServerFacts, signal: AbortSignal): Promise<void> {
    if (!this.#isAsleep) return;
    if (this.#level === 1) {
      await this.#control.post("/wake_up", signal);
    } else {
      // Level 2 has thrown the weights away.
      await this.#control.post("/wake_up?tags=weights", signal);
      await this.#control.post("/collective_rpc", signal, { method: "reload_weights" });
      await this.#control.post("/wake_up?tags=kv_cache", signal);
    }
    const isAwake = await until(async () => (await this.#control.isSleeping(signal)) === false, {
      ms: this.#settleMs,
      stepMs: STEP_MS,
      signal,
    });
    if (!isAwake) throw failure("server_lied", "vLLM answered 200 to /wake_up and still sleeps");
    await this.#checkCanary(facts, signal);
    this.#isAsleep = false;
  }

  /** The server was restarted: it is awake, and nothing is known of it. */
  forget(): void {
    this.#isAsleep = false;
    this.#before = undefined;
  }

  get #settleMs(): number {
    return this.#control.link.config.settle_seconds * 1000;
  }

  async #checkDevelopmentMode(signal: AbortSignal): Promise<void> {
    if ((await this.#control.isSleeping(signal)) !== undefined) return;
    const message =
      "this vLLM server has no /sleep: start it with VLLM_SERVER_DEV_MODE=1 and --enable-sleep-mode";
    throw failure("method_unsupported", message);
  }

  /** Older servers abort what runs when they go to sleep; ours has ended, that of others may not. */
  async #drainOthers(signal: AbortSignal): Promise<void> {
    const ms = this.#control.link.config.drain_seconds * 1000;
    const isIdle = async (): Promise<boolean> =>
      ((await this.#control.requests(signal)) ?? 0) === 0;
    if (await until(isIdle, { ms, stepMs: STEP_MS, signal })) return;
    signal.throwIfAborted();
    const message = `requests of others still ran on the server after ${ms / 1000} s`;
    throw failure("server_busy", message);
  }

  async #measure(heldMb: number | undefined, signal: AbortSignal): Promise<ReleaseEvidence> {
    const { config, measureVramMb } = this.#control.link;
    const held = this.#level === 1 ? "vLLM keeps the weights in RAM" : "";
    if (heldMb === undefined) return { held };
    let nowMb = heldMb;
    const wantedMb = heldMb * config.freed_share;
    const isFreed = async (): Promise<boolean> => {
      nowMb = (await measureVramMb()) ?? heldMb;
      return heldMb - nowMb >= wantedMb;
    };
    const isSo = await until(isFreed, { ms: this.#settleMs, stepMs: STEP_MS, signal });
    const freedMb = heldMb - nowMb;
    if (isSo) return { held, freedMb };
    const message = `vLLM says that it sleeps and freed ${freedMb} of ${heldMb} MB`;
    throw failure("server_lied", message, { details: { freed_mb: freedMb, held_mb: heldMb } });
  }

  async #undo(facts: ServerFacts, signal: AbortSignal): Promise<void> {
    try {
      await this.wake(facts, signal);
    } catch (error) {
      // The next call wakes it again, and says what is wrong then.
      const reason = reasonOf(error) ?? "no reason";
      this.#control.link.log(`vLLM could not be woken after a failed sleep (${reason})`);
    }
  }

  async #checkCanary(facts: ServerFacts, signal: AbortSignal): Promise<void> {
    const before = this.#before;
    if (before === undefined || before.size === 0) return;
    const after = await this.#control.probe(facts.model, signal);
    const change = largestChange(before, after);
    if (change <= CANARY_NOISE) return;
    const message = `vLLM woke up and answers otherwise than before (by ${change})`;
    throw failure("server_lied", message, { details: { change } });
  }
}
