import { type DiagnosticsStore, RESOURCES_LOGGER } from "../store/index.ts";
import type { TelemetrySnapshot } from "../telemetry/index.ts";
import type { MeasuredResources } from "./measured-resources.ts";

const INTERVAL_MS = 500;

/**
 * Records twice a second what the machine and each worker hold, as long as jobs run: what
 * `cjm-ctl report` draws. It goes to the diagnostics, so retention takes it, and nothing depends on it.
 */
export function recordSamples(parts: {
  readonly resources: Pick<MeasuredResources, "measurements">;
  readonly diagnostics: Pick<DiagnosticsStore, "appendRecord">;
  readonly isBusy: () => boolean;
}): Disposable {
  const timer = setInterval(() => {
    if (!parts.isBusy()) return;
    const { snapshot } = parts.resources.measurements();
    parts.diagnostics.appendRecord({
      loggerName: RESOURCES_LOGGER,
      level: "debug",
      message: JSON.stringify(sampleOf(snapshot)),
    });
  }, INTERVAL_MS);
  timer.unref();
  return { [Symbol.dispose]: () => clearInterval(timer) };
}

/** MiB. */
function sampleOf({ gpus, instances, ram }: TelemetrySnapshot): unknown {
  return {
    ram: { total: round(ram.totalMb), used: round(ram.totalMb - ram.availableMb) },
    gpus: gpus.map(({ index, name, totalMb, usedMb, instances: own }) => ({
      index,
      name,
      total: round(totalMb),
      used: round(usedMb),
      instances: Object.fromEntries(Object.entries(own).map(([id, { mb }]) => [id, round(mb)])),
    })),
    instances: Object.fromEntries(
      instances.map(({ instanceId, hostMb }) => [instanceId, round(hostMb)]),
    ),
  };
}

function round(mb: number | null): number | null {
  return mb === null ? null : Math.round(mb);
}
