import { z } from "cjm-substrate/worker";
import { placeSchema, runOutputSchema } from "./schemas.ts";

export const testsInputSchema = placeSchema.extend({
  code: z.string().describe("The module under test: main.py or main.js."),
  tests: z.string().describe("The test file, which imports from main."),
  framework: z
    .enum(["unittest", "pytest", "node"])
    .optional()
    .describe("Default: unittest for Python, node for JavaScript."),
});
export type TestsInput = z.output<typeof testsInputSchema>;

const testResultSchema = z.object({
  name: z.string(),
  outcome: z.enum(["passed", "failed", "error", "skipped", "missing", "extra", "tampered"]),
  message: z.string().optional(),
});
export type TestResult = z.output<typeof testResultSchema>;

export const testsOutputSchema = z.object({
  trust: z
    .literal("in_process")
    .describe(
      "The tests share the process of the code: code that attacks its memory can forge this.",
    ),
  passed: z.number(),
  total: z.number(),
  all_passed: z.boolean(),
  tests: z.array(testResultSchema),
  message: z.string(),
  run: runOutputSchema,
});
export type TestsOutput = z.output<typeof testsOutputSchema>;
