/** This machine as manifests name it, such as `linux-x64`. */
export function currentPlatform(
  platform: NodeJS.Platform = process.platform,
  architecture: string = process.arch,
): string {
  return `${platform === "win32" ? "win" : platform}-${architecture}`;
}
