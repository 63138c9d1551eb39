/** What a worker gets of the host's own environment. Everything else is named by someone. */
const PASSED = [
  "PATH",
  "HOME",
  "LANG",
  "LC_ALL",
  "TMPDIR",
  "TZ",
  "HTTP_PROXY",
  "HTTPS_PROXY",
  "NO_PROXY",
  "http_proxy",
  "https_proxy",
  "no_proxy",
  "CUDA_VISIBLE_DEVICES",
  "CUDA_DEVICE_ORDER",
  "NVIDIA_VISIBLE_DEVICES",
  "HIP_VISIBLE_DEVICES",
  "ROCR_VISIBLE_DEVICES",
] as const;

export interface WorkerEnvironment {
  readonly host: NodeJS.ProcessEnv;
  /** Names, or prefixes that end in `*`, that the operator lets through. */
  readonly pass: readonly string[];
  /** `install.env_vars` of the manifest. */
  readonly install: Readonly<Record<string, string>>;
  /** The capability's declared worker environment, secrets resolved. */
  readonly declared: Readonly<Record<string, string>>;
  /** The protocol's own variables; nobody can override them. */
  readonly protocol: Readonly<Record<string, string>>;
}

/** Builds a worker's environment from nothing; later sources win, the protocol's last. */
export function buildWorkerEnvironment(from: WorkerEnvironment): Record<string, string> {
  const passed = Object.entries(from.host).flatMap(([name, value]): [string, string][] =>
    value !== undefined && isPassed(name, from.pass) ? [[name, value]] : [],
  );
  return {
    ...Object.fromEntries(passed),
    ...from.install,
    ...from.declared,
    ...from.protocol,
  };
}

function isPassed(name: string, patterns: readonly string[]): boolean {
  if (PASSED.some((passed) => passed === name)) return true;
  return patterns.some((pattern) =>
    pattern.endsWith("*") ? name.startsWith(pattern.slice(0, -1)) : name === pattern,
  );
}
