"""OpenAI's API, as far as a backend speaks it: requests to it, and answers of it, whole and in pieces."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from intarsia.errors import first_line
from intarsia.models.remote.contents import text_of
from intarsia.models.remote.patience import may_pass
from intarsia.models.remote.refusals import without, words_of
from intarsia.prompting.base.errors import BackendError, InvalidOutput
from intarsia.prompting.base.messages import Call, Message, ToolSpec
from intarsia.prompting.base.replies import Delta, Finish, Sampling, TokenLogprob, Usage

_FINISHES: dict[str, Finish] = {
    "stop": "stop", "length": "length", "tool_calls": "tool_calls", "function_call": "tool_calls", "eos": "stop",
}  # fmt: skip


@contextmanager
def of_the_api(server: str) -> Iterator[None]:
    """Turn what goes wrong when an answer is read that has another form into one line."""
    try:
        yield
    except (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError):
        raise BackendError(f"{server} sends an answer of another form than OpenAI's API has") from None


def message_body(message: Message) -> dict[str, Any]:
    """A message as the API takes it."""
    if message.role == "tool":
        return {"role": "tool", "content": message.content, "tool_call_id": message.call}
    body: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.name:
        body["name"] = message.name
    if message.calls:
        body["content"] = message.content or None
        body["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": json.dumps(call.arguments, ensure_ascii=False)},
            }
            for call in message.calls
        ]
    return body


def tool_body(tool: ToolSpec) -> dict[str, Any]:
    """A tool as the API takes it."""
    function = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    return {"type": "function", "function": function}


def sampling_body(sampling: Sampling, chat: bool) -> dict[str, Any]:
    """How tokens are to be chosen. What is the API's own is not said: some models take nothing else."""
    body: dict[str, Any] = {"max_tokens": sampling.max_tokens}
    for name, own in (
        ("temperature", 1),
        ("top_p", 1),
        ("presence_penalty", 0),
        ("frequency_penalty", 0),
        ("top_k", 0),
    ):
        if (value := getattr(sampling, name)) != own:
            body[name] = value
    if sampling.seed is not None:
        body["seed"] = sampling.seed
    if sampling.stop:
        body["stop"] = list(sampling.stop)
    if sampling.logprobs is not None:
        body |= {"logprobs": True, "top_logprobs": sampling.logprobs} if chat else {"logprobs": sampling.logprobs}
    return body


class Answer:
    """An answer that is put together from what a server sends. server: what errors call it; key: is shown in none."""

    def __init__(self, server: str, key: str):
        self.server, self._key = server, key
        self.text = ""
        self.finish: Finish | None = None
        self.usage: Usage | None = None
        self.tokens = 0  # that came with a logprob
        self.begun = False  # whether there was a choice
        self._calls: dict[Any, dict[str, str]] = {}

    def take(self, data: str) -> Delta | None:
        """What one event adds: its text and logprobs; the rest is kept for the end. Raises `BackendError` for an error
        that is sent in place of a piece, and for what is no piece."""
        try:
            chunk = json.loads(data)
        except ValueError:
            raise BackendError(f"{self.server} sends no JSON in its stream: is OpenAI's API there?") from None
        if not isinstance(chunk, dict):
            raise BackendError(f"{self.server} sends no object in its stream: is OpenAI's API there?")
        if chunk.get("error"):
            said = first_line(ValueError(without(words_of(data), self._key)), 200)
            code = chunk["error"].get("code") if isinstance(chunk["error"], dict) else None
            passing = may_pass(code) if isinstance(code, int) else True
            raise BackendError(f"{self.server} breaks off: {said}", retryable=passing)
        choices = chunk.get("choices")
        if not isinstance(choices, list):
            raise BackendError(f"{self.server} answered without a choice: is OpenAI's API there?")
        with of_the_api(self.server):
            self.usage = usage_of(chunk.get("usage")) or self.usage
            return self._choice(choices[0]) if choices else None

    def _choice(self, choice: Mapping[str, Any]) -> Delta | None:
        self.begun = True
        said = choice.get("delta") or choice.get("message") or {}
        text = text_of(said.get("content")) if said else text_of(choice.get("text"))
        if said.get("refusal") and not text:
            text = str(said["refusal"])
        for place, call in enumerate(said.get("tool_calls") or ()):
            self._call(call.get("index", place), call)
        if (why := choice.get("finish_reason")) is not None:
            if why == "content_filter":
                raise BackendError(f"{self.server} held the answer back (content_filter): ask for something else")
            self.finish = _FINISHES.get(why, "stop")
        logprobs = logprobs_of(choice.get("logprobs"))
        self.text += text
        self.tokens += len(logprobs)
        return Delta(text, logprobs=logprobs) if text or logprobs else None

    def _call(self, index: Any, call: Mapping[str, Any]) -> None:
        known = self._calls.setdefault(index, {"id": "", "name": "", "arguments": ""})
        function = call.get("function") or {}
        known["id"] = str(call.get("id") or known["id"])
        known["name"] = str(function.get("name") or known["name"])
        given = function.get("arguments") or ""
        known["arguments"] += given if isinstance(given, str) else json.dumps(given)

    @property
    def calls(self) -> tuple[Call, ...]:
        """The tools that were called. Raises `InvalidOutput` for arguments that are no JSON object."""
        return tuple(_read_call(call) for call in self._calls.values())


def _read_call(call: Mapping[str, str]) -> Call:
    try:
        arguments = json.loads(call["arguments"] or "{}")
    except ValueError:
        arguments = None
    if not isinstance(arguments, dict):
        raise InvalidOutput(call["arguments"], [f"the arguments of the call to {call['name']} are no JSON object"])
    return Call(call["name"], arguments, call["id"])


def usage_of(said: Any) -> Usage | None:
    """What a server says was used; None where it does not."""
    if not isinstance(said, dict) or said.get("prompt_tokens") is None:
        return None
    details = said.get("prompt_tokens_details") or {}
    return Usage(
        int(said["prompt_tokens"]), int(said.get("completion_tokens") or 0), int(details.get("cached_tokens") or 0)
    )


def logprobs_of(said: Any) -> tuple[TokenLogprob, ...]:
    """Log probabilities as the API gives them with messages, or with texts."""
    if not isinstance(said, dict):
        return ()
    if said.get("content"):
        return tuple(
            TokenLogprob(
                one["token"], None, float(one["logprob"]),
                tuple((top["token"], float(top["logprob"])) for top in one.get("top_logprobs") or ()),
            )
            for one in said["content"]
        )  # fmt: skip
    tokens, logprobs = said.get("tokens") or (), said.get("token_logprobs") or ()
    tops: Sequence[Any] = said.get("top_logprobs") or [None] * len(tokens)
    return tuple(
        TokenLogprob(token, None, float(logprob), tuple(sorted((top or {}).items(), key=lambda pair: -pair[1])))
        for token, logprob, top in zip(tokens, logprobs, tops, strict=False)
        if logprob is not None
    )


def strict(schema: Any) -> bool:
    """Whether a JSON schema is one that OpenAI holds strictly: every object names all its keys, and allows no other."""
    if isinstance(schema, Mapping):
        if schema.get("type") == "object" or "properties" in schema:
            named = set(schema.get("properties") or ())
            if schema.get("additionalProperties") is not False or set(schema.get("required") or ()) != named:
                return False
        return all(strict(part) for part in schema.values())
    if isinstance(schema, Iterable) and not isinstance(schema, str):
        return all(strict(part) for part in schema)
    return True
