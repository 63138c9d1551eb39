import { CjmError } from "cjm-substrate/worker";

/** A caller asked the registry for what it cannot do. */
class AdapterRegistryError extends CjmError {
  override readonly name: string = "AdapterRegistryError";

  constructor(message: string, details: Readonly<Record<string, unknown>>) {
    super("CAPABILITY_INPUT", message, { details });
  }
}

/** The id, or the content, is stored already; nothing was written. */
export class AdapterAlreadyExistsError extends AdapterRegistryError {
  override readonly name = "AdapterAlreadyExistsError";
}

/** No adapter has this id. */
export class AdapterNotFoundError extends AdapterRegistryError {
  override readonly name = "AdapterNotFoundError";

  constructor(id: string) {
    super(`There is no adapter "${id}" in the registry`, { id });
  }
}

/** The folder is no LoRA adapter, or not the one that was promised. */
export class AdapterInvalidError extends AdapterRegistryError {
  override readonly name = "AdapterInvalidError";
}
