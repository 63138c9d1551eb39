"""What calls take and give: the fields of task ``text-generation``."""

import inspect
from dataclasses import dataclass, fields
from typing import (
    Annotated,
    Any,
    Callable,
    Dict,
    List,
    Literal,
    NotRequired,
    Optional,
    TypedDict,
    Union,
    get_type_hints,
)

from cjm_worker import CapabilityInputError, DirRef, FileRef


class Limits(Dict[str, Any]):
    """JSON Schema keywords of a hint; hashable, so that it may stand in a Union."""

    __hash__ = object.__hash__  # type: ignore[assignment]


Sha256 = Annotated[str, Limits({"pattern": "^sha256:[0-9a-f]{64}$"})]
Text = Annotated[str, Limits({"minLength": 1})]
Source = Union[FileRef, DirRef, Annotated[str, Limits({"minLength": 1, "format": "cjm-file"})]]
#: Tokens generated at most where a call does not say.
DEFAULT_MAX_TOKENS = 512


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str


@dataclass(frozen=True)
class AdapterUse:
    """A LoRA adapter for one call, by the id it was loaded with, its path or its registry's id."""

    id: Annotated[Optional[Text], "An adapter that load_adapter has loaded."] = None
    path: Annotated[Optional[Source], "A PEFT folder."] = None
    registry_id: Annotated[Optional[Text], "An adapter of the registry."] = None
    sha256: Annotated[Optional[Sha256], "Refuse the adapter if its content differs."] = None
    scale: Annotated[
        float, Limits({"minimum": -16, "maximum": 16}), "Factor of the adapter's change."
    ] = 1.0


@dataclass(frozen=True)
class Parameters:
    """What every generating method takes; an absent field leaves the distribution as it is."""

    temperature: Annotated[
        Optional[float], Limits({"minimum": 0, "maximum": 100}), "Divides the logits; 0 is greedy."
    ] = None
    top_p: Annotated[
        Optional[float],
        Limits({"exclusiveMinimum": 0, "maximum": 1}),
        "Keep the likeliest tokens that together reach this probability.",
    ] = None
    top_k: Annotated[
        Optional[int], Limits({"minimum": 0}), "Keep this many likeliest tokens; 0 keeps all."
    ] = None
    min_p: Annotated[
        Optional[float],
        Limits({"minimum": 0, "maximum": 1}),
        "Keep tokens at least this share as likely as the likeliest.",
    ] = None
    repetition_penalty: Annotated[
        Optional[float],
        Limits({"exclusiveMinimum": 0, "maximum": 10}),
        "Divides positive logits of tokens already in the text, multiplies negative ones.",
    ] = None
    presence_penalty: Annotated[
        Optional[float],
        Limits({"minimum": -2, "maximum": 2}),
        "Subtracted once from the logit of a token already generated.",
    ] = None
    frequency_penalty: Annotated[
        Optional[float],
        Limits({"minimum": -2, "maximum": 2}),
        "Subtracted once per earlier generation of the token.",
    ] = None
    stop: Annotated[
        Union[Text, Annotated[List[Text], Limits({"maxItems": 16})], None],
        "Texts that end the generation; they are not part of the result.",
    ] = None
    seed: Annotated[
        Optional[int],
        Limits({"minimum": 0, "maximum": 0xFFFF_FFFF}),
        "Same seed, model, adapters and parameters: same text.",
    ] = None
    max_tokens: Annotated[
        Optional[int], Limits({"minimum": 1}), "Most tokens to generate; 512 unless given."
    ] = None
    logprobs: Annotated[
        Optional[int],
        Limits({"minimum": 0, "maximum": 100}),
        "Log-probability of each token, and of this many likeliest ones beside it.",
    ] = None
    json_schema: Annotated[
        Optional[Dict[str, Any]], "JSON Schema that the text satisfies; not with `grammar`."
    ] = None
    grammar: Annotated[
        Optional[Annotated[str, Limits({"minLength": 1, "maxLength": 100_000})]],
        "GBNF grammar that the text satisfies; not with `json_schema`.",
    ] = None
    adapters: Annotated[
        Optional[Annotated[List[AdapterUse], Limits({"maxItems": 8})]],
        "LoRA adapters that are applied to this call only.",
    ] = None
    context_overflow: Annotated[
        Literal["refuse", "truncate"],
        "Prompt and max_tokens exceed the context: refuse, or drop the prompt's oldest tokens.",
    ] = "refuse"

    def __post_init__(self) -> None:
        if self.json_schema is not None and self.grammar is not None:
            raise CapabilityInputError(
                "expected json_schema or grammar, not both", fields_invalid=["grammar"]
            )
        for place, use in enumerate(self.adapters or []):
            if [use.id, use.path, use.registry_id].count(None) != 2:
                where = f"adapters[{place}]"
                message = f"{where}: expected either id, path or registry_id"
                raise CapabilityInputError(message, fields_invalid=[where])

    @property
    def stops(self) -> List[str]:
        if self.stop is None:
            return []
        return [self.stop] if isinstance(self.stop, str) else list(self.stop)


