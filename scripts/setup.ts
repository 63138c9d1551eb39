/**
 * Brings what the system lacks: bubblewrap for the sandbox, and a Python that can make virtual
 * environments. Installs with the system's package manager where it may, and says so; otherwise
 * prints the one command to run and ends with a code that is not 0.
 */
import { spawnSync } from "node:child_process";

interface Need {
  readonly what: string;
  readonly isThere: () => boolean;
  readonly packages: Readonly<Record<string, readonly string[]>>;
}

const NEEDS: readonly Need[] = [
  {
    what: "bubblewrap (jails for untrusted code)",
    isThere: () => runs("bwrap", "--version"),
    packages: { "apt-get": ["bubblewrap"], dnf: ["bubblewrap"], pacman: ["bubblewrap"] },
  },
  {
    what: "Python 3 with venv",
    isThere: () => runs("python3", "-c", "import venv, ensurepip"),
    packages: { "apt-get": ["python3", "python3-venv"], dnf: ["python3"], pacman: ["python"] },
  },
];

const INSTALL: Readonly<Record<string, readonly (readonly string[])[]>> = {
  "apt-get": [
    ["apt-get", "update"],
    ["apt-get", "install", "-y", "--no-install-recommends"],
  ],
  dnf: [["dnf", "install", "-y"]],
  pacman: [["pacman", "-Sy", "--noconfirm"]],
};

function runs(file: string, ...args: readonly string[]): boolean {
  return spawnSync(file, args, { stdio: "ignore" }).status === 0;
}

/** What to put before a command that needs root; undefined where it cannot be had without asking. */
function elevation(): readonly string[] | undefined {
  if (process.getuid?.() === 0) return [];
  return runs("sudo", "-n", "true") ? ["sudo", "-n"] : undefined;
}

function install(missing: readonly Need[]): boolean {
  const manager = Object.keys(INSTALL).find((name) => runs(name, "--version"));
  const packages = missing.flatMap((need) => need.packages[manager ?? ""] ?? []);
  const steps = (INSTALL[manager ?? ""] ?? []).map((step, index, all) =>
    index === all.length - 1 ? [...step, ...packages] : step,
  );
  const before = elevation();
  if (manager === undefined || before === undefined) {
    const command = steps.map((step) => `sudo ${step.join(" ")}`).join(" && ");
    console.error(`Run this, then try again: ${command || "install the packages named above"}`);
    return false;
  }
  for (const step of steps) {
    const [file = "", ...args] = [...before, ...step];
    console.log(`> ${[file, ...args].join(" ")}`);
    const { status } = spawnSync(file, args, { stdio: ["ignore", "inherit", "inherit"] });
    if (status !== 0) return false;
  }
  return true;
}

const missing = NEEDS.filter((need) => !need.isThere());
if (missing.length > 0) {
  console.log(`Missing: ${missing.map(({ what }) => what).join(", ")}`);
  const isInstalled = install(missing) && missing.every((need) => need.isThere());
  if (!isInstalled) process.exitCode = 1;
}
