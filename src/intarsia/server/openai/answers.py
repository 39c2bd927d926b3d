"""Documents that OpenAI's API answers with."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Sequence
from typing import Any, Literal

import pydantic

from intarsia.prompting.base import Call, Reply, TokenLogprob, Usage


class PromptDetails(pydantic.BaseModel):
    """cached_tokens: of the prompt's, those that did not have to be computed."""

    cached_tokens: int


class UsageSaid(pydantic.BaseModel):
    """Tokens of a request."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails


class ToolCallSaid(pydantic.BaseModel):
    """A call that the model made."""

    id: str
    type: Literal["function"]
    function: dict[str, str]


class AnswerMessage(pydantic.BaseModel):
    """What the model says."""

    role: Literal["assistant"]
    content: str | None
    refusal: None
    tool_calls: list[ToolCallSaid] | None = None


class ChatChoice(pydantic.BaseModel):
    """One answer of a chat."""

    index: int
    message: AnswerMessage
    logprobs: dict[str, Any] | None
    finish_reason: Literal["stop", "length", "tool_calls"]


class ChatCompletion(pydantic.BaseModel):
    """The answer of `POST /v1/chat/completions`."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: UsageSaid
    system_fingerprint: str


class TextChoice(pydantic.BaseModel):
    """One text."""

    index: int
    text: str
    logprobs: dict[str, Any] | None
    finish_reason: Literal["stop", "length"]


class Completion(pydantic.BaseModel):
    """The answer of `POST /v1/completions`."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[TextChoice]
    usage: UsageSaid
    system_fingerprint: str


class Embedding(pydantic.BaseModel):
    """A vector of length one: numbers, or little-endian float32 in base64."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class Embeddings(pydantic.BaseModel):
    """The answer of `POST /v1/embeddings`."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: dict[str, int]


class ModelSaid(pydantic.BaseModel):
    """A model. version, max_model_len: of what is served now."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    version: str | None = None
    max_model_len: int | None = None


class Models(pydantic.BaseModel):
    """All models."""

    object: Literal["list"]
    data: list[ModelSaid]


class Scores(pydantic.BaseModel):
    """scores: natural log probability of each choice. probabilities: the same among the choices alone: they sum to
    one."""

    model: str
    scores: list[float]
    probabilities: list[float]
    usage: UsageSaid


class ScoresOfMany(pydantic.BaseModel):
    """results: of each prompt, in their order. usage: of all."""

    model: str
    results: list[Scores]
    usage: UsageSaid


class Counted(pydantic.BaseModel):
    """count: tokens, template included. max_model_len: what the model takes, prompt and answer together."""

    model: str
    count: int
    max_model_len: int | None


class ErrorSaid(pydantic.BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorAnswer(pydantic.BaseModel):
    """Any answer with a status of 400 or more."""

    error: ErrorSaid


ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorAnswer, "description": "The request cannot be served as it is."},
    "5XX": {"model": ErrorAnswer, "description": "The server could not do it."},
}


def head(kind: str, object_: str, model: str, fingerprint: str) -> dict[str, Any]:
    """What every document of an answer begins with."""
    return {"id": f"{kind}-{secrets.token_hex(12)}", "object": object_, "created": int(time.time()), "model": model,
            "system_fingerprint": f"fp_{fingerprint[:12]}"}  # fmt: skip


def usage_of(usage: Usage) -> dict[str, Any]:
    """Tokens, as OpenAI counts them."""
    return {"prompt_tokens": usage.prompt, "completion_tokens": usage.completion,
            "total_tokens": usage.prompt + usage.completion,
            "prompt_tokens_details": {"cached_tokens": usage.cached}}  # fmt: skip


def finish_of(reply: Any) -> str:
    """Why an answer ended; who cancels does not read it."""
    return "stop" if reply.finish == "cancelled" else reply.finish


def calls_said(calls: Sequence[Call]) -> list[dict[str, Any]]:
    """Calls, each with an id."""
    return [
        {"id": call.id or f"call_{secrets.token_hex(12)}", "type": "function",
         "function": {"name": call.name, "arguments": json.dumps(call.arguments, ensure_ascii=False)}}
        for call in calls
    ]  # fmt: skip


def chat_choice(index: int, reply: Reply) -> dict[str, Any]:
    """One answer of a chat."""
    message: dict[str, Any] = {"role": "assistant", "content": reply.text, "refusal": None}
    if reply.calls:
        message |= {"content": reply.text or None, "tool_calls": calls_said(reply.calls)}
    return {"index": index, "message": message, "logprobs": chat_logprobs(reply.logprobs),
            "finish_reason": finish_of(reply)}  # fmt: skip


def chat_logprobs(rows: Sequence[TokenLogprob]) -> dict[str, Any] | None:
    """Log probabilities as a chat tells them."""
    if not rows:
        return None
    return {"content": [{**_row(r.token, r.logprob), "top_logprobs": [_row(t, p) for t, p in r.top]} for r in rows],
            "refusal": None}  # fmt: skip


def _row(token: str, logprob: float) -> dict[str, Any]:
    return {"token": token, "logprob": _finite(logprob), "bytes": list(token.encode("utf-8", "surrogatepass"))}


def _finite(value: float) -> float:
    """A log probability that JSON can hold: OpenAI's -9999.0 for what cannot be."""
    return max(value, -9999.0)


def text_choice(index: int, reply: Reply, begun: int = 0) -> dict[str, Any]:
    """One text."""
    return {"index": index, "text": reply.text, "logprobs": text_logprobs(reply.logprobs, begun),
            "finish_reason": finish_of(reply)}  # fmt: skip


def text_logprobs(rows: Sequence[TokenLogprob], begun: int = 0) -> dict[str, Any] | None:
    """Log probabilities as texts tell them. begun: characters of the text before."""
    if not rows:
        return None
    offsets = []
    for row in rows:
        offsets.append(begun)
        begun += len(row.token)
    return {"tokens": [r.token for r in rows], "token_logprobs": [_finite(r.logprob) for r in rows],
            "top_logprobs": [{t: _finite(p) for t, p in r.top} for r in rows], "text_offset": offsets}  # fmt: skip
