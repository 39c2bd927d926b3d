"""The cache of answers: the same request is asked once, by whoever asks, in whichever process."""

import asyncio
import multiprocessing
import os
import sqlite3
import stat
import threading

import numpy as np
import pytest

from intarsia.errors import BadInput, Note
from intarsia.prompting.base import (
    BackendError,
    Budget,
    Cached,
    Call,
    Constraint,
    FakeBackend,
    Message,
    Metered,
    Price,
    Sampling,
    TokenLogprob,
    ToolSpec,
    Usage,
    assembled,
)
from intarsia.prompting.base.answers import Answers

ASK = [Message("user", "What is a river?")]
TOOL = ToolSpec("look", "Looks.", {"type": "object"})


@pytest.fixture
def file(tmp_path):
    return tmp_path / "deep" / "answers.sqlite"


def test_the_same_request_is_asked_once_and_costs_once(file):
    fake = FakeBackend()
    budget = Budget()
    model = Cached(Metered(fake, budget, price=Price(1, 1)), file)

    async def whole():
        first = await model.generate(ASK, Sampling(logprobs=2))
        again = await model.generate(ASK, Sampling(logprobs=2))
        assert not first.cached and again.cached
        assert (again.text, again.logprobs, again.finish) == (first.text, first.logprobs, first.finish)
        assert isinstance(again.logprobs[0], TokenLogprob)
        assert again.usage == Usage(first.usage.prompt, first.usage.completion, cached=first.usage.prompt, calls=0)
        [delta] = [delta async for delta in model.stream(ASK, Sampling(logprobs=2))]
        assert assembled([delta]) == again
        assert budget.spent.calls == 1

    asyncio.run(whole())
    assert len(fake.requests) == 1
    assert model.stats().answers == {"generate": 1} and (model.stats().hits, model.stats().misses) == (2, 1)


def test_another_request_is_another(file):
    fake = FakeBackend({"": "yes"})
    model = Cached(fake, file)
    others = [
        (ASK, Sampling(), {}),
        ([Message("system", "What is a river?")], Sampling(), {}),
        ("What is a river?", Sampling(), {}),
        ([*ASK, Message("assistant", "", calls=(Call("look"),)), Message("tool", "x", call="1")], Sampling(), {}),
        (ASK, Sampling(max_tokens=5), {}),
        (ASK, Sampling(temperature=1, seed=1), {}),
        (ASK, Sampling(temperature=1, seed=2), {}),
        (ASK, Sampling(), {"constraint": Constraint("choice", '["yes"]')}),
        (ASK, Sampling(), {"constraint": Constraint("regex", "yes")}),
        (ASK, Sampling(), {"tools": [TOOL]}),
    ]

    async def whole():
        for _ in range(2):
            for prompt, sampling, more in others:
                await model.generate(prompt, sampling, **more)
        fake.fingerprint = "other"
        await model.generate(ASK)

    asyncio.run(whole())
    assert len(fake.requests) == len(others) + 1


def test_words_from_outside_are_the_same_words(file):
    from intarsia.prompting.execute.trust import Untrusted

    model = Cached(FakeBackend(), file)

    async def whole():
        await model.generate([Message("user", "river")])
        assert (await model.generate([Message("user", Untrusted("river"))])).cached

    asyncio.run(whole())


def test_what_cannot_be_repeated_is_not_kept(file):
    fake = FakeBackend()
    model = Cached(fake, file)

    async def whole():
        for _ in range(2):
            assert not (await model.generate(ASK, Sampling(temperature=1))).cached
            [_ async for _ in model.stream(ASK, Sampling(temperature=1))]

    asyncio.run(whole())
    assert len(fake.requests) == 4 and model.stats().answers == {}


def test_scores_and_each_texts_embedding_are_kept(file):
    fake = FakeBackend(width=8)
    model = Cached(fake, file)

    async def whole():
        fresh, again = await model.score(ASK, ["a", "b c"]), await model.score(ASK, ["a", "b c"])
        assert fresh == again and (fresh.usage.calls, again.usage.calls) == (1, 0)
        assert again.usage.prompt == again.usage.cached == fresh.usage.prompt
        await model.score(ASK, ["b", "a"])
        first = await model.embed(["x", "y", "x"])
        second = await model.embed(["z", "y", "x"])
        np.testing.assert_array_equal(second[1:], first[[1, 0]])
        np.testing.assert_array_equal(second, await FakeBackend(width=8).embed(["z", "y", "x"]))
        assert second.dtype == np.float32
        assert (await model.embed([])).shape == (0, 8)

    asyncio.run(whole())
    asked = [request.prompt for request in fake.requests if request.kind == "embed"]
    assert asked == [("x", "y"), ("z",), ()]
    assert model.stats().answers == {"score": 2, "embed": 3}


def test_errors_and_halves_are_not_kept(file):
    fake = FakeBackend({"": "a b c"}, errors={1: BackendError("busy")}, seconds=0.001)
    model = Cached(fake, file)

    async def whole():
        with pytest.raises(BackendError):
            await model.generate(ASK)
        some = model.stream(ASK)
        assert (await anext(some)).text == "a"
        await some.aclose()
        assert model.stats().answers == {}
        assert not (await model.generate(ASK)).cached

    asyncio.run(whole())
    assert len(fake.requests) == 3


async def waiting(model, count):
    """Until so many wait for the request that is under way."""
    while [flight._watching for flight in model._flights._flying.values()] != [count]:
        await asyncio.sleep(0.001)


