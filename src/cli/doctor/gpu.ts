import { constants } from "node:fs";
import { access, readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { type Examination, type Finding, failed, ok, warning } from "./check.ts";

const PCI = "/sys/bus/pci/devices";
const NVIDIA = "0x10de";
const AMD = "0x1002";

/** What the drivers show of themselves in files; nothing here calls into one, since that can hang. */
export const GPU_EXAMINATION: Examination = { name: "gpu", look: lookAtGpus };

async function lookAtGpus(): Promise<readonly Finding[]> {
  if (process.platform !== "linux") {
    return [ok(`not looked for on ${process.platform}`)];
  }
  const [vendors, nvidiaVersion] = await Promise.all([
    displayVendors(),
    readFile("/proc/driver/nvidia/version", "utf8").catch(() => ""),
  ]);
  const findings: Finding[] = [];
  if (vendors.has(NVIDIA) || nvidiaVersion !== "") findings.push(await nvidia(nvidiaVersion));
  if (vendors.has(AMD) && (await exists("/sys/class/kfd"))) findings.push(await amd());
  return findings.length === 0 ? [ok("none found; capabilities that need none work")] : findings;
}

async function nvidia(version: string): Promise<Finding> {
  if (version === "") {
    return failed(
      "there is an NVIDIA GPU, but its driver is not loaded",
      "install the NVIDIA driver and restart, or: sudo modprobe nvidia",
    );
  }
  const number = /\s(?<number>\d+\.\d+(?:\.\d+)?)\s/u.exec(version)?.groups?.["number"] ?? "?";
  const driver = `NVIDIA driver ${number}`;
  const devices = (await readdir("/dev")).filter((name) => /^nvidia\d+$/u.test(name));
  if (devices.length === 0) {
    return failed(
      `${driver}, but there is no /dev/nvidia0`,
      "sudo nvidia-modprobe -c 0; in a container, give it the GPU (--gpus all)",
    );
  }
  for (const name of ["nvidia-uvm", "nvidiactl", ...devices]) {
    const path = join("/dev", name);
    const problem = await deviceProblem(path);
    if (problem === undefined) continue;
    const fix =
      name === "nvidia-uvm"
        ? "sudo nvidia-modprobe -u -c 0; CUDA cannot start without it, though nvidia-smi works"
        : `let this user read and write ${path} (the group of the file, or a udev rule)`;
    return failed(`${driver}, but ${path} ${problem}`, fix);
  }
  return ok(`${driver}, ${devices.length === 1 ? "1 GPU" : `${devices.length} GPUs`}`);
}

async function amd(): Promise<Finding> {
  const problem = await deviceProblem("/dev/kfd");
  if (problem === undefined) return ok("amdgpu driver with /dev/kfd");
  return warning(
    `there is an AMD GPU, but /dev/kfd ${problem}`,
    "install ROCm's kernel driver and add this user to the groups render and video",
  );
}

async function deviceProblem(path: string): Promise<string | undefined> {
  if (!(await exists(path))) return "is missing";
  const mode = constants.R_OK | constants.W_OK;
  return access(path, mode).then(
    () => undefined,
    () => "may not be opened by this user",
  );
}

/** PCI vendors of the display controllers. */
async function displayVendors(): Promise<ReadonlySet<string>> {
  const names = await readdir(PCI).catch(() => []);
  const vendors = await Promise.all(
    names.map(async (name) => {
      const text = (file: string): Promise<string> =>
        readFile(join(PCI, name, file), "utf8").catch(() => "");
      const [kind, vendor] = await Promise.all([text("class"), text("vendor")]);
      return kind.startsWith("0x03") ? [vendor.trim()] : [];
    }),
  );
  return new Set(vendors.flat());
}

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}
