import { ERROR_CODES, type ErrorCategory, type ErrorCode } from "./codes.ts";

/** What is missing, in megabytes: what a job needed and what was there. */
export interface ResourceShortfall {
  readonly resource: "gpu_vram_mb" | "system_ram_mb" | "disk_mb";
  readonly needed: number;
  readonly available: number;
}

export interface CjmErrorOptions {
  readonly cause?: unknown;
  /** Overrides the category that the code has by default. */
  readonly category?: ErrorCategory;
  readonly details?: Readonly<Record<string, unknown>>;
  readonly fieldsInvalid?: readonly string[];
  readonly retryAfterSeconds?: number;
  readonly resourceShortfall?: ResourceShortfall;
}

/**
 * Base of every error this package throws on purpose.
 *
 * Branch on {@link CjmError.code} or {@link CjmError.category}; the message is for people and may
 * change in any release.
 */
export class CjmError extends Error {
  override readonly name: string = "CjmError";
  readonly code: ErrorCode;
  readonly category: ErrorCategory;
  readonly details: Readonly<Record<string, unknown>>;
  /** Names of the inputs that are wrong, as dotted paths; empty when it is not about inputs. */
  readonly fieldsInvalid: readonly string[];
  readonly retryAfterSeconds: number | undefined;
  readonly resourceShortfall: ResourceShortfall | undefined;

  constructor(code: ErrorCode, message: string, options: CjmErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.category = options.category ?? ERROR_CODES[code];
    this.details = options.details ?? {};
    this.fieldsInvalid = options.fieldsInvalid ?? [];
    this.retryAfterSeconds = options.retryAfterSeconds;
    this.resourceShortfall = options.resourceShortfall;
  }
}
