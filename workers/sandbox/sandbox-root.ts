import {
  existsSync,
  lstatSync,
  mkdirSync,
  readlinkSync,
  realpathSync,
  writeFileSync,
  cpSync,
} from "node:fs";
import { join } from "node:path";
import { safeSegments } from "./beneath.ts";
import { INPUT_FOLDER, NOBODY, TMPFS_FOLDERS, type Mount } from "./policy.ts";

/** What of the host's file system every guest sees, read-only. */
const SYSTEM_FOLDERS = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"];
/** Parts of /etc that programs need to start; the rest is made. */
const ETC_FROM_HOST = [
  "/etc/alternatives",
  "/etc/ld.so.cache",
  "/etc/ld.so.conf",
  "/etc/ld.so.conf.d",
  "/etc/localtime",
  "/etc/mime.types",
  "/etc/protocols",
  "/etc/services",
];

const ETC_FILES: Readonly<Record<string, string>> = {
  passwd: `root:x:0:0:root:/nonexistent:/usr/sbin/nologin\nnobody:x:${NOBODY}:${NOBODY}:nobody:/work:/bin/sh\n`,
  group: `root:x:0:\nnogroup:x:${NOBODY}:\n`,
  hosts: "127.0.0.1 localhost sandbox\n::1 localhost sandbox\n",
  "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
  "host.conf": "multi on\n",
};

/** Makes the guest's /etc in a folder of ours. */
export function writeEtc(folder: string): string {
  mkdirSync(folder, { mode: 0o755 });
  for (const [name, content] of Object.entries(ETC_FILES)) {
    writeFileSync(join(folder, name), content, { mode: 0o644 });
  }
  for (const path of ETC_FROM_HOST) {
    if (existsSync(path)) cpSync(path, join(folder, path.slice("/etc/".length)), COPY);
  }
  return folder;
}

const COPY = { recursive: true, verbatimSymlinks: true, dereference: false } as const;

/** The mounts of every jail: system folders, /etc, private writable folders. */
export function systemMounts(etcFolder: string): Mount[] {
  return [
    ...SYSTEM_FOLDERS.flatMap((path) => systemMount(path)),
    { kind: "ro", source: etcFolder, target: "/etc" },
    ...TMPFS_FOLDERS.map((target): Mount => ({ kind: "tmpfs", target, mode: "1777" })),
  ];
}

function systemMount(path: string): Mount[] {
  if (!existsSync(path)) return [];
  if (lstatSync(path).isSymbolicLink()) {
    return [{ kind: "symlink", source: readlinkSync(path), target: path }];
  }
  return [{ kind: "ro", source: path, target: path }];
}

/** Mounts that make a file or folder outside the system folders visible. */
export function programMount(path: string): Mount[] {
  const real = realpathSync(path);
  if (isSystemPath(real)) return [];
  return [{ kind: "ro", source: real, target: guestPath(real) }];
}

/** Folders of a jail that are its own; what the host has there is shown elsewhere. */
const PRIVATE_FOLDERS = [...TMPFS_FOLDERS, INPUT_FOLDER, "/dev", "/proc", "/etc"];

/** Where a guest sees a path of the host: the same, unless a private folder hides it. */
export function guestPath(path: string): string {
  const isHidden = PRIVATE_FOLDERS.some((folder) => path.startsWith(`${folder}/`));
  return isHidden ? `/opt/host${path}` : path;
}

export function isSystemPath(path: string): boolean {
  return SYSTEM_FOLDERS.some((folder) => path === folder || path.startsWith(`${folder}/`));
}

/** A caller's folder, read-only below the input folder. */
export function inputMount(name: string, source: string): Mount {
  const target = join(INPUT_FOLDER, ...safeSegments(name));
  return { kind: "ro", source: realpathSync(source), target };
}
