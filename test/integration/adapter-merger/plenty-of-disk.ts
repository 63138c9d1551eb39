import fs from "node:fs/promises";
import { syncBuiltinESMExports } from "node:module";

/**
 * Takes away the check before a merge, as a neighbour does that fills the disk after it: the merge
 * then meets the full disk while it writes.
 */
const { statfs } = fs;
fs.statfs = ((_: string, options?: never) => statfs("/", options)) as typeof fs.statfs;
syncBuiltinESMExports();
