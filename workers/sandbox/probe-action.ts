import { z } from "cjm-substrate/worker";
import { identityHere } from "./probe.ts";
import type { Workbench } from "./workbench.ts";

export const probeOutputSchema = z.object({
  /** What `auto` means here; null where every run would be refused. */
  isolation: z.enum(["nsjail", "bubblewrap"]).nullable(),
  backends: z.array(
    z.object({
      name: z.string(),
      usable: z.boolean(),
      version: z.string().nullable(),
      reason: z.string().nullable(),
    }),
  ),
  memory_enforced_by: z.enum(["cgroup", "sampled"]),
  cgroup_version: z.number().nullable(),
  cgroup_reason: z.string().nullable(),
  identity: z.enum(["setuid", "userns", "same"]),
  interpreters: z.record(z.string(), z.string()),
});
export type ProbeOutput = z.output<typeof probeOutputSchema>;

/** The action `probe`. */
export async function probeAction(workbench: Workbench): Promise<ProbeOutput> {
  const { probes, cgroups } = workbench;
  const best = probes.find(({ usable }) => usable)?.name;
  return {
    isolation: best === undefined || best === "none" ? null : best,
    backends: probes.map(({ name, usable, version = null, reason = null }) => {
      return { name, usable, version, reason };
    }),
    memory_enforced_by: cgroups.parent === null ? "sampled" : "cgroup",
    cgroup_version: cgroups.parent?.version ?? null,
    cgroup_reason: cgroups.parent === null ? cgroups.reason : null,
    identity: identityHere(),
    interpreters: Object.fromEntries(
      await Promise.all(
        (["python", "node", "bash"] as const).map(
          async (language) => [language, await describeInterpreter(workbench, language)] as const,
        ),
      ),
    ),
  };
}

async function describeInterpreter(
  workbench: Workbench,
  language: "python" | "node" | "bash",
): Promise<string> {
  try {
    const { path, version } = await workbench.interpreter(language);
    return `${path} ${version}`;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}
