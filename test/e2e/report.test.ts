import { existsSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { type Browser, chromium, type Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { z } from "zod";
import { renderReport } from "../../src/cli/report/page.ts";
import { validateJsonSchema } from "../../src/protocol/index.ts";
import { runCli, temporaryFolder } from "../support/cli.ts";
import { HOSTILE, reportModel } from "../support/report-model.ts";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const CHROMIUM = ["/usr/bin/chromium", "/usr/bin/chromium-browser"].find((path) =>
  existsSync(path),
);

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
beforeAll(async () => {
  folder = await temporaryFolder();
});
afterAll(async () => {
  await folder[Symbol.asyncDispose]();
});

/** A run of its own: two programs in jails, one that prints markup, and a score. */
const COMPOSITION = {
  name: "graded",
  fail_fast: false,
  nodes: {
    answer: {
      capability: "sandbox",
      action: "run",
      kwargs: { language: "python", code: `print('''${HOSTILE.replace("\u0000", "")}''')` },
    },
    checks: {
      capability: "sandbox",
      action: "check_cases",
      for_each: ["def f(x): return x + 1", "def f(x): return x"],
      kwargs: {
        code: { $ref: "$item" },
        function: "f",
        cases: [{ args: [1], expected: 2 }],
      },
    },
    score: {
      capability: "evaluation",
      action: "score",
      kwargs: {
        checks: { $ref: "checks" },
        items: ["good", "bad"].map((candidate) => ({
          candidate,
          adapters: [],
          task: "t",
          family: "",
          sample: 0,
          seed: 0,
          prompt: "",
          prefix: "",
          function: "f",
          cases: [{ expected: 2 }],
          language: "python",
        })),
      },
    },
  },
};

async function realReport(): Promise<string> {
  const dataDir = join(folder.path, "data");
  const file = join(folder.path, "graded.json");
  await writeFile(file, JSON.stringify(COMPOSITION));
  const run = await runCli(["run", file, "--json"], { dataDir });
  expect(run).toMatchObject({ exitCode: 0, stderr: "" });
  const path = join(folder.path, "graded.html");
  const report = await runCli(["report", "--out", path, "--json"], { dataDir });
  const answer: unknown = JSON.parse(report.stdout);
  const { $defs } = z
    .object({ $defs: z.record(z.string(), z.record(z.string(), z.unknown())) })
    .parse(JSON.parse(await readFile(join(ROOT, "schemas/cli.schema.json"), "utf8")));
  expect(validateJsonSchema($defs["report"] ?? {}, answer)).toEqual([]);
  expect(answer).toMatchObject({ status: "completed", nodes: 3, jobs: 4 });
  return path;
}

test("a report of nothing is refused", async () => {
  const dataDir = join(folder.path, "empty");
  expect(await runCli(["report"], { dataDir })).toMatchObject({
    exitCode: 2,
    stderr: expect.stringContaining("There is no composition") as string,
  });
});

describe.skipIf(CHROMIUM === undefined)("in a browser", () => {
  let browser: Browser;
  beforeAll(async () => {
    browser = await chromium.launch({
      executablePath: CHROMIUM ?? "",
      args: ["--no-sandbox", "--disable-gpu"],
    });
  }, 60_000);
  afterAll(() => browser.close());

  interface Seen {
    readonly page: Page;
    /** What it asked for, and what the browser had to say. */
    readonly requests: string[];
    readonly complaints: string[];
  }

  async function open(
    path: string,
    options: { dark?: boolean; width?: number } = {},
  ): Promise<Seen> {
    const page = await browser.newPage({
      colorScheme: options.dark === true ? "dark" : "light",
      viewport: { width: options.width ?? 1280, height: 900 },
    });
    const [requests, complaints] = [new Array<string>(), new Array<string>()];
    page.on("request", (request) => requests.push(request.url()));
    page.on("console", (message) => complaints.push(message.text()));
    page.on("pageerror", (error) => complaints.push(error.message));
    await page.goto(pathToFileURL(path).href);
    return { page, requests, complaints };
  }

  test(
    "a real run's report stands for itself and shows every part",
    { timeout: 45_000 },
    async () => {
      const path = await realReport();
      const { page, requests, complaints } = await open(path);
      expect({ requests, complaints }).toEqual({
        requests: [pathToFileURL(path).href],
        complaints: [],
      });
      expect(await page.locator("h2").allTextContents()).toEqual(
        expect.arrayContaining(["pass@k · score", "Timeline", "Graph", "Nodes", "Results"]),
      );
      expect(await page.locator("svg.dag .node.completed").count()).toBe(3);
      expect(await page.locator("svg .bar.running").count()).toBeGreaterThan(0);
      expect(await page.locator(".passbar.best").count()).toBe(1);
      expect(await page.locator("pre").first().textContent()).toContain("<script>");
      await page.close();
    },
  );

  test("nothing that a worker wrote is more than text", { timeout: 30_000 }, async () => {
    const path = join(folder.path, "hostile.html");
    await writeFile(path, renderReport(reportModel()));
    const { page, requests, complaints } = await open(path);
    expect({ requests, complaints }).toEqual({
      requests: [pathToFileURL(path).href],
      complaints: [],
    });
    expect(await page.title()).toContain("<script>");
    expect(await page.locator("script, img, iframe, link, [onerror]").count()).toBe(0);
    expect(await page.locator("h2").allTextContents()).toEqual([
      "What went wrong",
      "pass@k · score",
      "Loss",
      "Timeline",
      "RAM",
      "VRAM · GPU 0 RTX 4090",
      "Graph",
      "Decisions",
      "Nodes",
      "Results",
    ]);
    await page.close();
  });

  test.each([
    ["light and wide", { dark: false, width: 1280 }],
    ["dark and wide", { dark: true, width: 1280 }],
    ["dark and narrow", { dark: true, width: 400 }],
  ])("is readable %s", { timeout: 30_000 }, async (_, look) => {
    const path = join(folder.path, "look.html");
    await writeFile(path, renderReport(reportModel()));
    const { page } = await open(path, look);
    const overflow = await page.evaluate(
      "document.documentElement.scrollWidth - document.documentElement.clientWidth",
    );
    expect(overflow).toBe(0);
    for (const selector of ["h2", "p", "td", "svg .name"]) {
      expect(await contrast(page, selector), selector).toBeGreaterThan(4.5);
    }
    await page.close();
  });

  test("draws no label over the edge of its node", { timeout: 30_000 }, async () => {
    const path = join(folder.path, "labels.html");
    await writeFile(path, renderReport(reportModel()));
    const { page } = await open(path);
    const over =
      await page.evaluate(`[...document.querySelectorAll("svg.dag .node")].filter((node) => {
      const box = node.querySelector("rect").getBoundingClientRect();
      return [...node.querySelectorAll("text")].some((text) => {
        const own = text.getBoundingClientRect();
        return own.left < box.left || own.right > box.right || own.bottom > box.bottom;
      });
    }).length`);
    expect(over).toBe(0);
    await page.close();
  });

  /** Contrast of the first such text with its card, by WCAG 2. */
  async function contrast(page: Page, selector: string): Promise<number> {
    const colours = await page.evaluate(`(() => {
      const text = getComputedStyle(document.querySelector(${JSON.stringify(selector)}));
      const card = getComputedStyle(document.querySelector("section"));
      const isDrawn = document.querySelector(${JSON.stringify(selector)}) instanceof SVGElement;
      return [isDrawn ? text.fill : text.color, card.backgroundColor];
    })()`);
    const [a = 0, b = 0] = z.array(z.string()).parse(colours).map(luminance);
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  }
});

function luminance(colour: string): number {
  const [red = 0, green = 0, blue = 0] = (colour.match(/[\d.]+/gu) ?? []).map((text) => {
    const value = Number(text) / 255;
    return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}
