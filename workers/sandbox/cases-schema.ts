import { z } from "cjm-substrate/worker";
import { placeSchema, runOutputSchema } from "./schemas.ts";

const MAX_CASES = 1_000;

const caseSchema = z.strictObject({
  name: z.string().optional(),
  args: z.array(z.json()).default([]),
  kwargs: z.record(z.string(), z.json()).default({}).describe("Python only."),
  stdin: z.string().optional().describe("Where no function is named: what the program reads."),
  expected: z.json().describe("The value returned, or the text printed. Never shown to the guest."),
});
export type Case = z.output<typeof caseSchema>;

export const casesInputSchema = placeSchema.extend({
  code: z.string().describe("The program or the module under test."),
  function: z
    .string()
    .regex(/^[A-Za-z_$][\w$]*$/u)
    .optional()
    .describe("Function of the code to call; without it the program is run once per case."),
  cases: z.array(caseSchema).min(1).max(MAX_CASES),
  compare_text: z
    .enum(["exact", "trim", "tokens"])
    .default("trim")
    .describe("trim ignores white space at line ends and at the end; tokens compares words."),
  tolerance: z.number().nonnegative().default(0).describe("For numbers, relative and absolute."),
});
export type CasesInput = z.output<typeof casesInputSchema>;

const OUTCOMES = ["passed", "wrong", "error", "timeout", "ended", "not_run"] as const;

const caseResultSchema = z.object({
  name: z.string(),
  outcome: z.enum(OUTCOMES),
  got: z.json().optional(),
  message: z.string().optional(),
});
export type CaseResult = z.output<typeof caseResultSchema>;

export const casesOutputSchema = z.object({
  trust: z.literal("isolated"),
  passed: z.number(),
  total: z.number(),
  all_passed: z.boolean(),
  cases: z.array(caseResultSchema),
  run: runOutputSchema.describe("The last jail that was used."),
});
export type CasesOutput = z.output<typeof casesOutputSchema>;
