import { defineAction } from "cjm-substrate/worker";
import { refuse } from "../fault.ts";
import type { Service } from "../service.ts";
import { modelCardSchema } from "../task/schemas.ts";
import { download } from "./download.ts";
import { convertAdapterAction, convertModelAction, listModels, modelInfo } from "./models.ts";
import {
  convertAdapterInputSchema,
  convertModelInputSchema,
  convertOutputSchema,
  downloadInputSchema,
  downloadOutputSchema,
  emptySchema,
  endpointOutputSchema,
  listModelsOutputSchema,
  modelInfoInputSchema,
  profilesOutputSchema,
  statusOutputSchema,
} from "./schemas.ts";

interface ManagementActions {
  readonly status: ReturnType<typeof makeStatus>;
  readonly list_models: ReturnType<typeof makeListModels>;
  readonly model_info: ReturnType<typeof makeModelInfo>;
  readonly download_model: ReturnType<typeof makeDownload>;
  readonly convert_model: ReturnType<typeof makeConvertModel>;
  readonly convert_adapter: ReturnType<typeof makeConvertAdapter>;
  readonly profiles: ReturnType<typeof makeProfiles>;
  readonly endpoint: ReturnType<typeof makeEndpoint>;
}

/** Models, the engine's state and the OpenAI endpoint, as actions. */
export function managementActions(service: Service): ManagementActions {
  return {
    status: makeStatus(service),
    list_models: makeListModels(service),
    model_info: makeModelInfo(service),
    download_model: makeDownload(service),
    convert_model: makeConvertModel(),
    convert_adapter: makeConvertAdapter(service),
    profiles: makeProfiles(service),
    endpoint: makeEndpoint(service),
  };
}

const makeStatus = (service: Service) =>
  defineAction({
    description: "What the engine holds now.",
    input: emptySchema,
    output: statusOutputSchema,
    handler: () => {
      const { engine } = service;
      const status = engine.status();
      return {
        ...status,
        adapters: [...status.adapters],
        engine: engine.name,
        engine_version: engine.version,
        parameters: [...engine.parameters],
        release_levels: [...engine.releaseLevels],
      };
    },
  });

const makeListModels = (service: Service) =>
  defineAction({
    description: "The GGUF models in the models folders.",
    input: emptySchema,
    output: listModelsOutputSchema,
    handler: () => listModels(service.modelFolders),
  });

const makeModelInfo = (service: Service) =>
  defineAction({
    description: "What a model says of itself; it is not loaded.",
    input: modelInfoInputSchema,
    output: modelCardSchema,
    handler: ({ path }) => modelInfo(service, path),
  });

const makeDownload = (service: Service) =>
  defineAction({
    description: "Fetches a model file into the models folder; continues an interrupted attempt.",
    input: downloadInputSchema,
    output: downloadOutputSchema,
    handler: (request, { signal, progress }) =>
      download(service.modelsFolder, request, { signal, progress }),
  });

const makeConvertModel = () =>
  defineAction({
    description: "Converts a Llama-family checkpoint of safetensors to GGUF.",
    repeatable: true,
    input: convertModelInputSchema,
    output: convertOutputSchema,
    handler: convertModelAction,
  });

const makeConvertAdapter = (service: Service) =>
  defineAction({
    description: "Converts a PEFT LoRA adapter of a Llama-family model to GGUF.",
    input: convertAdapterInputSchema,
    output: convertOutputSchema,
    handler: (request, call) => convertAdapterAction(service, request, call),
  });

const makeProfiles = (service: Service) =>
  defineAction({
    description: "Measured loads: threads, time and memory by model, context, slots and adapters.",
    input: emptySchema,
    output: profilesOutputSchema,
    handler: () => ({ profiles: [...service.profiles] }),
  });

const makeEndpoint = (service: Service) =>
  defineAction({
    description: "Where the OpenAI API is served.",
    input: emptySchema,
    output: endpointOutputSchema,
    handler: () => {
      const { endpoint } = service;
      if (endpoint !== undefined) return { url: endpoint.url, key_file: endpoint.keyFile };
      throw refuse("endpoint_off", "The endpoint is off: set `endpoint` in the config");
    },
  });
