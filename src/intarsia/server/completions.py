"""OpenAI's text completions over HTTP, for whatever makes tokens from a prompt.

`app(source, name)` is a FastAPI application: `POST /v1/completions` (whole or streamed), `GET /v1/models` and
`GET /health`. What a request asks for and cannot get is refused, never ignored."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import pydantic
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse

from intarsia.errors import BadInput, IntarsiaError

Prompt = str | list[pydantic.StrictInt]


class Piece(Protocol):
    """A token that was made, the text it adds (it may come later), and whether it was the last."""

    token: int
    text: str
    last: bool


class Pieces(Protocol):
    """Tokens as they come."""

    def __iter__(self) -> Iterator[Piece]: ...

    def cancel(self) -> None: ...


class Source(Protocol):
    """What makes tokens."""

    def submit(
        self, prompt: str | Sequence[int], max_new_tokens: int, *, temperature: float, top_p: float
    ) -> Pieces: ...

    def token_ids(self, prompt: str | Sequence[int]) -> Sequence[int]: ...


class CompletionRequest(pydantic.BaseModel):
    """The body of `POST /v1/completions`. Fields of the API that are not here are refused."""

    model_config = pydantic.ConfigDict(extra="forbid")
    model: str
    prompt: Prompt | list[Prompt]
    max_tokens: int = pydantic.Field(16, ge=1)
    temperature: float = pydantic.Field(1.0, ge=0, le=2)
    top_p: float = pydantic.Field(1.0, gt=0, le=1)
    stop: str | list[str] | None = None
    stream: bool = False
    user: str | None = None
    # Fields of the API with the one value that asks for nothing more.
    n: Literal[1] | None = 1
    best_of: Literal[1] | None = None
    echo: Literal[False] | None = None
    logprobs: None = None
    logit_bias: None = None
    suffix: None = None
    presence_penalty: Literal[0] | None = None
    frequency_penalty: Literal[0] | None = None


@dataclass
class _Choice:
    """One prompt's answer while it comes: `text` without what a stop sequence cut off."""

    index: int
    pieces: Pieces
    stops: tuple[str, ...]
    tokens: int = 0
    text: str = ""
    said: int = 0
    reason: str | None = None
    finished: bool = field(default=False)

    def read(self) -> Iterator[str]:
        """New text, as soon as no stop sequence can begin in it."""
        try:
            for piece in self.pieces:
                self.tokens += 1
                self.text += piece.text
                cut = min((at for stop in self.stops if (at := self.text.find(stop)) >= 0), default=-1)
                if cut >= 0:
                    self.text, self.reason, self.finished = self.text[:cut], "stop", True
                    break
                held = 0 if piece.last else _begun(self.text, self.stops)
                if len(self.text) - held > self.said:
                    yield self.text[self.said : len(self.text) - held]
                    self.said = len(self.text) - held
            else:
                self.finished = True
        finally:
            if self.reason == "stop" or not self.finished:
                self.pieces.cancel()
        if len(self.text) > self.said:
            yield self.text[self.said :]
            self.said = len(self.text)

    def why(self, most: int) -> str:
        """`length` where the tokens ran out, else `stop`."""
        return self.reason or ("length" if self.tokens >= most else "stop")


def _begun(text: str, stops: tuple[str, ...]) -> int:
    """Characters at the end that a stop sequence may go on from."""
    return max((n for stop in stops for n in range(1, len(stop)) if text.endswith(stop[:n])), default=0)


def app(source: Source, name: str, alive: Callable[[], bool] = lambda: True) -> FastAPI:
    """The application. `name`: what clients call the model; `alive`: whether the source still is."""
    made = FastAPI(title="Intarsia", docs_url=None, redoc_url=None)
    begun = int(time.time())

    @made.get("/health")
    def health() -> JSONResponse:
        well = alive()
        return JSONResponse({"status": "ok" if well else "failed"}, 200 if well else 503)

    @made.get("/v1/models")
    def models() -> dict[str, Any]:
        row = {"id": name, "object": "model", "created": begun, "owned_by": "intarsia"}
        return {"object": "list", "data": [row]}

    @made.post("/v1/completions")
    def completions(asked: CompletionRequest) -> Any:
        if asked.model != name:
            return _error(404, f"no model '{asked.model}' here: this server has '{name}'", "model_not_found")
        prompts = _prompts(asked.prompt)
        stops = tuple(s for s in ([asked.stop] if isinstance(asked.stop, str) else asked.stop or []) if s)
        counts = [len(source.token_ids(prompt)) for prompt in prompts]
        choices: list[_Choice] = []
        try:
            for i, p in enumerate(prompts):
                pieces = source.submit(p, asked.max_tokens, temperature=asked.temperature, top_p=asked.top_p)
                choices.append(_Choice(i, pieces, stops))
        except IntarsiaError:
            for choice in choices:
                choice.pieces.cancel()
            raise
        head = {"id": f"cmpl-{uuid.uuid4().hex}", "object": "text_completion", "created": int(time.time()),
                "model": name}  # fmt: skip
        if asked.stream:
            return StreamingResponse(_events(head, choices, asked.max_tokens), media_type="text/event-stream")
        for choice in choices:
            for _ in choice.read():
                pass
        made_tokens = sum(choice.tokens for choice in choices)
        usage = {"prompt_tokens": sum(counts), "completion_tokens": made_tokens,
                 "total_tokens": sum(counts) + made_tokens}  # fmt: skip
        rows = [_row(choice.index, choice.text, choice.why(asked.max_tokens)) for choice in choices]
        return {**head, "choices": rows, "usage": usage}

    @made.exception_handler(BadInput)
    def bad(_: Request, error: BadInput) -> JSONResponse:
        return _error(400, str(error), "invalid_request_error")

    @made.exception_handler(RequestValidationError)
    def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"] if part != "body")
        return _error(400, f"{where}: {first['msg']}", "invalid_request_error")

    @made.exception_handler(IntarsiaError)
    def failed(_: Request, error: IntarsiaError) -> JSONResponse:
        return _error(503, str(error), "server_error")

    return made


def _prompts(given: Prompt | list[Prompt]) -> list[Prompt]:
    if isinstance(given, str):
        return [given]
    if given and all(isinstance(one, int) for one in given):
        return [given]  # type: ignore[list-item]
    if not given:
        raise BadInput("prompt is an empty list: give a text or token ids")
    return given  # type: ignore[return-value]


def _row(index: int, text: str, reason: str | None) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": None, "finish_reason": reason}


def _events(head: dict[str, Any], choices: list[_Choice], most: int) -> Iterator[str]:
    """Server-sent events: one prompt's text after the other's, each with its reason at the end."""
    try:
        for choice in choices:
            for text in choice.read():
                yield f"data: {json.dumps({**head, 'choices': [_row(choice.index, text, None)]})}\n\n"
            yield f"data: {json.dumps({**head, 'choices': [_row(choice.index, '', choice.why(most))]})}\n\n"
        yield "data: [DONE]\n\n"
    except IntarsiaError as error:
        yield f"data: {json.dumps({'error': {'message': str(error), 'type': 'server_error'}})}\n\n"
    finally:
        for choice in choices:
            if not choice.finished:
                choice.pieces.cancel()


def _error(status: int, message: str, kind: str) -> JSONResponse:
    return JSONResponse({"error": {"message": message, "type": kind, "param": None, "code": None}}, status)
