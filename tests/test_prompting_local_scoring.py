"""Scores: the sums of a plain float64 forward of each text by itself, whatever they share."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from intarsia.models import wrap
from intarsia.prompting.base import BackendError, Sampling, Usage
from intarsia.prompting.base.local import open_local, scoring
from intarsia.prompting.base.local.engine import Engine
from intarsia.prompting.base.local.engines import SPARE, SessionRunner
from intarsia.prompting.base.local.scoring import Scoring, parts_of
from intarsia.prompting.base.token_tree import tree_of
from tests.test_prompting_local_generate import alone, prompts
from tests.tiny import tiny

FEW = st.lists(st.lists(st.integers(20, 23), min_size=1, max_size=5), min_size=1, max_size=9)
"""Texts of few kinds of tokens: many begin alike, many are equal or of one token."""


@pytest.fixture(scope="module", params=["llama", "gpt2", "gemma3"])
def opened(request):
    model = tiny(request.param)
    precise = wrap(tiny(request.param).network.double(), model.tokenizer)
    backend = open_local(model, threads=1)
    yield backend, precise.network
    asyncio.run(backend.close())


def plain(network, prompt, text):
    """The naive sum: one forward in float64 over prompt and text."""
    with torch.no_grad():
        logs = network(input_ids=torch.tensor([[*prompt, *text]])).logits[0].double().log_softmax(-1)
    return sum(float(logs[len(prompt) - 1 + i, token]) for i, token in enumerate(text))


async def scores(engine, *asked):
    """Scores of (prompt, texts), all asked for at once."""
    loop, out = asyncio.get_running_loop(), []
    for prompt, texts in asked:
        queue = asyncio.Queue()
        out.append(queue)
        engine.submit(Scoring(prompt, texts, None, engine.poster(loop, queue)))
    return [await queue.get() for queue in out]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(10, 40), min_size=1, max_size=20), FEW, FEW)
@example([11], [[20]], [[20, 20], [20], [20, 20]])
@example([11, 12], [[20, 21, 22], [20, 21], [20, 21, 23], [20]], [[23]])
def test_every_sum_is_that_of_a_plain_forward(opened, prompt, one, other):
    backend, network = opened
    before = backend.statistics()
    found = asyncio.run(scores(backend.engine, (prompt, one), ([*prompt, 12], other)))
    for texts, said, ids in ((one, found[0], prompt), (other, found[1], [*prompt, 12])):
        assert said == pytest.approx([plain(network, ids, text) for text in texts], abs=1e-4)
        beginnings = {tuple(text[:end]) for text in texts for end in range(1, len(text))}
        assert (said.usage.prompt, said.usage.completion) == (len(ids) + len(beginnings), 0)
    read = backend.statistics()["prefilled_tokens"] - before["prefilled_tokens"]
    assert read == sum(said.usage.prompt - said.usage.cached for said in found)


def test_many_prompts_share_a_forward_and_answers_go_on_beside(opened):
    backend, network = opened
    texts = [[20, 21], [20, 22, 23], [24]]
    asked = [([*range(20 + n, 50 + n)], texts) for n in range(8)]

    async def work():
        # All wait before the first forward: what is read together does not depend on the machine's speed.
        with backend.paused():
            jobs = asyncio.ensure_future(scores(backend.engine, *asked))
            await asyncio.sleep(0.05)
            before = backend.statistics()["forwards"]
        found = await jobs
        after = backend.statistics()["forwards"]
        running = [asyncio.ensure_future(backend.generate(p, Sampling(max_tokens=20))) for p in prompts(2, 5)]
        again = await scores(backend.engine, *asked)
        return found, again, after - before, [r.tokens for r in await asyncio.gather(*running)]

    found, again, forwards, tokens = asyncio.run(work())
    assert forwards == 1
    for (prompt, _), said, second in zip(asked, found, again, strict=True):
        wanted = [plain(network, prompt, text) for text in texts]
        assert said == pytest.approx(wanted, abs=1e-4) and second == pytest.approx(wanted, abs=1e-4)
        assert second.usage.cached > 0 and second.usage.prompt == said.usage.prompt == len(prompt) + 2
    assert [list(t) for t in tokens] == [alone(backend.model, p, 20)[0] for p in prompts(2, 5)]


def test_what_is_longer_than_a_forward_is_read_in_parts(opened, monkeypatch):
    backend, network = opened
    monkeypatch.setattr("intarsia.prompting.base.local.engine.ALONE", 8)
    monkeypatch.setattr("intarsia.prompting.base.local.scoring.parts_of.__defaults__", (4,))
    prompt = [*range(20, 50)]
    texts = [[20, 21, 22], [20, 21, 23], [25, 26, 27, 28, 29, 30], [31, 32], [20, 33, 34], [20]]
    (found,) = asyncio.run(scores(backend.engine, (prompt, texts)))
    assert found == pytest.approx([plain(network, prompt, text) for text in texts], abs=1e-4)


@given(FEW, st.integers(1, 6))
def test_parts_hold_each_text_once_and_few_tokens(texts, most):
    parts = parts_of([tuple(text) for text in texts], most)
    held = [text for part in parts for text in part.texts]
    assert sorted(held) == sorted({tuple(text) for text in texts})
    assert all(len(part.tree) <= most or len(part.texts) == 1 for part in parts)


@given(st.lists(st.lists(st.sampled_from("ab"), max_size=5), max_size=8))
def test_a_tree_has_each_beginning_once(texts):
    tree, places = tree_of(texts)
    ways = []
    for number, parent in enumerate(tree.parents):
        assert parent < number
        ways.append((*(ways[parent] if parent >= 0 else ()), tree.tokens[number]))
    beginnings = {tuple(text[:end]) for text in texts for end in range(1, len(text))}
    assert set(ways) == beginnings and len(ways) == len(beginnings) and tree.depths == list(map(len, ways))
    for text, place in zip(texts, places, strict=True):
        assert [ways[at - 1] if at else () for at in place] == [tuple(text[:end]) for end in range(len(text))]
    assert {number for path in tree.paths for number in path} == set(range(len(tree)))
    for path in tree.paths:
        assert tuple(tree.tokens[number] for number in path) == ways[path[-1]]


class Counting:
    """A session whose logits tell what a row holds: behind tokens t, token (sum of place * t) mod 50 has most."""

    def __init__(self, rows):
        self.rows, self.places, self.context_length, self.vocabulary, self.ends = rows, 400, 100, 50, ()
        self.held = [[] for _ in range(rows)]
        self.reads = []

    @staticmethod
    def after(ids):
        rng = np.random.default_rng([len(ids), sum((i + 1) * t for i, t in enumerate(ids))])
        return rng.standard_normal(50).astype(np.float32)

    def read(self, steps, *, every=False):
        self.reads.append(steps)
        assert len({step.row for step in steps}) == len(steps)
        out = []
        for row, ids, start in steps:
            self.cut(row, start)
            assert len(self.held[row]) == start and len(ids)
            found = []
            for token in ids:
                self.held[row].append(token)
                found.append(self.after(self.held[row]))
            out.append(np.stack(found if every else found[-1:]))
        return out

    def cut(self, row, length):
        del self.held[row][length:]

    def copy(self, source, target, length):
        assert not self.held[target]
        self.held[target] = self.held[source][:length]


@pytest.mark.parametrize("rows", [1, 2, 9])
@settings(max_examples=15, deadline=None)
@given(asked=st.lists(st.tuples(st.lists(st.integers(1, 9), min_size=1, max_size=6), FEW), min_size=1, max_size=3))
def test_an_engine_without_trees_gives_the_same(rows, asked):
    session = Counting(1 if rows == 1 else 2 * rows + SPARE)
    engine = Engine(SessionRunner(session, rows), "fake")

    async def work():
        found = await scores(engine, *asked)
        return found, await scores(engine, *asked)

    first, second = asyncio.run(work())
    engine.close()
    for (prompt, texts), *both in zip(asked, first, second, strict=True):
        wanted = []
        for text in texts:
            logs = [session.after([*prompt, *text[:i]]).astype(np.float64) for i in range(len(text))]
            wanted.append(sum(row[t] - np.log(np.exp(row).sum()) for row, t in zip(logs, text, strict=True)))
        assert both[0] == pytest.approx(wanted) and both[1] == pytest.approx(wanted)
    assert engine.statistics()["failed"] == 0
    # A text of one token costs nothing: it is told of behind the prompt.
    if all(len(text) == 1 for _, texts in asked for text in texts):
        assert all(len(step.ids) <= 6 for steps in session.reads for step in steps)
    held = [held for held in session.held if held]
    assert all(any(row == prompt[: len(row)] for prompt, _ in asked) for row in held)  # nothing of texts is kept


def test_who_leaves_and_what_fails(monkeypatch):
    backend = open_local(tiny("llama"), threads=1)

    async def work():
        with backend.paused():
            gone = asyncio.ensure_future(backend.score([30, 31], ["ab", "c"]))
            await asyncio.sleep(0.01)
            gone.cancel()
            await asyncio.gather(gone, return_exceptions=True)
        first = await backend.score([30, 31], ["ab", "c"])
        with monkeypatch.context() as broken:
            broken.setattr(backend.engine.runner, "_forward", lambda *_: 1 / 0)
            with pytest.raises(BackendError, match="division"):
                await backend.score([30, 31], ["ab", "c"])
        with monkeypatch.context() as broken:
            broken.setattr(scoring, "Scores", lambda *_: 1 / 0)
            with pytest.raises(BackendError, match="division"):
                await backend.score([30, 31], ["ab", "c"])
        again = await backend.score([30, 31], ["ab", "c"])
        none = await backend.score([30, 31], [])
        await backend.close()
        return first, again, none

    first, again, none = asyncio.run(work())
    assert first == pytest.approx(again, abs=1e-6) and none == [] and none.usage == Usage(calls=0)
    assert backend.statistics()["failed"] == 2 and backend.statistics()["running"] == 0
