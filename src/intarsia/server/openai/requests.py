"""Bodies of OpenAI's API. What a request asks for and cannot get here is refused by name, never ignored."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pydantic
from pydantic import AfterValidator, Field, WithJsonSchema

LONGEST = 4_000_000  # characters of one text
LARGEST = 2**63 - 1

Text = Annotated[str, Field(max_length=LONGEST)]
Ids = Annotated[list[Annotated[int, Field(ge=0, le=2**31 - 1)]], Field(min_length=1)]


def only(*values: Any) -> Any:
    """A field that is known, and can only have these values here: those that ask for nothing more."""

    def check(given: Any) -> Any:
        if not any(given == value and type(given) is type(value) for value in values):
            raise ValueError(f"only {' or '.join(map(_shown, values))} is supported here")
        return given

    return Annotated[Any, AfterValidator(check), WithJsonSchema({"enum": list(values)})]


def _shown(value: Any) -> str:
    return {None: "null", True: "true", False: "false"}.get(value, repr(value)) if not isinstance(
        value, (list, dict)
    ) else repr(value)  # fmt: skip


class Strict(pydantic.BaseModel):
    """A body: no unknown fields, no values that would have to be bent."""

    model_config = pydantic.ConfigDict(extra="forbid", strict=True)


class TextPart(Strict):
    """A part of a message's content. Pictures, sound and files are not taken."""

    type: Literal["text"]
    text: Text


Content = Text | Annotated[list[TextPart], Field(min_length=1)]


class SystemMessage(Strict):
    """What the developer says."""

    role: Literal["system", "developer"]
    content: Content
    name: only(None) = None  # type: ignore[valid-type]


class UserMessage(Strict):
    """What the user says."""

    role: Literal["user"]
    content: Content
    name: only(None) = None  # type: ignore[valid-type]


class CalledFunction(Strict):
    """The function of a call. arguments: a JSON object, as text."""

    name: Annotated[str, Field(min_length=1, max_length=200)]
    arguments: Text


class ToolCall(Strict):
    """A call that the assistant made."""

    id: Annotated[str, Field(min_length=1, max_length=200)]
    type: Literal["function"] = "function"
    function: CalledFunction
    index: int | None = None


class AssistantMessage(Strict):
    """What the model said before."""

    role: Literal["assistant"]
    content: Content | None = None
    tool_calls: list[ToolCall] | None = None
    name: only(None) = None  # type: ignore[valid-type]
    refusal: only(None) = None  # type: ignore[valid-type]
    audio: only(None) = None  # type: ignore[valid-type]
    function_call: only(None) = None  # type: ignore[valid-type]
    annotations: only(None, []) = None  # type: ignore[valid-type]
    parsed: Any = None  # (the official client sends back what it read from the text that is there too)

    @pydantic.model_validator(mode="after")
    def _says_something(self) -> AssistantMessage:
        if self.content is None and not self.tool_calls:
            raise ValueError("an assistant's message has content or tool_calls")
        return self


class ToolMessage(Strict):
    """What a tool gave."""

    role: Literal["tool"]
    content: Content
    tool_call_id: Annotated[str, Field(min_length=1, max_length=200)]
    name: str | None = None


ChatMessage = Annotated[SystemMessage | UserMessage | AssistantMessage | ToolMessage, Field(discriminator="role")]


class FunctionSpec(Strict):
    """A tool, as the model is told of it. strict: calls have the schema's form where that can be enforced."""

    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
    description: Text | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ToolOf(Strict):
    """A tool that may be called."""

    type: Literal["function"]
    function: FunctionSpec


class NamedFunction(Strict):
    """A function's name."""

    name: str


class NamedTool(Strict):
    """The tool that must be called."""

    type: Literal["function"]
    function: NamedFunction


class SchemaSpec(Strict):
    """A JSON schema that the answer must have the form of."""

    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
    schema_: dict[str, Any] = Field(alias="schema")
    description: Text | None = None
    strict: bool | None = None


class TextFormat(Strict):
    """Any text."""

    type: Literal["text"]


class ObjectFormat(Strict):
    """Any JSON object."""

    type: Literal["json_object"]


class SchemaFormat(Strict):
    """What a JSON schema describes."""

    type: Literal["json_schema"]
    json_schema: SchemaSpec


ResponseFormat = Annotated[TextFormat | ObjectFormat | SchemaFormat, Field(discriminator="type")]


class Structured(Strict):
    """A form of the answer, one of these: vLLM's `structured_outputs`. grammar: Lark, as llguidance takes it."""

    json_: dict[str, Any] | None = Field(None, alias="json")
    regex: Text | None = None
    choice: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)] | None = None
    grammar: Text | None = None


class StreamOptions(Strict):
    """include_usage: a last event with the tokens that were used."""

    include_usage: bool | None = None
    include_obfuscation: only(None, False) = None  # type: ignore[valid-type]


