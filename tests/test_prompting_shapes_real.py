"""Shapes over a small real model: what it means to say comes out in the form."""

from __future__ import annotations

import asyncio
import json
from typing import Literal

import pydantic
import pytest

from intarsia.prompting.base import Constraint, Message, Sampling
from intarsia.prompting.base.masking import Matcher
from intarsia.prompting.execute.asking import ask

pytestmark = pytest.mark.real

TEXTS = [
    "plain words",
    "tabs\tand\n\nlines",
    "naïve café, 東京 🎉",
    '{"a": [1, 2.5e-3, null]}',
    "  spaces  ",
    "x" * 200,
]


class City(pydantic.BaseModel):
    city: str = pydantic.Field(max_length=30)
    country: Literal["France", "Italy", "Spain"]


@pytest.fixture(scope="module")
def backend():
    from intarsia.prompting.base.local import open_local

    return open_local("smollm2-135m", threads=1)


def test_its_tokens_spell_texts(backend):
    for text in TEXTS:
        ids = backend.tokenizer.encode(text, add_special_tokens=False)
        assert Matcher(backend.tokenizer, Constraint("regex", "(?s:.*)")).accept_many(ids) == len(ids)
        matcher = Matcher(backend.tokenizer, Constraint("choice", json.dumps([text.strip(), "other"])))
        assert matcher.accept_many(backend.tokenizer.encode(text.strip())) and matcher.may_end


def test_it_answers_in_the_shape(backend):
    async def work():
        question = (Message("user", "Where is the Eiffel Tower? Answer in JSON with the keys city and country."),)
        answer = await ask(backend, question, shape=City, sampling=Sampling(max_tokens=60))
        assert answer.value == City(city="Paris", country="France")
        assert answer.usage.forced > 5  # keys and marks needed no pass through the network
        text = "The Eiffel Tower is in the city of"
        scored = await ask(backend, text, shape=Literal["Paris", "Rome", "Madrid"])
        assert scored.value == "Paris" and scored.probabilities["Paris"] > 0.5

    asyncio.run(work())
