import { describe, expect, test } from "vitest";
import { PARAMETER_NAMES, type ParameterName } from "../../workers/inference/task/parameters.ts";
import type { Generation } from "../../workers/inference/task/schemas.ts";
import { errorOf, generateWith, type TextClient } from "./text-generation.ts";

/** A backend under the contract of task `text-generation`. */
export interface ContractSubject {
  /** Asked inside tests, so that it may be started in a hook. */
  readonly client: () => TextClient;
  /** Parameters that it says it honours; it must refuse every other by name. */
  readonly honours: () => ReadonlySet<ParameterName>;
  /** Path of an adapter that changes what the model says. */
  readonly adapterPath: () => string;
  readonly prompt: string;
  /** False for a server that does not say which of `stop` ended a text. @default true */
  readonly tellsStops?: boolean;
}

/** A value that is not the neutral one. */
const GIVEN: Readonly<Record<ParameterName, unknown>> = {
  temperature: 0,
  top_p: 0.5,
  top_k: 3,
  min_p: 0.3,
  repetition_penalty: 1.5,
  presence_penalty: 1,
  frequency_penalty: 1,
  stop: ["x"],
  seed: 7,
  max_tokens: 3,
  logprobs: 2,
  json_schema: { type: "boolean" },
  grammar: 'root ::= "a"',
  adapters: [],
};

type Ask = (more?: Readonly<Record<string, unknown>>) => Promise<Generation>;

interface Site {
  readonly ask: Ask;
  /** At temperature 0: what the parameters are compared with. */
  readonly greedy: Ask;
  readonly adapterPath: string;
  readonly tellsStops: boolean;
}

const LENGTH = 40;
const SEEDS = [1, 2, 3, 4, 5];
const SCHEMA = {
  type: "object",
  properties: { colour: { enum: ["red", "blue"] }, warm: { type: "boolean" } },
  required: ["colour", "warm"],
  additionalProperties: false,
};

/** What each parameter does to a text, so that it can be seen. */
const EFFECTS: Readonly<Record<ParameterName, (site: Site) => Promise<void>>> = {
  async temperature({ ask }) {
    const cold = await Promise.all(SEEDS.map((seed) => ask({ temperature: 0, seed })));
    const hot = await Promise.all(SEEDS.map((seed) => ask({ temperature: 3, seed })));
    expect(new Set(cold.map(({ text }) => text)).size).toBe(1);
    expect(new Set(hot.map(({ text }) => text)).size).toBe(SEEDS.length);
  },
  top_k: (site) => expectGreedy(site, { top_k: 1 }),
  top_p: (site) => expectGreedy(site, { top_p: 1e-6 }),
  min_p: (site) => expectGreedy(site, { min_p: 1 }),
  async repetition_penalty({ greedy }) {
    const plain = await greedy({ max_tokens: 80 });
    const penalised = await greedy({ max_tokens: 80, repetition_penalty: 5 });
    expect(distinct(penalised)).toBeGreaterThan(distinct(plain));
  },
  async presence_penalty({ greedy }) {
    await expectFewerNewLetters(greedy, "presence_penalty");
  },
  async frequency_penalty({ greedy }) {
    await expectFewerNewLetters(greedy, "frequency_penalty");
  },
  async stop({ greedy, tellsStops }) {
    const { text } = await greedy();
    const stop = Array.from(text).slice(5, 8).join("");
    const stopped = await greedy({ stop: [stop, "\u0000never"] });
    expect(stopped).toMatchObject(
      tellsStops
        ? { finish_reason: "stop_sequence", stop_sequence: stop }
        : { finish_reason: "stop", stop_sequence: null },
    );
    expect(stopped.text).toBe(text.slice(0, text.indexOf(stop)));
  },
  async seed({ ask }) {
    const [one, same, other] = await Promise.all([7, 7, 8].map((seed) => ask({ seed })));
    expect(same?.text).toBe(one?.text);
    expect(other?.text).not.toBe(one?.text);
    expect(one?.seed).toBe(7);
  },
  async max_tokens({ greedy }) {
    const short = await greedy({ max_tokens: 3 });
    expect(short).toMatchObject({ finish_reason: "length", usage: { completion_tokens: 3 } });
  },
  async logprobs({ ask, greedy }) {
    const cold = await greedy({ logprobs: 5, max_tokens: 6 });
    const filtered = await ask({ logprobs: 5, max_tokens: 6, temperature: 0.5, top_p: 0.5 });
    const list = cold.logprobs ?? [];
    expect(list).toHaveLength(6);
    for (const { logprob, top } of list) {
      expect(top).toHaveLength(5);
      expect(logprob).toBeCloseTo(top[0]?.logprob ?? NaN, 5);
      expect(top.reduce((sum, entry) => sum + Math.exp(entry.logprob), 0)).toBeLessThanOrEqual(
        1.00001,
      );
    }
    // Of the model's own distribution: sampling changes none of it.
    for (const [i, entry] of (filtered.logprobs?.[0]?.top ?? []).entries()) {
      expect(entry.logprob).toBeCloseTo(list[0]?.top[i]?.logprob ?? NaN, 4);
    }
  },
  async json_schema({ ask }) {
    for (const seed of SEEDS) {
      const { text } = await ask({ json_schema: SCHEMA, max_tokens: 400, seed });
      const value = JSON.parse(text) as Record<string, unknown>;
      expect(["red", "blue"]).toContain(value["colour"]);
      expect(typeof value["warm"]).toBe("boolean");
    }
  },
  async grammar({ ask }) {
    const texts = await Promise.all(
      SEEDS.map((seed) => ask({ grammar: 'root ::= "heads" | "tails"', seed })),
    );
    for (const { text } of texts) expect(["heads", "tails"]).toContain(text);
  },
  async adapters({ greedy, adapterPath }) {
    const bare = await greedy();
    const adapted = await greedy({ adapters: [{ path: adapterPath }] });
    const none = await greedy({ adapters: [{ path: adapterPath, scale: 0 }] });
    const again = await greedy();
    expect(adapted.text).not.toBe(bare.text);
    expect([none.text, again.text]).toEqual([bare.text, bare.text]);
    expect(adapted.adapters).toEqual([
      {
        id: expect.any(String) as string,
        sha256: expect.stringMatching(/^sha256:/u) as string,
        scale: 1,
      },
    ]);
    const { adapter_effect: effect } = adapted.evidence;
    if (effect !== null) expect(effect).toBeGreaterThan(1e-3);
  },
};

