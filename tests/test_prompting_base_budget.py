"""Budgets: nothing is overspent, whoever asks at the same time, and all that was used is noted."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from intarsia.errors import BadInput
from intarsia.prompting.base import (
    BackendError,
    Budget,
    BudgetExceeded,
    FakeBackend,
    Metered,
    Price,
    Reply,
    Sampling,
    Usage,
    assembled,
)

TEN = Sampling(max_tokens=10)


def used(budget):
    return (budget.spent.tokens, budget.spent.calls)


def test_what_a_request_may_take_has_to_fit_and_what_it_took_counts():
    budget = Budget(tokens=20)
    model = Metered(FakeBackend(), budget)

    async def whole():
        await model.generate("a b c", TEN)
        assert used(budget) == (6, 1)
        await model.generate("a b c", TEN)
        with pytest.raises(BudgetExceeded, match="of 20 tokens has 8 left, and this may take 13") as error:
            await model.generate("a b c", TEN)
        assert (error.value.what, error.value.spent, error.value.limit) == ("tokens", 12, 20)
        await model.generate("a b c", Sampling(max_tokens=5))
        assert used(budget) == (18, 3) and budget.left.tokens == 2

    asyncio.run(whole())
    assert len(model.inner.requests) == 3


def test_calls_and_scores_and_embeddings_count():
    budget = Budget(calls=2)
    model = Metered(FakeBackend(), budget)

    async def whole():
        await model.score("a b", ["c", "d e"])
        await model.embed(["a b", "c"])
        assert used(budget) == (6, 2)  # the prompt, what a choice begins with, and texts
        with pytest.raises(BudgetExceeded, match="of 2 calls is spent"):
            await model.embed(["a"])

    asyncio.run(whole())


@settings(max_examples=30, deadline=None)
@given(st.integers(5, 60), st.lists(st.integers(1, 12), min_size=1, max_size=10))
def test_requests_at_the_same_time_do_not_overspend(limit, sizes):
    budget = Budget(tokens=limit)
    most = 0

    class Watched(FakeBackend):
        async def generate(self, prompt, sampling=Sampling(), **more):
            nonlocal most
            most = max(most, budget.spent.tokens + budget._held.tokens)
            for _ in range(3):
                await asyncio.sleep(0)
            return await super().generate(prompt, sampling, **more)

    model = Metered(Watched({"": "x " * 50}), budget)

    async def whole():
        jobs = (model.generate("a", Sampling(max_tokens=size)) for size in sizes)
        return await asyncio.gather(*jobs, return_exceptions=True)

    results = asyncio.run(whole())
    assert max(most, budget.spent.tokens) <= limit
    answered = [size for size, result in zip(sizes, results, strict=True) if isinstance(result, Reply)]
    assert budget.spent.tokens == sum(size + 1 for size in answered)
    # Each that was refused would not fit beside those that were answered.
    for size, result in zip(sizes, results, strict=True):
        assert isinstance(result, Reply) or (
            isinstance(result, BudgetExceeded) and budget.spent.tokens + size + 1 > limit
        )


def test_one_that_others_are_in_the_way_of_waits_and_is_served():
    budget = Budget(tokens=25)
    model = Metered(FakeBackend(["short"] * 4, seconds=0.005), budget)

    async def whole():
        return await asyncio.gather(*(model.generate("a", TEN) for _ in range(4)))

    assert [reply.text for reply in asyncio.run(whole())] == ["short"] * 4  # 11 may be taken, 2 are
    assert used(budget) == (8, 4)


def test_seconds_stop_a_request_that_is_under_way():
    for asking in ("generate", "stream", "score"):
        budget = Budget(seconds=0.05)
        model = Metered(FakeBackend({"": "x " * 500}, seconds=0.01), budget)

        async def whole(model=model, asking=asking):
            if asking == "generate":
                await model.generate("a", Sampling(max_tokens=400))
            elif asking == "stream":
                async for _ in model.stream("a", Sampling(max_tokens=400)):
                    pass
            else:
                model.inner.score = lambda *_: asyncio.sleep(10)
                await model.score("a", ["b"])

        with pytest.raises(BudgetExceeded) as error:
            asyncio.run(whole())
        assert error.value.what == "seconds" and error.value.limit == 0.05
        assert budget.left.seconds == 0
        assert budget.spent.tokens == (2 if asking == "score" else 401)  # nobody can tell what it took
        with pytest.raises(BudgetExceeded, match="seconds is spent"):
            asyncio.run(model.generate("a"))


def test_a_timeout_of_something_else_stays_one():
    class Slow(FakeBackend):
        async def generate(self, *_, **__):
            raise TimeoutError("mine")

    with pytest.raises(TimeoutError, match="mine"):
        asyncio.run(Metered(Slow(), Budget(seconds=60)).generate("a"))


def test_waiting_for_others_ends_with_the_time():
    session = Budget(tokens=30)
    slow = Metered(FakeBackend({"": "x " * 500}, seconds=0.01), session)
    hasty = Metered(FakeBackend(), session.part(seconds=0.03))

    async def whole():
        first = asyncio.create_task(slow.generate("a", Sampling(max_tokens=25)))
        await asyncio.sleep(0)
        with pytest.raises(BudgetExceeded) as error:
            await hasty.generate("a", TEN)
        assert error.value.what == "seconds"
        await first

    asyncio.run(whole())


def test_a_stream_notes_what_came():
    budget = Budget()
    model = Metered(FakeBackend({"": "a b c d e"}), budget, price=Price(1e6, 2e6))

    async def whole():
        deltas = [delta async for delta in model.stream("x", TEN)]
        assert deltas[-1].usage == Usage(1, 5, cost=11.0) and used(budget) == (6, 1)
        some = model.stream("x", TEN)
        await anext(some)
        await anext(some)
        await some.aclose()
        assert used(budget) == (9, 2)
        return assembled(deltas)

    assert asyncio.run(whole()).text == "a b c d e"


def test_a_stream_that_breaks_off_notes_what_came():
    class Breaks(FakeBackend):
        async def stream(self, *given, **more):
            yield await anext(super().stream(*given, **more))
            raise BackendError("cut", retryable=True)

    budget = Budget()

    async def whole():
        with pytest.raises(BackendError):
            async for _ in Metered(Breaks({"": "a b"}), budget).stream("x y z", TEN):
                pass

    asyncio.run(whole())
    assert used(budget) == (4, 1)


def test_a_cancelled_request_counts_whole_and_a_refused_one_not_at_all():
    budget = Budget()
    model = Metered(FakeBackend(seconds=1, errors={2: BackendError("busy"), 3: BadInput("no")}), budget)

    async def whole():
        job = asyncio.create_task(model.generate("a b", TEN))
        await asyncio.sleep(0.01)
        job.cancel()
        await asyncio.wait([job])
        assert used(budget) == (12, 1)
        with pytest.raises(BackendError):
            await model.generate("a b", TEN)
        assert used(budget) == (12, 2)
        with pytest.raises(BadInput):
            await model.generate("a b", TEN)
        assert used(budget) == (12, 2)

    asyncio.run(whole())
    assert budget._held.tokens == 0 and budget._held.calls == 0


def test_costs():
    price = Price(3, 15, "EUR", cached_per_million=0.3)
    assert price.of(Usage(prompt=1_000_000, cached=500_000, completion=100_000)) == pytest.approx(1.5 + 0.15 + 1.5)
    budget = Budget(cost=0.001)
    model = Metered(FakeBackend({"": "a"}), budget, price=Price(0, 20))

    async def whole():
        reply = await model.generate("x", Sampling(max_tokens=40))
        assert reply.usage.cost == pytest.approx(20e-6) == budget.spent.cost
        with pytest.raises(BudgetExceeded, match="cost"):
            await model.generate("x", Sampling(max_tokens=50))

    asyncio.run(whole())
    with pytest.raises(BadInput, match="needs to know what tokens cost"):
        Metered(FakeBackend(), budget)
    Metered(model, budget.part(tokens=5))  # what is inside knows the price


def test_a_part_is_used_of_the_whole_too():
    session = Budget(tokens=40)
    first, second = session.part(tokens=15), session.part()
    backend = FakeBackend({"": "a b c d"})

    async def whole():
        await Metered(backend, first).generate("x", TEN)
        assert first.spent.tokens == session.spent.tokens == 5
        with pytest.raises(BudgetExceeded) as error:
            await Metered(backend, first).generate("x", TEN)
        assert error.value.limit == 15
        for _ in range(5):
            await Metered(backend, second).generate("x", TEN)
        assert session.spent.tokens == 30 and second.left.tokens == 10 and first.left.tokens == 10
        with pytest.raises(BudgetExceeded) as error:
            await Metered(backend, second).generate("x", TEN)
        assert error.value.limit == 40

    asyncio.run(whole())


def test_answers_without_a_model_cost_nothing():
    free = Reply("kept", usage=Usage(5, 5, calls=0), cached=True)
    budget = Budget()
    reply = asyncio.run(Metered(FakeBackend([free]), budget, price=Price(1, 1)).generate("a", TEN))
    assert reply == free and used(budget) == (0, 0) and budget.spent.cost == 0


@pytest.mark.parametrize("limit", [{"tokens": -1}, {"seconds": float("nan")}])
def test_limits_that_are_none(limit):
    with pytest.raises(BadInput, match="give 0 or more"):
        Budget(**limit)
