export { CjmError } from "./errors/index.ts";