def takes_parameters(method: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a method the fields of its last parameter, a :class:`Parameters`, as keywords."""
    names = [field.name for field in fields(Parameters)]
    own = list(inspect.signature(method).parameters.values())[:-1]
    hints = get_type_hints(method, include_extras=True)
    shared = get_type_hints(Parameters, include_extras=True)

    def gather(values: Dict[str, Any]) -> Parameters:
        return Parameters(**{name: values.pop(name) for name in names if name in values})

    if inspect.isgeneratorfunction(method):

        def run(self: Any, **values: Any) -> Any:
            parameters = gather(values)
            yield from method(self, **values, parameters=parameters)
    else:

        def run(self: Any, **values: Any) -> Any:
            parameters = gather(values)
            return method(self, **values, parameters=parameters)

    run.__name__, run.__doc__ = method.__name__, method.__doc__
    keyword = inspect.Parameter.KEYWORD_ONLY
    flat = [
        inspect.Parameter(f.name, keyword, default=f.default, annotation=shared[f.name])
        for f in fields(Parameters)
    ]
    run.__signature__ = inspect.Signature(
        [own[0], *(p.replace(kind=keyword) for p in own[1:]), *flat]
    )
    run.__annotations__ = {
        **{p.name: hints[p.name] for p in own[1:]},
        **{name: shared[name] for name in names},
        "return": hints["return"],
    }
    return run


class TokenLogprob(TypedDict):
    token_id: int
    text: str
    logprob: float


class Logprob(TokenLogprob):
    """A generated token; of the model's own distribution, before penalties and filters."""

    top: List[TokenLogprob]


@dataclass(frozen=True)
class Usage:
    prompt_tokens: int
    cached_prompt_tokens: int
    completion_tokens: int
    total_tokens: int


@dataclass(frozen=True)
class Timings:
    queued_ms: float
    first_token_ms: float
    total_ms: float
    tokens_per_second: Optional[float]


@dataclass(frozen=True)
class AppliedAdapter:
    id: str
    sha256: Sha256
    scale: float


@dataclass(frozen=True)
class Evidence:
    engine: str
    engine_version: str
    model: str
    model_sha256: Optional[Sha256]
    adapter_effect: Optional[float]
    prompt_truncated_tokens: int


@dataclass(frozen=True)
class Generation:
    """Result of ``generate`` and ``chat``, and of the last chunk of ``stream``."""

    text: str
    finish_reason: Literal["stop", "stop_sequence", "length"]
    stop_sequence: Optional[str]
    seed: Optional[int]
    usage: Usage
    timings: Timings
    adapters: List[AppliedAdapter]
    logprobs: Optional[List[Logprob]]
    evidence: Evidence


class Delta(TypedDict):
    """What follows the text so far; never half a character."""

    type: Literal["delta"]
    text: str
    logprobs: NotRequired[List[Logprob]]


class Done(TypedDict):
    type: Literal["done"]
    result: Generation


@dataclass(frozen=True)
class PromptUsage:
    prompt_tokens: int


@dataclass(frozen=True)
class Embeddings:
    embeddings: List[List[float]]
    dimensions: int
    usage: PromptUsage
    model_sha256: Optional[Sha256]


@dataclass(frozen=True)
class TokenCount:
    tokens: int


@dataclass(frozen=True)
class ScoredToken:
    token_id: int
    text: str
    logprob: Optional[float]


@dataclass(frozen=True)
class NextToken:
    token_id: int
    logprob: float


@dataclass(frozen=True)
class Score:
    """Log-probabilities of a given text; ``next[i]`` are the likeliest to follow token ``i``."""

    tokens: List[ScoredToken]
    next: List[List[NextToken]]
    adapters: List[AppliedAdapter]


@dataclass(frozen=True)
class AdapterInfo:
    id: str
    path: str
    sha256: Sha256
    format: Literal["peft"]
    bytes: int
    base_model: Optional[str]
    rank: Optional[int]
    alpha: Optional[float]


@dataclass(frozen=True)
class AdapterList:
    adapters: List[AdapterInfo]


@dataclass(frozen=True)
class LoadedAdapter:
    adapter: AdapterInfo
    effect: Optional[float]


@dataclass(frozen=True)
class UnloadedAdapter:
    id: str
    sha256: Sha256
    held: str


@dataclass(frozen=True)
class ModelCard:
    """What is known of a model without loading its weights."""

    id: str
    path: Optional[str]
    format: Literal["safetensors"]
    architecture: Optional[str]
    quantization: Optional[str]
    parameters: Optional[int]
    bytes: Optional[int]
    context_length: Optional[int]
    chat_template: Optional[bool]
    sha256: Optional[Sha256]


@dataclass(frozen=True)
class Status:
    """What the engine holds at this moment."""

    engine: str
    engine_version: str
    parameters: List[str]
    release_levels: List[str]
    state: Literal["unloaded", "loading", "loaded", "asleep"]
    active: int
    waiting: int
    slots: int
    adapters: List[str]
    loads: int


#: Parameters of the task, all of which are honoured.
PARAMETER_NAMES = [item.name for item in fields(Parameters) if item.name != "context_overflow"]
