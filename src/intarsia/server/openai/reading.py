"""A request of OpenAI's API as what a backend is asked: input, sampling, form of the answer, tools."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from intarsia.errors import BadInput
from intarsia.prompting.base import Backend, Call, Constraint, Input, Message, Reply, Sampling, ToolSpec
from intarsia.prompting.base.call_forms import calls_constraint
from intarsia.server.errors import ApiError
from intarsia.server.openai.requests import (
    AssistantMessage,
    ChatRequest,
    CompletionRequest,
    Content,
    NamedTool,
    ObjectFormat,
    Sampled,
    SchemaFormat,
    ToolMessage,
    ToolOf,
)
from intarsia.server.parsing import parse

UNASKED = 1024
"""Tokens that a chat makes at most where the request does not say; a text, as at OpenAI: 16."""


@dataclass(frozen=True)
class Asked:
    """One answer that is wanted. forced: the tools of which one must be called; single: one call at most."""

    prompt: Input
    sampling: Sampling
    constraint: Constraint | None = None
    tools: tuple[ToolSpec, ...] = ()
    forced: tuple[ToolSpec, ...] = ()
    single: bool = False


def chat(request: ChatRequest, backend: Backend) -> list[Asked]:
    """The `n` answers that a conversation asks for. Raises `BadInput`."""
    said = messages(request.messages)
    tools = () if request.tool_choice == "none" else specs(request.tools)
    form = _form(request)
    forced: tuple[ToolSpec, ...] = ()
    if request.tool_choice == "required" or isinstance(request.tool_choice, NamedTool):
        if form is not None:
            raise ApiError(400, "a tool that must be called and a form of the answer exclude each other")
        forced = _chosen(request.tool_choice, tools)
        form = _form_of_call(forced, backend, request.parallel_tool_calls is not False)
    elif form is not None and form.kind != "grammar" and tools and _knows_calls(backend):
        parallel = request.parallel_tool_calls is not False
        form = calls_constraint(tools, "auto", tokenizer=backend.tokenizer, parallel=parallel, answer=form)
    most = request.max_completion_tokens or request.max_tokens
    if most is None:
        most = UNASKED
        if backend.context_length is not None:
            most = max(1, min(most, backend.context_length - backend.count(said, tools)))
    likely = (request.top_logprobs or 0) if request.logprobs else None
    asked = Asked(said, _sampling(request, most, likely), form, tools, forced, request.parallel_tool_calls is False)
    return _choices(asked, request.n or 1)


def completion(request: CompletionRequest) -> list[Asked]:
    """The answers that prompts ask for, `n` for each, in order."""
    sampling = _sampling(request, request.max_tokens or 16, request.logprobs)
    form = _form(request)
    return [one for p in request.prompt for one in _choices(Asked(p, sampling, form), request.n or 1)]


def _choices(asked: Asked, n: int) -> list[Asked]:
    """The same, asked `n` times: each with a seed of its own where the request has one."""
    seed = asked.sampling.seed
    if n == 1 or seed is None:
        return [asked] * n
    return [replace(asked, sampling=replace(asked.sampling, seed=(seed + i) % 2**63)) for i in range(n)]


def _sampling(request: Sampled, most: int, likely: int | None) -> Sampling:
    stop = (request.stop,) if isinstance(request.stop, str) else tuple(request.stop or ())
    return Sampling(
        max_tokens=most,
        temperature=1.0 if request.temperature is None else request.temperature,
        top_p=1.0 if request.top_p is None else request.top_p,
        top_k=request.top_k or 0,
        seed=request.seed % 2**63 if request.seed is not None else None,
        stop=tuple(text for text in stop if text),
        logprobs=likely,
        presence_penalty=request.presence_penalty or 0.0,
        frequency_penalty=request.frequency_penalty or 0.0,
    )


def _form(request: Sampled) -> Constraint | None:
    """The form that is asked for, by any of its names. Raises `ApiError` for two."""
    found: list[Constraint] = []
    wanted = getattr(request, "response_format", None)
    if isinstance(wanted, ObjectFormat):
        found.append(Constraint("json", '{"type": "object"}'))
    elif isinstance(wanted, SchemaFormat):
        found.append(Constraint("json", json.dumps(wanted.json_schema.schema_), wanted.json_schema.name))
    own = request.structured_outputs
    for kind, given in [
        ("json", request.guided_json), ("regex", request.guided_regex), ("choice", request.guided_choice),
        ("grammar", request.guided_grammar), ("json", own and own.json_), ("regex", own and own.regex),
        ("choice", own and own.choice), ("grammar", own and own.grammar),
    ]:  # fmt: skip
        if given is not None:
            source = given if isinstance(given, str) else json.dumps(given)
            found.append(Constraint(kind, source))  # type: ignore[arg-type]
    if len(found) > 1:
        raise ApiError(400, f"one form of the answer is wanted, {len(found)} are given")
    return found[0] if found else None


def specs(tools: Sequence[ToolOf] | None) -> tuple[ToolSpec, ...]:
    """Tools as a backend takes them."""
    empty = {"type": "object", "properties": {}}
    made = tuple(
        ToolSpec(t.function.name, t.function.description or "", t.function.parameters or empty) for t in tools or ()
    )
    if len({t.name for t in made}) < len(made):
        raise ApiError(400, "two tools have one name", param="tools")
    return made


def _chosen(choice: Any, tools: tuple[ToolSpec, ...]) -> tuple[ToolSpec, ...]:
    if not isinstance(choice, NamedTool):
        return tools
    found = tuple(tool for tool in tools if tool.name == choice.function.name)
    if not found:
        raise ApiError(400, f"tool_choice names no tool of the request: {', '.join(t.name for t in tools)} are there")
    return found


def _knows_calls(backend: Backend) -> bool:
    """Whether it is known here how the model's own template writes calls."""
    return getattr(backend.tokenizer, "chat_template", None) is not None


