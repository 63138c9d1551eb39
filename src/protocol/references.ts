import { z } from "zod";

export const sha256Schema = z.string().regex(/^sha256:[0-9a-f]{64}$/u, "expected sha256:<64 hex>");

const fileRefDataSchema = z.object({
  path: z.string(),
  size: z.int().nonnegative(),
  sha256: sha256Schema,
  media_type: z.string().optional(),
});
/** A file by content: a hash first; the path is where this machine has it. */
export const fileRefSchema = z.object({
  __wire__: z.literal("file.ref"),
  data: fileRefDataSchema,
});
export type FileRef = z.output<typeof fileRefSchema>;

const dirRefDataSchema = z.object({
  path: z.string(),
  /**
   * Hash of the lines `"<sha256> <size> <name>"`, one per file, each ended by a newline, hashes as
   * `sha256:<hex>`, sorted by UTF-16 code units.
   */
  sha256: sha256Schema,
  files: z.array(z.object({ name: z.string(), size: z.int().nonnegative(), sha256: sha256Schema })),
});
/** A folder of regular files by content; names are relative with `/` separators. */
export const dirRefSchema = z.object({ __wire__: z.literal("dir.ref"), data: dirRefDataSchema });
export type DirRef = z.output<typeof dirRefSchema>;
