"""Whoever leaves whenever: nothing is left held, nothing under way, and everybody else gets the answer."""

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from intarsia.prompting.base import (
    BackendError,
    Budget,
    Cached,
    FakeBackend,
    Message,
    Metered,
    Sampling,
    Traced,
    assembled,
)

STEPS = st.tuples(st.integers(0, 2), st.booleans(), st.integers(0, 25), st.booleans())


@settings(max_examples=30, deadline=None)
@given(st.lists(STEPS, min_size=1, max_size=8), st.booleans(), st.integers(0, 4))
def test_anybody_may_leave_at_any_time(tmp_path_factory, askers, limited, fails):
    """askers: which prompt, streamed or not, after how many turns of the loop it starts, and whether it is cancelled
    right after as many again. fails: which request of the model does."""
    folder = tmp_path_factory.mktemp("leaving")

    async def whole():
        async def say(prompt):
            for _ in range(5):
                await asyncio.sleep(0)
            return "one two three"

        fake = FakeBackend(say, errors={fails: BackendError("broken")})
        budget = Budget(tokens=40 if limited else None)
        cached = Cached(Metered(fake, budget), folder / "answers")
        model = Traced(cached)

        async def ask(number, streaming, start, _):
            for _ in range(start):
                await asyncio.sleep(0)
            prompt, sampling = [Message("user", f"number {number}")], Sampling(max_tokens=6)
            if not streaming:
                return await model.generate(prompt, sampling)
            return assembled([delta async for delta in model.stream(prompt, sampling)])

        jobs = [asyncio.create_task(ask(*asker)) for asker in askers]
        for job, (_, _, start, leaves) in zip(jobs, askers, strict=True):
            if leaves:
                for _ in range(start):
                    await asyncio.sleep(0)
                job.cancel()
        results = await asyncio.gather(*jobs, return_exceptions=True)
        for result, (*_, leaves) in zip(results, askers, strict=True):
            if isinstance(result, asyncio.CancelledError):
                assert leaves
            elif isinstance(result, BackendError):
                assert fails
            else:
                assert result.text == "one two three" and result.finish == "stop"
        assert not cached._flights._flying
        held = budget._held
        assert (held.tokens, held.calls, held.cost) == (0, 0, 0)
        assert budget.spent.tokens <= 40 or not limited
        assert len(asyncio.all_tasks()) == 1
        await model.close()

    asyncio.run(whole())
