import { spawnSync } from "node:child_process";
import {
  mkdtempSync,
  readdirSync,
  readlinkSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";

const MEGABYTES = 32;

/**
 * An ext4 file system in a file, that can be made to meet an error: the kernel then makes it read-only
 * under whoever writes to it, as it does with a disk that dies. Unmounted when the scope is left.
 */
export class FragileDisk implements Disposable {
  readonly path: string;
  readonly #folder: string;
  #image: string;
  #repairs = 0;

  private constructor(folder: string) {
    this.#folder = folder;
    this.#image = join(folder, "image");
    this.path = join(folder, "disk");
  }

  /** @throws where this user may not mount one; see {@link canMountFragile}. */
  static mount(): FragileDisk {
    const disk = new FragileDisk(mkdtempSync(join(tmpdir(), "cjm-fragile-")));
    try {
      writeFileSync(disk.#image, "");
      truncateSync(disk.#image, MEGABYTES * 1024 * 1024);
      run("mkfs.ext4", "-q", "-F", "-m", "0", disk.#image);
      run("mkdir", disk.path);
      disk.#mount();
      return disk;
    } catch (error) {
      disk[Symbol.dispose]();
      throw error;
    }
  }

  /** Writing anything into this file is the error. */
  get trigger(): string {
    return triggerOf(this.path);
  }

  /** From now on nothing can be written. */
  die(): void {
    writeFileSync(this.trigger, "1");
  }

  /**
   * What an administrator does: unmount, check, mount again. What was not on the disk is lost. It is a
   * copy that is checked and mounted: others may have copied the dead one into their mount namespaces.
   */
  repair(): void {
    run("umount", "--lazy", this.path);
    this.#repairs += 1;
    const copy = join(this.#folder, `image-${this.#repairs}`);
    run("cp", "--sparse=always", this.#image, copy);
    this.#image = copy;
    run("e2fsck", "-p", "-f", copy);
    this.#mount();
  }

  [Symbol.dispose](): void {
    spawnSync("umount", ["-l", this.path]);
    rmSync(this.#folder, { recursive: true, force: true });
  }

  #mount(): void {
    run("mount", "-o", "loop,errors=remount-ro", this.#image, this.path);
    statSync(this.trigger);
  }
}

/** Of the block device that is mounted there. */
function triggerOf(path: string): string {
  const { dev } = statSync(path);
  const [major, minor] = [(dev >> 8) & 0xfff, (dev & 0xff) | ((dev >> 12) & 0xfff00)];
  const device = basename(readlinkSync(`/sys/dev/block/${major}:${minor}`));
  return `/sys/fs/ext4/${device}/trigger_fs_error`;
}

function run(file: string, ...args: readonly string[]): void {
  const { status, stderr, error } = spawnSync(file, args, { encoding: "utf8" });
  if (error !== undefined) throw error;
  // 1 of e2fsck: errors were corrected.
  if (status !== 0 && !(file === "e2fsck" && status === 1)) {
    throw new Error(`${file} ${args.join(" ")}: ${stderr}`);
  }
}

/** True for root on a machine with ext4, its tools and loop devices. */
export function canMountFragile(): boolean {
  if (process.getuid?.() !== 0) return false;
  try {
    using disk = FragileDisk.mount();
    writeFileSync(join(disk.path, "file"), "");
    return readdirSync(disk.path).includes("file");
  } catch {
    return false;
  }
}
