import { execFileSync } from "node:child_process";
import {
  closeSync,
  constants,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** Both ends of a pipe or a file, open. */
export interface PipePair {
  readonly readFd: number;
  readonly writeFd: number;
}

const PIPES_PER_SLOT = ["out", "err"] as const;
type PipeName = (typeof PIPES_PER_SLOT)[number];

/** Named pipes that one jail at a time uses. */
export class PipeSlot {
  readonly #folder: string;

  constructor(folder: string) {
    this.#folder = folder;
  }

  /**
   * Opens both ends. A pipe and not a socket pair, because a guest may open `/dev/stdout` by name.
   */
  open(name: PipeName): PipePair {
    const path = join(this.#folder, name);
    const readFd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
    return { readFd, writeFd: openSync(path, constants.O_WRONLY) };
  }
}

/** The worker's private folder for what jails need for a moment. Dispose of it at the end. */
export class Scratch implements Disposable {
  readonly folder: string;
  /** Descriptors over 2 that this process passes on to every child. */
  readonly inheritedFds: readonly number[] = inheritedDescriptors();
  readonly #free: PipeSlot[] = [];
  #slots = 0;
  #files = 0;

  readonly #aliveFd: number;

  private constructor(folder: string) {
    this.folder = folder;
    const path = join(folder, ALIVE);
    makePipes([path], "0600");
    this.#aliveFd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  }

  /** Makes a folder, and removes those of workers that were killed. */
  static create(parent: string = tmpdir(), staleMs: number = STALE_MS): Scratch {
    for (const name of readdirSync(parent)) {
      const path = join(parent, name);
      if (name.startsWith(PREFIX) && isAbandoned(path, staleMs)) {
        rmSync(path, { recursive: true, force: true });
      }
    }
    return new Scratch(mkdtempSync(join(parent, PREFIX)));
  }

  takeSlot(): PipeSlot {
    return this.#free.pop() ?? this.#newSlot();
  }

  returnSlot(slot: PipeSlot): void {
    this.#free.push(slot);
  }

  /** A file that has no name any more; the caller closes both ends. */
  anonymousFile(): PipePair {
    this.#files += 1;
    const path = join(this.folder, `file-${this.#files}`);
    // Readable by the guest, who may open it again by way of /dev/stdin.
    const writeFd = openSync(path, "wx", 0o444);
    const readFd = openSync(path, "r");
    rmSync(path);
    return { readFd, writeFd };
  }

  /** Descriptor of a file with that content and no name; the caller closes it. */
  fileWith(content: string): number {
    const { readFd, writeFd } = this.anonymousFile();
    writeFileSync(writeFd, content);
    closeSync(writeFd);
    return readFd;
  }

  /** A file that stays, for what every jail reads. */
  keepFile(name: string, content: string | Uint8Array): string {
    const path = join(this.folder, name);
    writeFileSync(path, content);
    return path;
  }

  [Symbol.dispose](): void {
    closeSync(this.#aliveFd);
    rmSync(this.folder, { recursive: true, force: true });
  }

  #newSlot(): PipeSlot {
    this.#slots += 1;
    const folder = join(this.folder, `slot-${this.#slots}`);
    mkdirSync(folder);
    const paths = PIPES_PER_SLOT.map((name) => join(folder, name));
    makePipes(paths, "0666");
    return new PipeSlot(folder);
  }
}

/** Node has no call for it. */
function makePipes(paths: readonly string[], mode: string): void {
  const PATH = `${process.env["PATH"] ?? ""}:/usr/bin:/bin`;
  execFileSync("mkfifo", ["-m", mode, ...paths], { env: { PATH } });
}

const PREFIX = "cjm-sandbox-";
/** A pipe that the owner reads from: the kernel closes it at its death, in whatever PID namespace. */
const ALIVE = "alive";
/** Younger folders may still be in the making. */
const STALE_MS = 60_000;

function isAbandoned(folder: string, staleMs: number): boolean {
  try {
    if (Date.now() - statSync(folder).ctimeMs < staleMs) return false;
    closeSync(openSync(join(folder, ALIVE), constants.O_WRONLY | constants.O_NONBLOCK));
    return false;
  } catch (error) {
    // No reader.
    return error instanceof Error && "code" in error && error.code === "ENXIO";
  }
}

const O_CLOEXEC = 0o2_000_000;

function inheritedDescriptors(): number[] {
  return readdirSync("/proc/self/fdinfo")
    .map(Number)
    .filter((fd) => fd > 2 && !isClosedOnExec(fd));
}

function isClosedOnExec(fd: number): boolean {
  try {
    const text = readFileSync(`/proc/self/fdinfo/${fd}`, "latin1");
    const flags = /^flags:\s*(?<octal>[0-7]+)/mu.exec(text)?.groups?.["octal"] ?? "0";
    return (Number.parseInt(flags, 8) & O_CLOEXEC) !== 0;
  } catch {
    // The folder's own descriptor, closed by now.
    return true;
  }
}

export function closeAll(fds: readonly number[]): void {
  for (const fd of fds) closeSync(fd);
}
