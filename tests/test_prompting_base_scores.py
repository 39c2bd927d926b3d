"""Scores of many prompts at a server: one request, and whatever goes around a backend counts, keeps and repeats it."""

from __future__ import annotations

import asyncio

import pytest

from intarsia.prompting.base import (
    BackendError,
    Budget,
    BudgetExceeded,
    Cached,
    FakeBackend,
    Metered,
    Price,
    Retrying,
    Scores,
    Traced,
    Usage,
    Wrapper,
)
from intarsia.prompting.base.many import score_many
from intarsia.prompting.tracing import trace
from tests.remote_help import backend, serving

PROMPTS = ["one", "two b", "three"]
CHOICES = ["yes", "no way"]


class Server(FakeBackend):
    """A fake that takes many prompts in a request, as servers do."""

    def __init__(self, **given):
        super().__init__(**given)
        self.asked = []

    async def score_many(self, prompts, choices):
        self.asked.append(list(prompts))
        if (error := self.errors.get(len(self.asked))) is not None:
            raise error
        errors, self.errors = self.errors, {}
        found = [await self.score(prompt, choices) for prompt in prompts]
        self.errors = errors
        return [Scores(one, Usage(one.usage.prompt, calls=int(not at))) for at, one in enumerate(found)]


def wanted(prompts=PROMPTS):
    return [asyncio.run(FakeBackend().score(prompt, CHOICES)) for prompt in prompts]


def test_all_at_once_where_the_model_runs_here():
    fake = FakeBackend()
    assert asyncio.run(score_many(fake, PROMPTS, CHOICES)) == wanted() and len(fake.requests) == 3
    with pytest.raises(BackendError, match="down"):
        asyncio.run(score_many(FakeBackend(errors={2: BackendError("down")}), PROMPTS, CHOICES))

    class Plain(FakeBackend):
        async def score(self, prompt, choices):
            return [-1.0, -2.0]  # nobody told what it took

    (one,) = asyncio.run(score_many(Plain(), ["a"], CHOICES))
    assert one == [-1.0, -2.0] and one.usage is None


def test_what_goes_around_a_backend_sends_one_request(tmp_path):
    server = Server(errors={1: BackendError("busy", retryable=True)})
    cached = Cached(Retrying(server, pause=0.0), tmp_path / "a.sqlite")
    budget = Budget(tokens=100)
    model = Traced(Metered(cached, budget, price=Price(1e6, 0)))
    with trace("many", tmp_path / "t.sqlite") as t:
        found = asyncio.run(score_many(model, PROMPTS, CHOICES))
    assert found == wanted() and server.asked == [PROMPTS] * 2  # busy once
    read = sum(scores.usage.prompt for scores in found)
    assert read == sum(len(prompt.split()) for prompt in PROMPTS) + 3  # "no" is read behind each
    assert (budget.spent.tokens, budget.spent.calls, budget.spent.cost) == (read, 1, read)
    # Only what is not known is asked for, and what is costs nothing.
    more = asyncio.run(score_many(model, [*PROMPTS, "four"], CHOICES))
    assert server.asked[-1] == ["four"] and more == wanted([*PROMPTS, "four"])
    assert [scores.usage.calls for scores in more] == [0, 0, 0, 1]
    assert (budget.spent.tokens, budget.spent.calls, budget.spent.cost) == (read + 2, 2, read + 2)
    with trace("many", tmp_path / "t.sqlite", resume=t.id):
        again = asyncio.run(score_many(Traced(Server()), PROMPTS, CHOICES))
    assert again == found and [s.usage for s in again] == [s.usage for s in found]
    with pytest.raises(BudgetExceeded):
        asyncio.run(score_many(Metered(Server(), Budget(tokens=5)), PROMPTS, CHOICES))


def test_a_wrapper_that_knows_single_scores_alone_is_asked_for_each():
    class Louder(Wrapper):
        async def score(self, prompt, choices):
            return [2 * one for one in await self.inner.score(prompt, choices)]

    server = Server()
    found = asyncio.run(score_many(Louder(server), PROMPTS, CHOICES))
    assert found == [[2 * score for score in one] for one in wanted()] and not server.asked
    assert asyncio.run(score_many(Wrapper(server), PROMPTS, CHOICES)) == wanted() and server.asked == [PROMPTS]


def test_a_server_that_scores_one_at_a_time():
    def older(_, body):  # Intarsia's of before, which knows no `prompts`
        return (422, {"error": {"message": "prompts: extra inputs are not permitted"}}) if "prompts" in body else (
            200, {"scores": [-1.0, -2.0]}
        )  # fmt: skip

    with serving(older) as server, pytest.raises(NotImplementedError, match="many prompts"):
        asyncio.run(score_many(backend(server), PROMPTS, CHOICES))
    with serving(lambda *_: (404, {})) as server, pytest.raises(NotImplementedError):
        asyncio.run(score_many(backend(server), PROMPTS, CHOICES))
    with serving(lambda *_: (500, {})) as server, pytest.raises(BackendError):
        asyncio.run(score_many(backend(server, tries=1), PROMPTS, CHOICES))
