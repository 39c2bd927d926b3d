"""Requests to an OpenAI-compatible server, in the words that this one knows; and what its refusals mean."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from intarsia.errors import BadInput, IntarsiaError
from intarsia.models.remote import Client, Refused
from intarsia.prompting.base.constraint import Constraint
from intarsia.prompting.base.errors import BackendError, ContextOverflow, PromptingError
from intarsia.prompting.base.messages import Input, Message, ToolSpec
from intarsia.prompting.base.openai_form import message_body, sampling_body, strict, tool_body
from intarsia.prompting.base.replies import Sampling

# How servers say that a prompt is too long: (the limit, what was needed).
_TOO_LONG = (
    re.compile(r"maximum context length (?:is|of) (?P<limit>\d+)\D.*?(?P<needed>\d{2,})", re.DOTALL),
    re.compile(r"need (?P<needed>\d+), the model takes (?P<limit>\d+)"),
    re.compile(r"\((?P<needed>\d+) tokens\) exceeds the available context size \((?P<limit>\d+)"),
)
_UNKNOWN = re.compile(
    r"unknown|unrecogni[sz]ed|unsupported|not support|extra|not permitted|additional|unexpected", re.IGNORECASE
)


class Asking:
    """Requests for answers of one model.

    also: fields that go along with every one."""

    def __init__(self, client: Client, model: str, also: Mapping[str, Any]):
        self.client, self.model, self.also = client, model, also
        self._refused: set[str] = set()  # fields for forms that the server does not know

    def request(self, prompt: Input, sampling: Sampling, tools: Sequence[ToolSpec]) -> tuple[str, dict[str, Any]]:
        """Where a request goes, and what it says. Raises `BadInput` for what cannot be asked."""
        if sampling.max_tokens < 1:
            raise BadInput(f"max_tokens: {sampling.max_tokens} given, 1 or more wanted")
        if not len(prompt):
            raise BadInput("the prompt is empty: give a text, token ids or messages")
        talk = is_talk(prompt)
        if tools and not talk:
            raise BadInput("tools want a conversation: give messages")
        body: dict[str, Any] = {"model": self.model, **prompt_body(prompt), **sampling_body(sampling, talk)}
        if tools:
            body["tools"] = [tool_body(tool) for tool in tools]
        return "/chat/completions" if talk else "/completions", {**body, **self.also}

    async def whole(self, end: str, body: Mapping[str, Any], constraint: Constraint | None) -> Any:
        """An answer, as JSON."""
        while True:
            form = self._form(constraint)
            try:
                return await self.client.post(end, {**body, **form})
            except Refused as refused:
                self._learn(refused, form)

    async def events(self, end: str, body: Mapping[str, Any], constraint: Constraint | None) -> AsyncIterator[str]:
        """The data of a streamed answer's events."""
        begun = False
        while not begun:
            form = self._form(constraint)
            try:
                async with self.client.events(end, {**body, **form}) as events:
                    begun = True
                    async for data in events:
                        yield data
            except Refused as refused:
                self._learn(refused, form)

    def _form(self, constraint: Constraint | None) -> dict[str, Any]:
        """The fields that ask for a form in the way this server knows, as far as is known; none where it knows none."""
        if constraint is None:
            return {}
        return next((way for way in _ways(constraint) if not self._refused & way.keys()), {})

    def _learn(self, refused: Refused, form: Mapping[str, Any]) -> None:
        """Remember that a way of asking for a form is not known here; raises what was refused for another reason."""
        said = refused.said or str(refused)
        named = [field for field in form if field in said]
        if refused.code not in (400, 422) or not named or not _UNKNOWN.search(said):
            raise refused
        self._refused.update(named)


def _ways(constraint: Constraint) -> Iterator[dict[str, Any]]:
    """The ways to ask for a form: OpenAI's, and vLLM's of now and of before 0.12; for calls of tools there is one."""
    kind, source = constraint.kind, constraint.source
    if kind == "call":
        named = {"type": "function", "function": {"name": source}}
        yield {"tool_choice": source if source == "required" else named}
        return
    form = json.loads(source) if kind in ("json", "choice") else source
    if kind == "json":
        schema = {"name": constraint.name, "schema": form, "strict": strict(form)}
        yield {"response_format": {"type": "json_schema", "json_schema": schema}}
    yield {"structured_outputs": {kind: form}}
    yield {f"guided_{kind}": form}


def is_talk(prompt: Input) -> bool:
    """Whether a prompt is messages."""
    return not isinstance(prompt, str) and len(prompt) > 0 and isinstance(prompt[0], Message)


def prompt_body(prompt: Input) -> dict[str, Any]:
    """A prompt as the API takes it: messages, a text or token ids."""
    if is_talk(prompt):
        return {"messages": [message_body(message) for message in prompt]}  # type: ignore[arg-type]
    return {"prompt": prompt if isinstance(prompt, str) else [int(i) for i in prompt]}  # type: ignore[arg-type]


@contextmanager
def told() -> Iterator[None]:
    """Turn errors of the wire into the framework's."""
    try:
        yield
    except (BadInput, PromptingError):
        raise
    except IntarsiaError as error:
        raise _as_told(error) from None


def _as_told(error: IntarsiaError) -> Exception:
    if isinstance(error, Refused) and error.code in (400, 413, 422):
        for pattern in _TOO_LONG:
            if found := pattern.search(error.said):
                return ContextOverflow(int(found["needed"]), int(found["limit"]))
    return BackendError(
        str(error), retryable=getattr(error, "retryable", False), after=getattr(error, "after", 0.0) or None,
        status=getattr(error, "code", None),
    )  # fmt: skip