def _form_of_call(tools: tuple[ToolSpec, ...], backend: Backend, parallel: bool) -> Constraint:
    """The form of a call: as the model's own template writes it where that is known here, else as JSON."""
    if _knows_calls(backend):
        choice = tools[0].name if len(tools) == 1 else "required"
        return calls_constraint(tools, choice, tokenizer=backend.tokenizer, parallel=parallel)
    calls = [
        {"type": "object", "properties": {"name": {"const": tool.name}, "arguments": tool.parameters},
         "required": ["name", "arguments"], "additionalProperties": False}
        for tool in tools
    ]  # fmt: skip
    return Constraint("json", json.dumps(calls[0] if len(calls) == 1 else {"anyOf": calls}), "call")


def calls_of(asked: Asked, reply: Reply) -> Reply:
    """An answer with its calls read: where one was forced, the text is the call."""
    if asked.forced and not reply.calls and reply.finish == "stop":
        try:
            said = json.loads(reply.text)
            call = Call(said["name"], said["arguments"])
        except (ValueError, KeyError, TypeError):
            raise ApiError(502, "the model's call is not the JSON that was asked for", code="invalid_output") from None
        return replace(reply, text="", calls=(call,), finish="tool_calls")
    if asked.single and len(reply.calls) > 1:
        return replace(reply, calls=reply.calls[:1])
    return reply


def messages(given: Sequence[Any]) -> list[Message]:
    """A conversation. Raises `BadInput` for calls that are no JSON, and answers to calls that nobody made."""
    out: list[Message] = []
    made: dict[str, str] = {}
    for message in given:
        if isinstance(message, AssistantMessage):
            calls = tuple(
                Call(call.function.name, _arguments(call.function.arguments), call.id)
                for call in message.tool_calls or ()
            )
            made |= {call.id: call.name for call in calls}
            out.append(Message("assistant", text_of(message.content), calls))
        elif isinstance(message, ToolMessage):
            if message.tool_call_id not in made:
                raise BadInput("a message of role tool answers no call before it: its tool_call_id is not known")
            name = made[message.tool_call_id]
            out.append(Message("tool", text_of(message.content), call=message.tool_call_id, name=name))
        else:
            role = "system" if message.role == "developer" else message.role
            out.append(Message(role, text_of(message.content)))
    return out


def text_of(content: Content | None) -> str:
    """A message's text; parts are lines of it."""
    return content or "" if content is None or isinstance(content, str) else "\n".join(p.text for p in content)


def _arguments(text: str) -> dict[str, Any]:
    value = parse(text.encode()) if text.strip() else {}
    if not isinstance(value, dict):
        raise BadInput("the arguments of a call are a JSON object, as text")
    return value
