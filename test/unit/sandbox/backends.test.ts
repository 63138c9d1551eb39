import { describe, expect, test } from "vitest";
import { bubblewrapBackend, bubblewrapOptions } from "../../../workers/sandbox/bubblewrap.ts";
import { guestCommand } from "../../../workers/sandbox/jail-init.ts";
import { nsjailConfig } from "../../../workers/sandbox/nsjail.ts";
import type { JailPolicy } from "../../../workers/sandbox/policy.ts";

const policy: JailPolicy = {
  identity: "setuid",
  argv: ["echo", "it's"],
  env: { NAME: 'va"lue' },
  limits: { wallMs: 1, cpuMs: 1_500, memoryMb: 64, pids: 8, outputBytes: 1, diskMb: 2 },
  mounts: [
    { kind: "ro", source: "/opt/with space", target: "/opt/python" },
    { kind: "tmpfs", target: "/work", mode: "1777" },
    { kind: "symlink", source: "usr/bin", target: "/bin" },
  ],
};

/** Every value that follows an option. */
const valuesOf = (options: readonly string[], name: string): string[] =>
  options.flatMap((option, index) => (option === name ? [options[index + 1] ?? ""] : []));

describe("bubblewrap", () => {
  test("gets the policy's mounts, limits and identity", () => {
    const options = bubblewrapOptions(policy);
    expect(valuesOf(options, "--ro-bind")).toEqual(["/opt/with space"]);
    expect(valuesOf(options, "--size")).toEqual(["2097152"]);
    expect(valuesOf(options, "--cap-drop")).toEqual(["ALL"]);
    expect(valuesOf(options, "--setenv")).toEqual(["PATH"]);
    expect(options).not.toContain("--unshare-user");
    expect(valuesOf(bubblewrapOptions({ ...policy, identity: "userns" }), "--uid")).toEqual([
      "65534",
    ]);
  });

  test("never has the policy in its arguments, where the guest could read host paths", () => {
    const { args, optionFile } = bubblewrapBackend("bwrap", "1").launch(policy);
    expect(args.join(" ")).not.toContain("/opt/with space");
    expect(optionFile).toContain("/opt/with space");
  });

  test("makes parents of a target open to the guest", () => {
    expect(valuesOf(bubblewrapOptions(policy), "--dir")).toEqual(["/opt"]);
  });
});

describe("nsjail", () => {
  const config = nsjailConfig(policy, "x64");

  test("gets the policy's mounts and identity", () => {
    expect(config).toContain(
      'mount { src: "/opt/with space" dst: "/opt/python" is_bind: true rw: false',
    );
    expect(config).toContain('options: "size=2097152,mode=1777"');
    expect(config).toContain("clone_newuser: false");
    expect(nsjailConfig({ ...policy, identity: "userns" }, "x64")).toContain('inside_id: "65534"');
  });

  test("quotes what its text form would take for syntax", () => {
    expect(config).toContain(String.raw`system(ENVIRON[\"GATE\"])`);
  });
});

test("the guest's command is one line, whatever its words and variables hold", () => {
  const command = guestCommand({ ...policy, argv: ["echo", "it's", "two\nlines"] }, true);
  expect(command).not.toContain("\n");
  expect(command).toContain(String.raw`env -i 'NAME=va"lue' echo 'it'\''s' 'two'"$LINE"'lines' `);
});
