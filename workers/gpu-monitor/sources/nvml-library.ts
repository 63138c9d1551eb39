/** A function of the library that was found; answers NVML's return code. */
type NativeCall = (...args: readonly unknown[]) => number;

/** Return codes of NVML that mean something to us, and what to tell people. */
export const NVML = {
  success: 0,
  notSupported: 3,
  noPermission: 4,
  notFound: 6,
  insufficientSize: 7,
  functionNotFound: 13,
  gpuIsLost: 15,
  versionMismatch: 25,
} as const;

const REASONS: Readonly<Record<number, string>> = {
  1: "NVML is not initialised",
  2: "invalid argument",
  3: "not supported by this device",
  4: "no permission",
  6: "not found",
  9: "the driver is not loaded",
  10: "the driver did not answer in time",
  12: "a library of the driver is missing",
  13: "not in this driver's library",
  15: "GPU is lost",
  16: "GPU requires a reset",
  18: "driver and library have different versions",
  25: "not in this driver's version of the struct",
};

export function nvmlReason(code: number): string {
  return REASONS[code] ?? `NVML error ${code}`;
}

/**
 * Arguments of every function used, as in `nvml.h`. Handles are opaque pointers, passed as the integer
 * they are; everything that NVML writes goes to buffers that the caller decodes.
 */
const SIGNATURES = {
  nvmlInit_v2: [],
  nvmlShutdown: [],
  nvmlSystemGetDriverVersion: ["void *", "uint32"],
  nvmlDeviceGetCount_v2: ["void *"],
  nvmlDeviceGetHandleByIndex_v2: ["uint32", "void *"],
  nvmlDeviceGetUUID: ["uint64", "void *", "uint32"],
  nvmlDeviceGetName: ["uint64", "void *", "uint32"],
  nvmlDeviceGetMemoryInfo: ["uint64", "void *"],
  nvmlDeviceGetMemoryInfo_v2: ["uint64", "void *"],
  nvmlDeviceGetUtilizationRates: ["uint64", "void *"],
  nvmlDeviceGetTemperature: ["uint64", "uint32", "void *"],
  nvmlDeviceGetTemperatureV: ["uint64", "void *"],
  nvmlDeviceGetPowerUsage: ["uint64", "void *"],
  nvmlDeviceGetEnforcedPowerLimit: ["uint64", "void *"],
  nvmlDeviceGetCurrentClocksEventReasons: ["uint64", "void *"],
  nvmlDeviceGetCurrentClocksThrottleReasons: ["uint64", "void *"],
  nvmlDeviceGetTotalEccErrors: ["uint64", "uint32", "uint32", "void *"],
  nvmlDeviceGetMigMode: ["uint64", "void *", "void *"],
  nvmlDeviceGetMaxMigDeviceCount: ["uint64", "void *"],
  nvmlDeviceGetMigDeviceHandleByIndex: ["uint64", "uint32", "void *"],
  nvmlDeviceGetComputeRunningProcesses: ["uint64", "void *", "void *"],
  nvmlDeviceGetComputeRunningProcesses_v2: ["uint64", "void *", "void *"],
  nvmlDeviceGetComputeRunningProcesses_v3: ["uint64", "void *", "void *"],
  nvmlDeviceGetGraphicsRunningProcesses: ["uint64", "void *", "void *"],
  nvmlDeviceGetGraphicsRunningProcesses_v2: ["uint64", "void *", "void *"],
  nvmlDeviceGetGraphicsRunningProcesses_v3: ["uint64", "void *", "void *"],
} as const satisfies Readonly<Record<string, readonly string[]>>;

export type NvmlFunction = keyof typeof SIGNATURES;

/** `libnvidia-ml` through koffi. Calls block the thread they are made on. */
export class NvmlLibrary {
  readonly #functions: ReadonlyMap<string, NativeCall>;

  private constructor(functions: ReadonlyMap<string, NativeCall>) {
    this.#functions = functions;
  }

  /** The reason, where the library or the FFI cannot be loaded. */
  static async load(path: string): Promise<NvmlLibrary | string> {
    try {
      const { default: koffi } = await import("koffi");
      const library = koffi.load(path);
      const functions = new Map<string, NativeCall>();
      for (const [name, parameters] of Object.entries(SIGNATURES)) {
        const found = tryTo(() => library.func(name, "int", [...parameters]));
        if (found !== undefined) functions.set(name, asNumber(found));
      }
      return new NvmlLibrary(functions);
    } catch (error) {
      return `${path}: ${error instanceof Error ? error.message : String(error)}`;
    }
  }

  /** Drivers leave functions out, older ones the newer versions of a struct. */
  has(name: NvmlFunction): boolean {
    return this.#functions.has(name);
  }

  /** NVML's return code; `functionNotFound` for a function the library lacks. */
  call(name: NvmlFunction, ...args: readonly unknown[]): number {
    return this.#functions.get(name)?.(...args) ?? NVML.functionNotFound;
  }
}

function asNumber(call: (...args: unknown[]) => unknown): NativeCall {
  return (...args) => {
    const code = call(...args);
    if (typeof code === "number") return code;
    throw new TypeError(`The FFI answered ${String(code)}`);
  };
}

function tryTo<T>(action: () => T): T | undefined {
  try {
    return action();
  } catch {
    return undefined;
  }
}
