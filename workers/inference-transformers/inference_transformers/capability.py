"""The capability: its configuration, its actions, and the same methods as a typed task."""

import os
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Callable, Iterator, List, Literal, Optional, Union

from cjm_worker import Call, Capability, CapabilityInputError, ReleaseReply, TaskAdapter, action

from .engine import Engine
from .fields import (
    AdapterList,
    AdapterUse,
    Delta,
    Done,
    Embeddings,
    Generation,
    Limits,
    LoadedAdapter,
    Message,
    ModelCard,
    Parameters,
    Score,
    Sha256,
    Source,
    Status,
    Text,
    TokenCount,
    UnloadedAdapter,
    takes_parameters,
)
from .profiles import Profile
from .registry import registry_folder
from .service import Input, Service

#: Calls beyond the slots wait in the engine, where they cost nothing.
MAX_CALLS = 128
Messages = Annotated[
    List[Message], Limits({"minItems": 1}), "Conversation, for the model's template."
]


def _either(prompt: Optional[str], messages: Optional[List[Message]], name: str) -> Input:
    given = [value for value in (prompt, messages) if value is not None]
    if len(given) != 1:
        raise CapabilityInputError(f"expected either {name} or messages", fields_invalid=[name])
    return given[0]


def _service(owner: Any) -> Service:
    """Of the capability, or of the one a task adapter is bound to."""
    service: Service = getattr(owner, "tool", owner)._service
    return service


@takes_parameters
def generate(
    self: Any,
    prompt: Annotated[str, "Text to continue, as it is."],
    call: Call,
    parameters: Parameters,
) -> Generation:
    """Continues a text."""
    return _service(self).generate(prompt, parameters, call)


@takes_parameters
def chat(self: Any, messages: Messages, call: Call, parameters: Parameters) -> Generation:
    """Answers a conversation, by the model's own chat template."""
    return _service(self).generate(messages, parameters, call)


@takes_parameters
def stream(
    self: Any,
    call: Call,
    prompt: Optional[str] = None,
    messages: Optional[Messages] = None,
    *,
    parameters: Parameters,
) -> Iterator[Union[Delta, Done]]:
    """Gives the text as it is made, and the whole result at last."""
    yield from _service(self).stream(_either(prompt, messages, "prompt"), parameters, call)


def embed(
    self: Any,
    input: Union[str, Annotated[List[str], Limits({"minItems": 1, "maxItems": 2048})]],
    call: Call,
    normalize: Annotated[bool, "Scale each vector to length 1."] = True,
) -> Embeddings:
    """Gives each text as a vector: the mean of the model's last hidden states."""
    texts = [input] if isinstance(input, str) else input
    return _service(self).embed(texts, normalize, call)


def score(
    self: Any,
    prompt: str,
    call: Call,
    top: Annotated[
        int, Limits({"minimum": 0, "maximum": 200_000}), "Alternatives per position."
    ] = 0,
    adapters: Annotated[Optional[List[AdapterUse]], Limits({"maxItems": 8})] = None,
) -> Score:
    """Gives the log-probabilities of a text, token by token."""
    Parameters(adapters=adapters)
    return _service(self).score(prompt, top, adapters, call)


def count_tokens(
    self: Any, call: Call, text: Optional[str] = None, messages: Optional[Messages] = None
) -> TokenCount:
    """Counts the tokens of a text or of a conversation's prompt."""
    return TokenCount(_service(self).count_tokens(_either(text, messages, "text"), call))


def list_adapters(self: Any) -> AdapterList:
    """Lists the adapters that have a name."""
    return AdapterList(_service(self).list_adapters())


def load_adapter(
    self: Any,
    id: Annotated[
        str, Limits({"pattern": "^[A-Za-z0-9][A-Za-z0-9._:-]{0,199}$"}), "Name for calls to use."
    ],
    call: Call,
    *,
    path: Annotated[Optional[Source], "A PEFT folder."] = None,
    registry_id: Annotated[Optional[Text], "An adapter of the registry."] = None,
    sha256: Annotated[Optional[Sha256], "Refuse the adapter if its content differs."] = None,
) -> LoadedAdapter:
    """Gives a LoRA adapter a name, puts it into the model and measures what it changes."""
    if (path is None) == (registry_id is None):
        raise CapabilityInputError("expected either path or registry_id", fields_invalid=["path"])
    source = AdapterUse(path=path, registry_id=registry_id, sha256=sha256)
    return LoadedAdapter(*_service(self).load_adapter(id, source, call))


