"""OpenAI's API over any `Backend`: chats, texts, vectors, models, and beside it likelihoods of choices.

`add(api, serving)` adds the routes to an application."""

from __future__ import annotations

from fastapi import FastAPI

from intarsia.server.openai import chat, completions, embeddings, listing, scoring
from intarsia.server.serving import Serving

__all__ = ["add"]


def add(api: FastAPI, serving: Serving) -> None:
    """Add all routes."""
    for routes in (chat, completions, embeddings, scoring, listing):
        routes.add(api, serving)
