import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmdirSync, statfsSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** A file system of a few megabytes in memory; unmounted when the scope is left. */
export class SmallDisk implements Disposable {
  readonly path: string;
  readonly #views: string[] = [];

  private constructor(path: string) {
    this.path = path;
  }

  /** @throws where this user may not mount one; see {@link canMount}. */
  static mount(megabytes: number): SmallDisk {
    const path = mkdtempSync(join(tmpdir(), "cjm-disk-"));
    mount("-t", "tmpfs", "-o", `size=${megabytes}m,mode=0700`, "none", path);
    return new SmallDisk(path);
  }

  /** Leaves no room for another byte. */
  fill(): void {
    const { bavail, bsize } = statfsSync(this.path);
    writeFileSync(join(this.path, "filler"), Buffer.alloc(bavail * bsize));
  }

  /** The same disk at another path, where nothing can be written. */
  readOnly(): string {
    const view = `${this.path}-read-only`;
    mkdirSync(view);
    mount("--bind", this.path, view);
    this.#views.push(view);
    mount("-o", "remount,bind,ro", view);
    return view;
  }

  [Symbol.dispose](): void {
    for (const path of [...this.#views, this.path]) {
      spawnSync("umount", ["-l", path]);
      rmdirSync(path);
    }
  }
}

function mount(...args: readonly string[]): void {
  const { status, stderr } = spawnSync("mount", args, { encoding: "utf8" });
  if (status !== 0) throw new Error(`mount ${args.join(" ")}: ${stderr}`);
}

/** True for root on a machine that lets it mount. */
export function canMount(): boolean {
  if (process.getuid?.() !== 0) return false;
  try {
    SmallDisk.mount(1)[Symbol.dispose]();
    return true;
  } catch {
    return false;
  }
}
