import { readFileSync } from "node:fs";

const WIRE = new URL("../../fixtures/wire/", import.meta.url);

function golden(file: string): string[] {
  const content: unknown = JSON.parse(readFileSync(new URL(file, WIRE), "utf8"));
  return membersOf(content).map((member) => JSON.stringify(member));
}

/** The value and everything it holds that is an object or a list. */
function membersOf(value: unknown): unknown[] {
  if (typeof value !== "object" || value === null) return [];
  return [value, ...Object.values(value).flatMap(membersOf)];
}

/** What workers really send, to begin mutations from. */
export const GOLDEN: readonly string[] = [
  ...golden("bodies.json"),
  ...golden("envelopes.json"),
  ...golden("job-errors.json"),
  ...golden("refs.json"),
];
export const GOLDEN_FRAMES: readonly string[] = golden("frames.json");

const nested = (open: string, close: string, levels: number): string =>
  `${open.repeat(levels)}1${close.repeat(levels)}`;

/** Inputs that have broken readers of JSON elsewhere, or this one once; each stays for good. */
export const HOSTILE: readonly Buffer[] = [
  "",
  " ",
  "\u0000",
  "\uFEFF{}",
  "{",
  "}",
  '"',
  '{"a":1}{"b":2}',
  '{"__proto__":{"polluted":1}}',
  '{"constructor":{"prototype":{"polluted":1}}}',
  '{"__proto__":null,"_job_error":{"category":"fatal","message":"x"}}',
  '{"_job_error":{"category":"fatal","message":"x","__proto__":{"code":"WORKER_OOM"}}}',
  '{"_job_error":{"category":"toString","message":"x"}}',
  '{"_job_error":{"category":"transient","message":"x","retry_after_seconds":1e999}}',
  '{"_job_error":{"category":"fatal","message":"x","code":"__proto__","original_exc_repr":""}}',
  '{"a":1,"a":2}',
  '{"a":1e999,"b":-1e999}',
  '{"pid":9007199254740993}',
  '{"pid":-0}',
  `{"n":${"9".repeat(10_000)}}`,
  '"\\ud800"',
  '"\\u0000\\u001b[2J\\u009b"',
  nested("[", "]", 64),
  nested("[", "]", 65),
  nested("[", "]", 100_000),
  nested('{"a":', "}", 100_000),
  "[".repeat(200_000),
  `[${"0,".repeat(199_999)}0]`,
  `[${"0,".repeat(200_000)}0]`,
  `"${"x".repeat(4 * 1024 * 1024)}"`,
  `"${"\\".repeat(100_001)}"`,
]
  .map((text) => Buffer.from(text))
  .concat([
    Buffer.from([0x22, 0xff, 0xfe, 0x22]),
    Buffer.from([0x22, 0xc0, 0xaf, 0x22]),
    Buffer.from([0x22, 0xed, 0xa0, 0x80, 0x22]),
    Buffer.from([0x22, 0xf4, 0x90, 0x80, 0x80, 0x22]),
    Buffer.from([0x1f, 0x8b, 0x08, 0x00, 0x00, 0x00]),
    Buffer.from([0xff, 0xfe, 0x7b, 0x00, 0x7d, 0x00]),
  ]);

/** Frames that are JSON of a known type and still not what a worker should say. */
export const HOSTILE_FRAMES: readonly string[] = [
  `{"type":"account","job_id":"j","event_type":"x","payload":{"deep":${nested("[", "]", 30_000)}}}`,
  '{"type":"account","job_id":"j","event_type":"x","payload":{"__proto__":{"polluted":1}}}',
  '{"type":"account","job_id":"j","event_type":"state_transition","payload":{"to":"completed"}}',
  '{"type":"usage","job_id":"j","units":{"__proto__":1,"constructor":2,"n":1e308}}',
  '{"type":"progress","job_id":"j","progress":1e999}',
  '{"type":"memory","job_id":"j","gpu_peak_mb":-1e308,"host_peak_mb":-5}',
  '{"type":"log","ts":"\\u001b]0;x\\u0007","level":"\\u001b[2J","logger":"\\u009b2J","message":""}',
  '{"type":"ready","protocol":1,"address":"unix:/elsewhere","pid":1,"name":"x","version":"1"}',
  '{"type":"hello","protocol":1,"token":"0"}',
  '{"type":"dropped","n":9007199254740993}',
  '{"type":"bye","code":1.5}',
];
