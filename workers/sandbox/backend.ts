import type { JailPolicy } from "./policy.ts";

export type BackendName = "nsjail" | "bubblewrap" | "none";

/** How one policy is started by one backend. */
export interface Launch {
  readonly file: string;
  readonly args: readonly string[];
  /** Content for the descriptor `FD.args`, where the backend reads its options from one. */
  readonly optionFile?: string | undefined;
  /** The environment of the backend's first process; by default only PATH. */
  readonly env?: Readonly<Record<string, string>>;
  /** @default "/" */
  readonly cwd?: string | undefined;
}

/** Something that can establish a policy; made by a probe that has tried it. */
export interface Backend {
  readonly name: BackendName;
  readonly version: string;
  /** True where the backend loads the assembled filter from `FD.seccomp`. */
  readonly wantsFilter: boolean;
  /** True where the init process is alone with the guest in a PID namespace. */
  readonly hasPidNamespace: boolean;
  /** Limits this backend cannot hold. */
  readonly notEnforced: readonly string[];
  launch(policy: JailPolicy): Launch;
}