def unload_adapter(self: Any, id: Text, call: Call) -> UnloadedAdapter:
    """Takes a named adapter out; without it the base answers as before."""
    return UnloadedAdapter(id, *_service(self).unload_adapter(id, call))


class TextGeneration(TaskAdapter):
    """Task ``text-generation``: all methods that answer once."""

    task_name = "text-generation"
    requires = ("generate", "chat", "embed", "score", "count_tokens")

    generate = generate
    chat = chat
    embed = embed
    score = score
    count_tokens = count_tokens
    list_adapters = list_adapters
    load_adapter = load_adapter
    unload_adapter = unload_adapter


def _setting(default: Any, description: str, **more: Any) -> Any:
    return field(default=default, metadata={"description": description, **more})


def _model_setting(default: Any, description: str, **more: Any) -> Any:
    return _setting(default, description, reload_trigger="model", **more)


def _as_action(method: Callable[..., Any], **options: Any) -> Any:
    return action(method, **options) if not options else action(**options)(method)


@dataclass(frozen=True)
class ProfileList:
    profiles: List[Profile]


class InferenceTransformers(Capability):
    """Generates text with transformers and peft: many LoRA adapters on one base, in one batch."""

    name = "inference-transformers"
    version = "0.1.0"
    tasks = (TextGeneration,)
    max_concurrent_requests = MAX_CALLS

    @dataclass
    class Config:
        model: Optional[str] = _model_setting(
            None, "Folder with config.json and safetensors.", format="cjm-dir"
        )
        device: Literal["auto", "cpu", "cuda"] = _model_setting(
            "auto", "auto: cuda if there is one."
        )
        dtype: Literal["auto", "float32", "bfloat16", "float16"] = _model_setting(
            "auto", "auto: bfloat16 where CUDA supports it, else float32."
        )
        quantization: Literal["none", "nf4", "fp4"] = _model_setting(
            "none", "4-bit base by bitsandbytes."
        )
        context: Optional[int] = _model_setting(
            None, "Most tokens of prompt and text; null: as many as the model knows.", minimum=16
        )
        parallel: int = _model_setting(
            32, "Texts generated at once; more calls wait.", minimum=1, maximum=512
        )
        prefill_chunk: int = _model_setting(
            512, "Tokens of prompts read between two passes of the batch.", minimum=16
        )
        max_adapters: int = _model_setting(
            16, "Adapters kept in memory; beyond it idle ones are taken out.", minimum=1
        )
        threads: Optional[int] = _model_setting(
            None, "Threads of torch on the CPU; null: its own choice.", minimum=1
        )
        idle_unload_seconds: Optional[float] = _model_setting(
            None, "Give the model back when unused for so long; null: never.", minimum=0
        )
        adapter_registry: Optional[str] = _setting(
            None, "Folder of the registry `registry_id` means; null: that of adapter-registry."
        )

    def __init__(self) -> None:
        self._service = Service(Engine(self.Config()))

    def initialize(self, config: Any) -> None:
        # Nothing is downloaded: models are folders.
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        settings = replace(config, adapter_registry=None)
        if self._service.engine.config != settings:
            self._service.engine.close()
            self._service = self._service.on(Engine(settings))
        self._service.registry = registry_folder(config.adapter_registry)

    def _release_model(self) -> None:
        self._service.engine.release("unload")

    def prefetch(self) -> None:
        with self._service.engine.lease(self.call):
            pass

    def release(self, level: str) -> ReleaseReply:
        """``sleep`` moves weights to host memory, ``unload`` frees them; both are measured."""
        return self._service.engine.release(level)

    def cleanup(self) -> None:
        self._service.engine.close()

    generate = _as_action(generate, default=True)
    chat = _as_action(chat)
    stream = _as_action(stream)
    embed = _as_action(embed)
    score = _as_action(score)
    count_tokens = _as_action(count_tokens)
    list_adapters = _as_action(list_adapters)
    load_adapter = _as_action(load_adapter)
    unload_adapter = _as_action(unload_adapter)

    @action
    def model_info(self) -> ModelCard:
        """Says what the model's files say, without loading it."""
        engine = self._service.engine
        return engine.folder().card(engine.hashes())

    @action
    def profiles(self) -> ProfileList:
        """Lists what loads took, as measured: time and memory by model and adapters."""
        return ProfileList(self._service.engine.profiles().all())

    @action
    def status(self) -> Status:
        """Says what is in memory, and how many texts are generated and wait."""
        return self._service.status()
