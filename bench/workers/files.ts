/** Passes a large file on: makes one, or copies the one it is given. */
import { copyFile, open } from "node:fs/promises";
import { join } from "node:path";
import { defineCapability, fileRef, fileRefSchema, serve, z } from "cjm-substrate/worker";

const CHUNK = Buffer.alloc(1 << 20, "large result ");

await serve(
  defineCapability({
    name: "files",
    version: "1.0.0",
    config: z.object({}),
    actions: {
      make: {
        input: z.object({ mib: z.int().positive() }),
        output: fileRefSchema,
        handler: async ({ mib }, call) => {
          const path = join(call.outputFolder, "made.bin");
          const file = await open(path, "w");
          for (let written = 0; written < mib; written += 1) await file.write(CHUNK);
          await file.close();
          return await fileRef(path);
        },
      },
      copy: {
        input: z.object({ file: fileRefSchema }),
        output: fileRefSchema,
        handler: async ({ file }, call) => {
          const path = join(call.outputFolder, "copy.bin");
          await copyFile(fileRefSchema.parse(file).data.path, path);
          return await fileRef(path);
        },
      },
    },
  }),
);