class Sampled(Strict):
    """What all requests that make text share. `top_k` and the forms are not OpenAI's but vLLM's."""

    model: Annotated[str, Field(min_length=1, max_length=500)]
    max_tokens: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    n: Annotated[int, Field(ge=1, le=16)] | None = None
    stop: Text | Annotated[list[Text], Field(max_length=16)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    seed: Annotated[int, Field(ge=-LARGEST, le=LARGEST)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    structured_outputs: Structured | None = None
    guided_json: dict[str, Any] | None = None
    guided_regex: Text | None = None
    guided_choice: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)] | None = None
    guided_grammar: Text | None = None
    logit_bias: only(None, {}) = None  # type: ignore[valid-type]
    user: str | None = None  # (whom a request is for; asks for nothing)

    @pydantic.model_validator(mode="after")
    def _stream_options(self) -> Sampled:
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options are for requests with stream: true")
        return self


class ChatRequest(Sampled):
    """The body of `POST /v1/chat/completions`."""

    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    tools: Annotated[list[ToolOf], Field(max_length=128)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    # Fields that ask for nothing: names and notes for the server's own books.
    metadata: dict[str, str] | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    # Fields of the API with the values that ask for nothing more.
    store: only(None, False) = None  # type: ignore[valid-type]
    service_tier: only(None, "auto", "default") = None  # type: ignore[valid-type]
    modalities: only(None, ["text"]) = None  # type: ignore[valid-type]
    reasoning_effort: only(None, "none") = None  # type: ignore[valid-type]
    audio: only(None) = None  # type: ignore[valid-type]
    prediction: only(None) = None  # type: ignore[valid-type]
    web_search_options: only(None) = None  # type: ignore[valid-type]
    functions: only(None) = None  # type: ignore[valid-type]
    function_call: only(None) = None  # type: ignore[valid-type]

    @pydantic.model_validator(mode="after")
    def _go_together(self) -> ChatRequest:
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs is for requests with logprobs: true")
        if self.max_tokens is not None and self.max_completion_tokens not in (None, self.max_tokens):
            raise ValueError("max_tokens and max_completion_tokens are one thing: give one of them")
        if self.tool_choice not in (None, "none", "auto") and not self.tools:
            raise ValueError("tool_choice wants tools to choose from")
        return self


_TEXT = {"type": "string", "maxLength": LONGEST}
_IDS = {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}, "minItems": 1}
MANY = 256  # prompts of one request


def _is_prompt(given: Any) -> bool:
    if isinstance(given, str):
        return len(given) <= LONGEST
    ids = isinstance(given, list) and given and all(type(one) is int for one in given)
    return bool(ids) and all(0 <= one < 2**31 for one in given)


def _prompts(given: Any) -> list[str | list[int]]:
    """One prompt or several, as several."""
    if _is_prompt(given):
        return [given]
    if not isinstance(given, list) or not all(map(_is_prompt, given)) or not 1 <= len(given) <= MANY:
        empty = ", not an empty list" if given == [] else ""
        raise ValueError(f"a text, token ids, or a list of 1 to {MANY} of these is wanted{empty}")
    return given


Prompts = Annotated[
    Any,
    AfterValidator(_prompts),
    WithJsonSchema(
        {"anyOf": [_TEXT, _IDS, {"type": "array", "items": {"anyOf": [_TEXT, _IDS]}, "minItems": 1, "maxItems": MANY}]}
    ),
]


class CompletionRequest(Sampled):
    """The body of `POST /v1/completions`."""

    prompt: Prompts
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    echo: only(None, False) = None  # type: ignore[valid-type]
    suffix: only(None) = None  # type: ignore[valid-type]
    best_of: Annotated[int, Field(ge=1, le=16)] | None = None

    @pydantic.model_validator(mode="after")
    def _best_of(self) -> CompletionRequest:
        if self.best_of is not None and self.best_of != (self.n or 1):
            raise ValueError("best_of is supported where it equals n")
        return self


class EmbeddingRequest(Strict):
    """The body of `POST /v1/embeddings`."""

    model: Annotated[str, Field(min_length=1, max_length=500)]
    input: Text | Annotated[list[Text], Field(min_length=1, max_length=2048)]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: only(None) = None  # type: ignore[valid-type]
    user: str | None = None


class _Prompted(Strict):
    model: Annotated[str, Field(min_length=1, max_length=500)]
    prompt: Text | Ids | None = None
    messages: Annotated[list[ChatMessage], Field(min_length=1)] | None = None

    @pydantic.model_validator(mode="after")
    def _one(self) -> _Prompted:
        given = [self.prompt, self.messages, getattr(self, "prompts", None)]
        if sum(one is not None for one in given) != 1:
            raise ValueError("give either prompt or messages")
        return self


class ScoreRequest(_Prompted):
    """The body of `POST /v1/score`: how likely is each choice as what comes next? `prompts`: of several texts or
    conversations at once, each by itself, in place of one."""

    prompts: Annotated[list[Text | Ids | Annotated[list[ChatMessage], Field(min_length=1)]],
                       Field(min_length=1, max_length=64)] | None = None  # fmt: skip
    choices: Annotated[list[Annotated[str, Field(min_length=1, max_length=LONGEST)]], Field(min_length=1)]


class TokenizeRequest(_Prompted):
    """The body of `POST /v1/tokenize`: how many tokens is that?"""

    tools: Annotated[list[ToolOf], Field(max_length=128)] | None = None
