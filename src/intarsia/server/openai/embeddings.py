"""`POST /v1/embeddings`."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from intarsia.prompting.base import Usage
from intarsia.server.openai import answers
from intarsia.server.openai.generating import or_gone
from intarsia.server.openai.requests import EmbeddingRequest
from intarsia.server.record import record_of
from intarsia.server.serving import Serving


def add(api: FastAPI, serving: Serving) -> None:
    """Add the route."""

    @api.post("/v1/embeddings", response_model=answers.Embeddings, responses=answers.ERRORS, tags=["openai"])
    async def embeddings(body: EmbeddingRequest, request: Request) -> Any:
        """Texts as vectors of length one."""
        texts = [body.input] if isinstance(body.input, str) else body.input
        with await serving.take(request, body.model, "embeddings") as lease:
            vectors = await or_gone(request, lease.backend.embed(texts))
            tokens = await asyncio.to_thread(lambda: sum(lease.backend.count(text) for text in texts))
        record_of(request).usage = Usage(prompt=tokens)
        coded = body.encoding_format == "base64"
        rows = [
            {"object": "embedding", "index": i,
             "embedding": base64.b64encode(v.astype("<f4").tobytes()).decode() if coded else v.tolist()}
            for i, v in enumerate(vectors)
        ]  # fmt: skip
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return JSONResponse({"object": "list", "data": rows, "model": body.model, "usage": usage})
