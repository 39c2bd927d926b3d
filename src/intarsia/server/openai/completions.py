"""`POST /v1/completions`."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request

from intarsia.prompting.base import Delta
from intarsia.server.openai import answers, reading
from intarsia.server.openai.replying import Form, reply
from intarsia.server.openai.requests import CompletionRequest
from intarsia.server.serving import Serving


def add(api: FastAPI, serving: Serving) -> None:
    """Add the route."""

    @api.post("/v1/completions", response_model=answers.Completion, responses=answers.ERRORS, tags=["openai"])
    async def completions(body: CompletionRequest, request: Request) -> Any:
        """A text that goes on; with `stream: true` as server-sent events."""
        lease = await serving.take(request, body.model, "text_completion")
        try:
            asked = reading.completion(body)
        except BaseException:
            lease.release()
            raise
        head = answers.head("cmpl", "text_completion", body.model, lease.backend.fingerprint)
        form = Form(head, head, answers.text_choice, lambda _: None, _Parts(), body.n or 1)
        usage = bool(body.stream_options and body.stream_options.include_usage)
        return await reply(serving, request, lease, asked, form, bool(body.stream), usage)


class _Parts:
    """Pieces of texts; where each token begins is counted on."""

    def __init__(self) -> None:
        self.begun: dict[int, int] = {}

    def __call__(self, number: int, delta: Delta) -> list[dict[str, Any]]:
        if not (delta.text or delta.logprobs or delta.finish):
            return []
        start = self.begun.get(number, 0)
        self.begun[number] = start + sum(len(row.token) for row in delta.logprobs)
        said = answers.text_logprobs(delta.logprobs, start)
        finish = answers.finish_of(delta) if delta.finish is not None else None
        return [{"index": number, "text": delta.text, "logprobs": said, "finish_reason": finish}]
