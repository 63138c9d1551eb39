import { canMountFragile, FragileDisk } from "./fragile-disk.ts";
import { canMount, SmallDisk } from "./small-disk.ts";

/** What can happen to a disk here. */
export const DISK_FAULTS = [
  ...(canMount() ? (["full"] as const) : []),
  ...(canMountFragile() ? (["read-only"] as const) : []),
];

/** A disk to which these can happen; one that can die can be full too. Undefined: any disk will do. */
export function diskFor(faults: readonly string[]): FragileDisk | SmallDisk | undefined {
  if (faults.includes("read-only")) return FragileDisk.mount();
  return faults.includes("full") ? SmallDisk.mount(16) : undefined;
}
