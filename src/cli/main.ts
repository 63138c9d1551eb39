#!/usr/bin/env node
// This file is what an unsuitable Node reads first, so it uses and imports nothing that is new.
const [major = "0"] = process.versions.node.split(".");
if (Number(major) < 24) {
  process.stderr.write(
    `cjm-ctl needs Node 24 or newer; this is ${process.versions.node}. Use "npx cjm-ctl" in the project, which brings its own.\n`,
  );
  process.exitCode = 1;
} else {
  const { enableCompileCache } = await import("node:module");
  enableCompileCache();
  const { runProgram } = await import("./program.ts");
  process.exitCode = await runProgram(process.argv.slice(2));
}
