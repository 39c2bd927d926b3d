"""`POST /v1/chat/completions`."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request

from intarsia.prompting.base import Delta
from intarsia.server.openai import answers, reading
from intarsia.server.openai.replying import Form, reply
from intarsia.server.openai.requests import ChatRequest
from intarsia.server.serving import Serving


def add(api: FastAPI, serving: Serving) -> None:
    """Add the route."""

    @api.post("/v1/chat/completions", response_model=answers.ChatCompletion, responses=answers.ERRORS, tags=["openai"])
    async def chat_completions(body: ChatRequest, request: Request) -> Any:
        """An answer to a conversation; with `stream: true` as server-sent events."""
        lease = await serving.take(request, body.model, "chat")
        try:
            asked = reading.chat(body, lease.backend)
        except BaseException:
            lease.release()
            raise
        head = answers.head("chatcmpl", "chat.completion", body.model, lease.backend.fingerprint)
        form = Form(
            head, {**head, "object": "chat.completion.chunk"}, answers.chat_choice, _opening, _part, body.n or 1
        )
        usage = bool(body.stream_options and body.stream_options.include_usage)
        return await reply(serving, request, lease, asked, form, bool(body.stream), usage)


def _opening(number: int) -> dict[str, Any]:
    return _row(number, {"role": "assistant", "content": ""})


def _row(number: int, delta: dict[str, Any], logprobs: Any = None, finish: str | None = None) -> dict[str, Any]:
    return {"index": number, "delta": delta, "logprobs": logprobs, "finish_reason": finish}


def _part(number: int, delta: Delta) -> list[dict[str, Any]]:
    rows = []
    if delta.text or delta.logprobs:
        rows.append(_row(number, {"content": delta.text}, answers.chat_logprobs(delta.logprobs)))
    if delta.calls:
        calls = [{"index": i, **call} for i, call in enumerate(answers.calls_said(delta.calls))]
        rows.append(_row(number, {"tool_calls": calls}))
    if delta.finish is not None:
        rows.append(_row(number, {}, None, answers.finish_of(delta)))
    return rows
