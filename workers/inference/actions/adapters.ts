import { defineAction } from "cjm-substrate/worker";
import type { Service } from "../service.ts";
import {
  listAdaptersInputSchema,
  listAdaptersOutputSchema,
  loadAdapterInputSchema,
  loadAdapterOutputSchema,
  unloadAdapterInputSchema,
  unloadAdapterOutputSchema,
} from "../task/schemas.ts";

interface AdapterActions {
  readonly list_adapters: ReturnType<typeof makeList>;
  readonly load_adapter: ReturnType<typeof makeLoad>;
  readonly unload_adapter: ReturnType<typeof makeUnload>;
}

/** The adapter methods of task `text-generation`, as actions. */
export function adapterActions(service: Service): AdapterActions {
  return {
    list_adapters: makeList(service),
    load_adapter: makeLoad(service),
    unload_adapter: makeUnload(service),
  };
}

const makeList = (service: Service) =>
  defineAction({
    description: "The LoRA adapters that calls can name.",
    input: listAdaptersInputSchema,
    output: listAdaptersOutputSchema,
    handler: () => ({ adapters: [...service.adapters.all()] }),
  });

const makeLoad = (service: Service) =>
  defineAction({
    description: "Gives a LoRA adapter a name, and measures what it does to the model.",
    input: loadAdapterInputSchema,
    output: loadAdapterOutputSchema,
    handler: (request, { signal, progress }) => service.loadAdapter(request, { signal, progress }),
  });

const makeUnload = (service: Service) =>
  defineAction({
    description: "Takes a LoRA adapter's name away; the base answers as before.",
    input: unloadAdapterInputSchema,
    output: unloadAdapterOutputSchema,
    handler: ({ id }) => service.unloadAdapter(id),
  });
