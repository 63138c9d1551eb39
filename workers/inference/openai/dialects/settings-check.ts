import { failure } from "../failure.ts";
import type { LoraScale } from "./llama-adapters.ts";
import type { Settings } from "./llama-wire.ts";

/** Settings whose echo has to be what was sent; the server keeps numbers in single precision. */
const NUMBERS = [
  "temperature",
  "top_p",
  "top_k",
  "min_p",
  "repeat_penalty",
  "repeat_last_n",
  "presence_penalty",
  "frequency_penalty",
  "n_predict",
  "seed",
] as const satisfies readonly (keyof Settings)[];

/**
 * Compares what llama-server says it applied with what was asked of it.
 *
 * @throws {CjmError} `server_lied` naming each that differs.
 */
export function checkSettings(
  applied: Settings,
  sent: Readonly<Record<string, unknown>>,
  lora: readonly LoraScale[],
): void {
  const wrong = NUMBERS.filter((name) => !isSame(applied[name], sent[name])).map(String);
  if (!isSameList(applied.samplers, sent["samplers"])) wrong.push("samplers");
  if (!isSameList(applied.stop, sent["stop"])) wrong.push("stop");
  const isConstrained = sent["grammar"] !== undefined || sent["json_schema"] !== undefined;
  if (isConstrained && applied.grammar === "") wrong.push("grammar");
  if (!isSameLora(applied.lora, lora)) wrong.push("lora");
  if (wrong.length === 0) return;
  const message = `llama-server applied other settings than it was given: ${wrong.join(", ")}`;
  throw failure("server_lied", message, { details: { settings: wrong } });
}

function isSame(applied: number, sent: unknown): boolean {
  return typeof sent === "number" && Math.abs(applied - sent) <= 1e-5 * Math.max(1, Math.abs(sent));
}

function isSameList(applied: readonly string[], sent: unknown): boolean {
  return Array.isArray(sent) && JSON.stringify(applied) === JSON.stringify(sent);
}

/** An adapter at scale 0 may be missing. */
function isSameLora(applied: Settings["lora"], sent: readonly LoraScale[]): boolean {
  const scales = new Map(applied.map(({ id, scale }) => [id, scale]));
  for (const { id, scale } of sent) {
    if (!isSame(scales.get(id) ?? 0, scale)) return false;
    scales.delete(id);
  }
  return [...scales.values()].every((scale) => scale === 0);
}