/** Every parameter is honoured, which is seen in the text, or refused by its name. */
export function describeParameters(subject: ContractSubject): void {
  const ask: Ask = (more) =>
    generateWith(subject.client(), { prompt: subject.prompt, max_tokens: LENGTH, ...more });
  const greedy: Ask = (more) => ask({ temperature: 0, ...more });

  describe("every parameter is honoured or refused by name", () => {
    test.each(PARAMETER_NAMES)("%s", async (name) => {
      const adapterPath = subject.adapterPath();
      if (subject.honours().has(name)) {
        const { tellsStops = true } = subject;
        await EFFECTS[name]({ ask, greedy, adapterPath, tellsStops });
        return;
      }
      const given = name === "adapters" ? [{ path: adapterPath }] : GIVEN[name];
      const error = await errorOf(ask({ [name]: given }));
      expect(error).toMatchObject({ code: "CAPABILITY_INPUT" });
      expect(error.fields_invalid).toContain(name);
    });

    test("an unknown parameter is refused by name too", async () => {
      const error = await errorOf(ask({ best_of: 2 }));
      expect(error).toMatchObject({ code: "CAPABILITY_INPUT", fields_invalid: ["best_of"] });
    });
  });
}

async function expectGreedy({ ask, greedy }: Site, more: Record<string, unknown>): Promise<void> {
  const { text } = await greedy();
  for (const seed of SEEDS.slice(0, 2)) expect((await ask({ ...more, seed })).text).toBe(text);
  const free = await Promise.all(SEEDS.map((seed) => ask({ seed })));
  expect(free.some((result) => result.text !== text)).toBe(true);
}

/** A penalty makes new letters likelier, its negative makes them rarer. */
async function expectFewerNewLetters(greedy: Ask, name: string): Promise<void> {
  const rewarded = await greedy({ [name]: -2, max_tokens: 80 });
  const penalised = await greedy({ [name]: 2, max_tokens: 80 });
  expect(distinct(rewarded)).toBeLessThan(distinct(penalised));
}

const distinct = ({ text }: Generation): number => new Set(text).size;
