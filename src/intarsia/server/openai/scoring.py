"""`POST /v1/score` and `POST /v1/tokenize`: what OpenAI's API has no routes for."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from intarsia.prompting.base import Usage
from intarsia.prompting.base.many import score_many
from intarsia.prompting.base.replies import taken_by
from intarsia.server.openai import answers, reading
from intarsia.server.openai.generating import or_gone
from intarsia.server.openai.requests import ScoreRequest, TokenizeRequest
from intarsia.server.record import record_of
from intarsia.server.serving import Serving


def add(api: FastAPI, serving: Serving) -> None:
    """Add the routes."""

    @api.post(
        "/v1/score", response_model=answers.Scores | answers.ScoresOfMany, responses=answers.ERRORS, tags=["likelihood"]
    )
    async def score(body: ScoreRequest, request: Request) -> Any:
        """How likely each choice is as what comes next: one reading of the prompt, and of what choices begin with, each
        beginning once; no generation. Those tokens are the usage. Several `prompts` are each scored by itself."""
        prompts = [_said(body)] if body.prompts is None else [_of_many(one) for one in body.prompts]
        with await serving.take(request, body.model, "score") as lease:
            found = await or_gone(request, score_many(lease.backend, prompts, body.choices))
            used = [
                taken_by(scores) or Usage(prompt=await asyncio.to_thread(lease.backend.count, said))
                for scores, said in zip(found, prompts, strict=True)
            ]
        record_of(request).usage = total = sum(used, Usage(calls=0))
        told = [_told(body.model, scores, usage) for scores, usage in zip(found, used, strict=True)]
        if body.prompts is None:
            return JSONResponse(told[0])
        return JSONResponse({"model": body.model, "results": told, "usage": answers.usage_of(total)})

    @api.post("/v1/tokenize", response_model=answers.Counted, responses=answers.ERRORS, tags=["likelihood"])
    async def tokenize(body: TokenizeRequest, request: Request) -> Any:
        """How many tokens a prompt has, template included."""
        with await serving.take(request, body.model, "tokenize") as lease:
            count = await asyncio.to_thread(lease.backend.count, _said(body), reading.specs(body.tools))
            return JSONResponse({"model": body.model, "count": count, "max_model_len": lease.backend.context_length})


def _told(model: str, scores: Sequence[float], usage: Usage) -> dict[str, Any]:
    best = max(scores)
    shares = [math.exp(s - best) if best > -math.inf else 1.0 for s in scores]
    probabilities = [share / sum(shares) for share in shares]
    told = {"scores": [max(s, -9999.0) for s in scores], "probabilities": probabilities}
    return {"model": model, **told, "usage": answers.usage_of(usage)}


def _of_many(prompt: Any) -> Any:
    return prompt if isinstance(prompt, str) or isinstance(prompt[0], int) else reading.messages(prompt)


def _said(body: Any) -> Any:
    return reading.messages(body.messages) if body.messages is not None else body.prompt
