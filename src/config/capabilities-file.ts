import { z } from "zod";
import { envVarSpecSchema } from "../protocol/index.ts";
import { NAME_PATTERN } from "../util/ids.ts";
import { problemsError } from "./file-problem.ts";
import { readYaml, checkYaml } from "./yaml-file.ts";

/** `path` runs the worker where it is, with nothing installed. */
export const ENVIRONMENT_KINDS = ["npm", "path", "venv", "uv", "conda"] as const;
export type EnvironmentKindName = (typeof ENVIRONMENT_KINDS)[number];

const nonEmpty = z.string().min(1);

const adapterEntrySchema = z
  .strictObject({
    lib: nonEmpty
      .optional()
      .describe("Package that holds the adapter; installed into the tool's environment."),
    impl: nonEmpty
      .regex(/^[\w.]+:\w+$/u, "expected `module:ClassName`")
      .describe("The adapter's class as `module:ClassName`."),
  })
  .describe("A task adapter that is installed beside the tool.");

/** One capability to install. Keys that are unknown are ignored, as the original does. */
export const capabilityEntrySchema = z
  .object({
    name: z
      .string()
      .regex(NAME_PATTERN, "letters, digits, _ and -, at most 64")
      .describe("The capability's name, as its worker reports it."),
    package: nonEmpty
      .optional()
      .describe("Package to install: an npm or pip name with its version, a git URL, or a path."),
    path: nonEmpty
      .optional()
      .describe("Folder of the worker's source instead of `package`. Relative to this file."),
    env: z
      .enum(ENVIRONMENT_KINDS)
      .optional()
      .describe(
        "Kind of environment. Absent: `npm` for a folder with package.json, `conda` where `env_file` or a conda runtime is given, else `venv`.",
      ),
    python_version: z
      .union([z.string().regex(/^\d+(?:\.\d+){0,2}$/u), z.number()], {
        error: "expected a version such as 3.12",
      })
      .transform(String)
      .optional()
      .describe(
        'Python to use, such as "3.12"; found on PATH, in pyenv, or by uv. Quote it: 3.10 without quotes is the number 3.1.',
      ),
    requirements: z
      .union([nonEmpty, z.array(nonEmpty)], { error: "expected a file's path or a list" })
      .optional()
      .describe(
        "What pip installs: a requirements file, relative to this file, or a list of specs.",
      ),
    entry: nonEmpty
      .optional()
      .describe("What starts the worker: a JavaScript file, or `module:ClassName` in Python."),
    env_name: nonEmpty
      .regex(/^[\w.-]+$/u, "letters, digits, _, . and -")
      .optional()
      .describe("Name of the environment in the original; shown in the manifest."),
    cage: z
      .enum(["auto", "group"])
      .optional()
      .describe(
        "`group` for a worker that must see the process ids of the host; it is then held only by its process group.",
      ),
    env_file: nonEmpty.optional().describe("Conda environment file. Relative to this file."),
    interface_libs: z
      .array(nonEmpty)
      .nullish()
      .transform((list) => list ?? [])
      .describe("Packages that the tool's environment and the host share."),
    adapters: z
      .array(adapterEntrySchema)
      .nullish()
      .transform((list) => list ?? []),
    worker_env: z
      .union([z.record(z.string(), z.string()), z.array(envVarSpecSchema)], {
        error: "expected names and values, or a list of declarations",
      })
      .nullish()
      .transform((env) => env ?? {})
      .describe("Variables of the worker's environment, or declarations of them."),
  })
  .superRefine((entry, context) => {
    if (entry.package === undefined && entry.path === undefined) {
      context.addIssue({ code: "custom", path: [], message: "`package` or `path` is required" });
    }
    if (entry.env === "path" && entry.path === undefined) {
      context.addIssue({ code: "custom", path: ["path"], message: "required where env is `path`" });
    }
  });
export type CapabilityEntry = z.output<typeof capabilityEntrySchema>;

/** `capabilities.yaml`: what `cjm-ctl install-all` installs. */
export const capabilitiesFileSchema = z
  .object({
    capabilities: z
      .array(capabilityEntrySchema)
      .nullish()
      .transform((list) => list ?? []),
  })
  .superRefine(({ capabilities }, context) => {
    const seen = new Set<string>();
    for (const [index, { name }] of capabilities.entries()) {
      if (seen.has(name)) {
        const message = `"${name}" is here twice`;
        context.addIssue({ code: "custom", path: ["capabilities", index, "name"], message });
      }
      seen.add(name);
    }
  })
  .describe("Capabilities of a cjm-substrate project (capabilities.yaml).");
export type CapabilitiesFile = z.output<typeof capabilitiesFileSchema>;

/** @throws {CjmError} `FILE_INVALID` naming every problem with file, line and key. */
export async function readCapabilitiesFile(path: string): Promise<CapabilitiesFile> {
  const source = await readYaml(path);
  if (Array.isArray(source.value)) {
    const message = "expected `capabilities:` and the list below it";
    throw problemsError("FILE_INVALID", [{ source: path, line: 1, column: 1, key: "", message }]);
  }
  return checkYaml(source, capabilitiesFileSchema);
}
