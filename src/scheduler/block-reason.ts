/** Why a pending job does not run. Amounts are MB. */
export type BlockReason =
  | { readonly kind: "lanes"; readonly inUse: number; readonly limit: number }
  | {
      readonly kind: "instance_busy";
      readonly instanceId: string;
      readonly running: number;
      readonly limit: number;
    }
  /** Waits to be alone, or for another job that is. */
  | {
      readonly kind: "alone";
      readonly scope: "gpu" | "instance";
      readonly where: string;
      readonly behindJobId: string | null;
    }
  /** `outsideMb`: held by programs that are not ours; no end of our jobs can free it. */
  | {
      readonly kind: "vram";
      readonly gpuUuid: string | null;
      readonly neededMb: number;
      readonly availableMb: number;
      readonly outsideMb: number;
    }
  | { readonly kind: "ram"; readonly neededMb: number; readonly availableMb: number }
  | { readonly kind: "disk"; readonly neededMb: number; readonly availableMb: number }
  /** Waits for residents to give memory back, or for its own instance, which is doing so. */
  | {
      readonly kind: "eviction";
      readonly gpuUuid: string | null;
      readonly instanceIds: readonly string[];
    }
  /** It would fit, but an earlier job holds a reservation that it would delay. */
  | { readonly kind: "reservation"; readonly where: string; readonly behindJobId: string }
  /** Not the head of its class: it waits for what the head waits for. */
  | { readonly kind: "behind"; readonly behindJobId: string };

/** One line for people. */
export function describeBlock(reason: BlockReason): string {
  switch (reason.kind) {
    case "lanes":
      return `all ${reason.limit} lanes are in use`;
    case "instance_busy":
      return `${reason.instanceId} runs ${reason.running} of ${reason.limit} jobs`;
    case "alone":
      return describeAlone(reason);
    case "vram":
      return describeVram(reason);
    case "ram":
      return `needs ${mb(reason.neededMb)} of RAM, ${mb(reason.availableMb)} available`;
    case "disk":
      return `${mb(reason.availableMb)} of disk free, the minimum is ${mb(reason.neededMb)}`;
    case "eviction":
      return `waiting for ${reason.instanceIds.join(", ")} to release memory`;
    case "reservation":
      return `would delay job ${reason.behindJobId}, which ${reason.where} is reserved for`;
    case "behind":
      return `behind job ${reason.behindJobId} of its class`;
    default:
      return reason satisfies never;
  }
}

/** Equal reasons are not announced twice; amounts that only moved a little are the same reason. */
export function sameBlock(a: BlockReason | null, b: BlockReason | null): boolean {
  if (a === null || b === null) return a === b;
  return identity(a) === identity(b);
}

function identity(reason: BlockReason): string {
  switch (reason.kind) {
    case "lanes":
    case "ram":
    case "disk":
      return reason.kind;
    case "instance_busy":
      return `${reason.kind} ${reason.instanceId}`;
    case "alone":
      return `${reason.kind} ${reason.scope} ${reason.where} ${reason.behindJobId}`;
    case "vram":
      return `${reason.kind} ${reason.gpuUuid} ${reason.outsideMb > 0}`;
    case "eviction":
      return `${reason.kind} ${reason.instanceIds.join(" ")}`;
    case "reservation":
      return `${reason.kind} ${reason.where} ${reason.behindJobId}`;
    case "behind":
      return `${reason.kind} ${reason.behindJobId}`;
    default:
      return reason satisfies never;
  }
}

function describeAlone(reason: Extract<BlockReason, { kind: "alone" }>): string {
  const place = reason.scope === "gpu" ? `GPU ${reason.where}` : reason.where;
  return reason.behindJobId === null
    ? `must run alone on ${place} to be measured; other jobs run there`
    : `job ${reason.behindJobId} runs alone on ${place}`;
}

function describeVram(reason: Extract<BlockReason, { kind: "vram" }>): string {
  const where = reason.gpuUuid === null ? "any GPU" : `GPU ${reason.gpuUuid}`;
  const outside = reason.outsideMb > 0 ? `; other programs hold ${mb(reason.outsideMb)} of it` : "";
  return `needs ${mb(reason.neededMb)} on ${where}, ${mb(reason.availableMb)} available${outside}`;
}

function mb(amount: number): string {
  return `${Math.round(amount)} MB`;
}
