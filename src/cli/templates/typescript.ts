/** Files of a new TypeScript capability, by name. */
export function typescriptTemplate(name: string): Readonly<Record<string, string>> {
  return {
    "capability.ts": `import { defineAction, defineCapability, z, type Call } from "cjm-substrate/worker";

const config = z.strictObject({
  greeting: z.string().default("Hello").describe("What to say first."),
});

const greet = defineAction({
  description: "Greets someone.",
  input: z.strictObject({ who: z.string().min(1) }),
  output: z.strictObject({ text: z.string() }),
  handler({ who }, call: Call<z.output<typeof config>>) {
    call.log.info(\`greeting \${who}\`);
    return { text: \`\${call.config.greeting}, \${who}!\` };
  },
});

export const capability = defineCapability({
  name: "${name}",
  version: "0.1.0",
  description: "Greets people.",
  config,
  actions: { greet },
});
`,
    "main.ts": `import { serve } from "cjm-substrate/worker";
import { capability } from "./capability.ts";

await serve(capability);
`,
    "capability.test.ts": `import assert from "node:assert/strict";
import { test } from "node:test";
import { createWorkerApp } from "cjm-substrate/worker";
import { capability } from "./capability.ts";

const app = createWorkerApp(capability);

async function post(path: string, body: unknown): Promise<Response> {
  return await app.request(path, { method: "POST", body: JSON.stringify(body) });
}

test("greets as it is configured", async () => {
  await post("/initialize", { greeting: "Good day" });
  const response = await post("/execute", { kwargs: { who: "Ada" } });
  assert.deepEqual(await response.json(), { text: "Good day, Ada!" });
});

test("refuses to greet nobody", async () => {
  await post("/initialize", {});
  const response = await post("/execute", { kwargs: { who: "" } });
  assert.equal(response.status, 400);
});
`,
    "package.json": `${JSON.stringify(
      { name, version: "0.1.0", private: true, type: "module", main: "main.ts" },
      null,
      2,
    )}
`,
  };
}