@pytest.mark.parametrize("streaming", [False, True])
def test_a_request_under_way_is_waited_for_also_when_the_first_is_gone(file, streaming):
    async def whole():
        go_on = asyncio.Event()

        async def say(_):
            await go_on.wait()
            return "a b c d"

        fake = FakeBackend(say)
        model = Cached(fake, file)

        async def ask(stream):
            if not stream:
                return await model.generate(ASK)
            return assembled([delta async for delta in model.stream(ASK)])

        first = asyncio.create_task(ask(streaming))
        await waiting(model, 1)
        others = [asyncio.create_task(ask(stream)) for stream in (False, True)]
        await waiting(model, 3)
        first.cancel()
        await waiting(model, 2)
        go_on.set()
        replies = await asyncio.gather(*others)
        assert first.cancelled()
        assert [reply.text for reply in replies] == ["a b c d"] * 2
        assert all(reply.cached and reply.usage.calls == 0 for reply in replies)
        assert (await ask(False)).cached
        assert len(fake.requests) == 1

    asyncio.run(whole())


def test_when_all_are_gone_the_request_is_cancelled(file):
    ended = []
    begun = asyncio.Event()

    class Watched(FakeBackend):
        async def generate(self, *given, **more):
            begun.set()
            try:
                return await super().generate(*given, **more)
            finally:
                ended.append(True)

    model = Cached(Watched({"": "a b"}, seconds=5), file)

    async def whole():
        jobs = [asyncio.create_task(model.generate(ASK)) for _ in range(2)]
        await waiting(model, 2)
        await begun.wait()  # the file is looked into first
        for job in jobs:
            job.cancel()
        await asyncio.wait(jobs)
        assert ended == [True] and all(job.cancelled() for job in jobs)

    asyncio.run(whole())


def test_an_error_is_everybodys(file):
    async def whole():
        go_on = asyncio.Event()

        async def say(_):
            await go_on.wait()
            raise BackendError("broken")

        fake = FakeBackend(say)
        model = Cached(fake, file)
        jobs = [asyncio.create_task(model.generate(ASK)) for _ in range(3)]
        await waiting(model, 3)
        go_on.set()
        assert [str(error) for error in await asyncio.gather(*jobs, return_exceptions=True)] == ["broken"] * 3
        assert len(fake.requests) == 1

    asyncio.run(whole())


# --- the file --------------------------------------------------------------------------------------------------------


def test_what_was_used_least_recently_goes(tmp_path):
    answers = Answers(tmp_path / "a", 1000)
    for number in range(10):
        answers.put("generate", {str(number): bytes(100)})
    assert answers.get(["0"])  # now it is used
    answers.put("generate", {"new": bytes(100)})
    kept = answers.get(map(str, [*range(10), "new"]))
    assert "0" in kept and "new" in kept and "1" not in kept
    assert answers.stats().bytes == 100 * len(kept) <= 1000
    answers.put("generate", {"large": bytes(1001)})
    assert not answers.get(["large"])
    assert answers.clear() == len(kept) and answers.stats().bytes == 0


def test_it_is_nobody_elses(file):
    asyncio.run(Cached(FakeBackend(), file).generate(ASK))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_what_is_something_else_is_left_alone(tmp_path):
    text = tmp_path / "notes.txt"
    text.write_text("dear diary, " * 200)
    other = tmp_path / "other.sqlite"
    with sqlite3.connect(other) as database:
        database.execute("CREATE TABLE mine (a)")
    for path in (text, other):
        before = path.read_bytes()
        with pytest.raises(BadInput, match="no cache of answers"):
            Cached(FakeBackend(), path)
        assert path.read_bytes() == before
    with pytest.raises(BadInput, match="is a folder"):
        Cached(FakeBackend(), tmp_path)
    with pytest.raises(BadInput, match="at least 1"):
        Cached(FakeBackend(), tmp_path / "new", limit=0)
    newer = tmp_path / "newer"
    Answers(newer, 10).close()
    with sqlite3.connect(newer) as database:
        database.execute("PRAGMA user_version = 99")
    with pytest.raises(BadInput, match="newer Intarsia"):
        Cached(FakeBackend(), newer)


def test_an_answer_that_cannot_be_kept_is_given_all_the_same(file):
    model = Cached(FakeBackend(), file)
    with sqlite3.connect(file) as database:
        database.execute("DROP TABLE answers")
        database.execute("CREATE TABLE answers (key TEXT, value BLOB, used REAL)")
    with pytest.warns(Note, match="was not kept"):
        assert asyncio.run(model.generate(ASK)).text == ASK[0].content


def _write(path, start):
    answers = Answers(path, 1 << 20)
    for number in range(start, start + 40):
        answers.put("generate", {str(number): f"{number}".encode()})
        assert answers.get([str(number)])
    answers.close()


def test_several_processes_and_threads_write_at_the_same_time(tmp_path):
    path = tmp_path / "shared"
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_write, args=(path, start)) for start in (0, 20)]
    workers += [threading.Thread(target=_write, args=(path, start)) for start in (40, 60)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert all(worker.exitcode == 0 for worker in workers[:2])
    answers = Answers(path, 1 << 20)
    assert answers.get(map(str, range(100))) == {str(n): str(n).encode() for n in range(100)}


def test_a_fork_has_a_connection_of_its_own(tmp_path):
    answers = Answers(tmp_path / "a", 1 << 20)
    answers.put("generate", {"mine": b"1"})
    child = os.fork()
    if child == 0:
        try:
            answers.put("generate", {"child": b"2"})
            os._exit(0 if answers.get(["mine", "child"]).keys() == {"mine", "child"} else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    assert answers.get(["child"]) == {"child": b"2"}
