"""Many requests over one network: each gets what it gets alone, whoever else is served and whenever they come."""

import asyncio
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from intarsia.errors import BadInput
from intarsia.prompting.base import BackendError, ContextOverflow, Message, Sampling
from intarsia.prompting.base.local import open_local
from tests.tiny import CAUSAL, tiny


def opened(model, **options):
    return open_local(model, threads=1, **options)


def run(work):
    return asyncio.run(work)


def alone(model, ids, count, ends=(2,)):
    """Greedy tokens by plain forwards, in float64; how near the second best token ever came.

    Experts are multiplied in float32 at most by torch's grouped product."""
    network = model.copy().network
    network = network if hasattr(network.config, "num_experts_per_tok") else network.double()
    out, nearest = list(ids), float("inf")
    with torch.no_grad():
        while len(out) < len(ids) + count:
            logits = network(input_ids=torch.tensor([out])).logits[0, -1]
            best = logits.topk(2).values
            nearest = min(nearest, float(best[0] - best[1]))
            token = int(logits.argmax())
            if token in ends:
                break
            out.append(token)
    return out[len(ids) :], nearest


def prompts(seed, count, longest=40):
    draw = random.Random(seed)
    return [[draw.randrange(10, 266) for _ in range(draw.randrange(1, longest))] for _ in range(count)]


@pytest.mark.parametrize("family", CAUSAL)
def test_greedy_tokens_are_those_of_plain_forwards(family):
    model = tiny(family)

    async def work():
        backend = opened(model)
        replies = await asyncio.gather(*(backend.generate(p, Sampling(max_tokens=12)) for p in prompts(1, 6)))
        await backend.close()
        return replies

    for ids, reply in zip(prompts(1, 6), run(work()), strict=True):
        wanted, nearest = alone(model, ids, 12)
        assert nearest > 1e-4 and list(reply.tokens) == wanted
        assert reply.usage.prompt == len(ids)
        assert (reply.finish, reply.usage.completion) in (("length", 12), ("stop", len(wanted) + 1))


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 9), st.integers(1, 5), st.sampled_from(["llama", "gpt2", "gemma3"]))
def test_who_comes_and_goes_changes_nothing(seed, count, rows, family):
    model = tiny(family)
    draw = random.Random(seed)
    asked = [
        (ids, Sampling(max_tokens=draw.randrange(1, 20), temperature=draw.choice([0, 0, 1.5]), seed=draw.randrange(99)))
        for ids in prompts(seed, count)
    ]
    waits, leaves = [draw.random() * 0.01 for _ in asked], [draw.random() < 0.25 for _ in asked]

    async def one(backend, i):
        await asyncio.sleep(waits[i])
        if not leaves[i]:
            return await backend.generate(*asked[i])
        stream = backend.stream(*asked[i])
        async for _ in stream:
            break
        await stream.aclose()

    async def work():
        together, single = opened(model, max_batch=rows), opened(model, max_batch=1, memory=1)
        both = await asyncio.gather(*(one(together, i) for i in range(count)))
        apart = [await single.generate(*a) for a in asked]
        await asyncio.gather(together.close(), single.close())
        assert together.statistics()["running"] == together.statistics()["waiting"] == 0
        return both, apart

    for got, wanted, (ids, sampling) in zip(*run(work()), asked, strict=True):
        if got is None:
            continue
        if got.tokens != wanted.tokens and not sampling.temperature:
            assert alone(model, ids, sampling.max_tokens)[1] < 1e-4  # two tokens as good as equal
        elif got.tokens != wanted.tokens:
            raise AssertionError(f"{got.tokens} together, {wanted.tokens} alone")


def test_a_seed_gives_the_same_draws_and_the_distribution_is_the_models():
    model = tiny("llama")
    ids = [20, 30, 40]
    asked = [Sampling(max_tokens=8, temperature=0.7, seed=s, top_k=k, top_p=p) for s in (1, 2) for k in (0, 5)
             for p in (1.0, 0.6)]  # fmt: skip

    async def work():
        backend = opened(model, max_batch=16, waiting=2000)
        first = [await backend.generate(ids, s) for s in asked]
        again = await asyncio.gather(*(backend.generate(ids, s) for s in asked))
        many = await asyncio.gather(
            *(backend.generate(ids, Sampling(max_tokens=1, temperature=1.0, seed=s, top_k=3)) for s in range(1200))
        )
        await backend.close()
        return first, again, many

    first, again, many = run(work())
    assert [r.tokens for r in first] == [r.tokens for r in again]
    assert len({r.tokens for r in first}) > 4
    with torch.no_grad():
        best = model.network(input_ids=torch.tensor([ids])).logits[0, -1].topk(3)
    share = best.values.softmax(-1)
    for token, wanted in zip(best.indices.tolist(), share.tolist(), strict=True):
        got = np.mean([r.tokens == (token,) for r in many])
        assert abs(got - wanted) < 4 * (wanted * (1 - wanted) / len(many)) ** 0.5


def test_pieces_add_up_to_the_answer():
    model = tiny("llama")

    async def work():
        backend = opened(model)
        sampling = Sampling(max_tokens=30, logprobs=2)
        whole = await backend.generate([Message("user", "hi")], sampling)
        pieces = [d async for d in backend.stream([Message("user", "hi")], sampling)]
        await backend.close()
        return whole, pieces

    whole, pieces = run(work())
    assert "".join(d.text for d in pieces) == whole.text
    assert tuple(t for d in pieces for t in d.tokens) == whole.tokens
    assert [p.token for d in pieces for p in d.logprobs] == [p.token for p in whole.logprobs]
    assert pieces[-1].finish == whole.finish and all(d.finish is None for d in pieces[:-1])
    wanted = model.tokenizer.decode(whole.tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    assert whole.text == wanted


def test_log_probabilities_are_the_models_own():
    model = tiny("gpt2")
    ids = [40, 41, 42]

    async def work():
        backend = opened(model)
        reply = await backend.generate(
            ids, Sampling(max_tokens=6, temperature=2.0, seed=3, logprobs=4, frequency_penalty=1.0)
        )
        await backend.close()
        return reply

    reply = run(work())
    with torch.no_grad():
        logs = model.network(input_ids=torch.tensor([[*ids, *reply.tokens]])).logits[0].double().log_softmax(-1)
    assert len(reply.logprobs) == len(reply.tokens) == 6
    for i, (token, told) in enumerate(zip(reply.tokens, reply.logprobs, strict=True)):
        row = logs[len(ids) - 1 + i]
        assert told.id == token and told.logprob == pytest.approx(float(row[token]), abs=1e-4)
        np.testing.assert_allclose([value for _, value in told.top], row.topk(4).values, atol=1e-4)


def test_penalties_take_off_what_was_made():
    model = tiny("llama")
    ids = [25, 26]

    async def work():
        backend = opened(model)
        plain = await backend.generate(ids, Sampling(max_tokens=25))
        never = await backend.generate(ids, Sampling(max_tokens=25, presence_penalty=100.0))
        await backend.close()
        return plain, never

    plain, never = run(work())
    assert len(set(plain.tokens)) < len(plain.tokens)  # there is something to take off
    assert len(set(never.tokens)) == len(never.tokens) == 25


def test_stop_texts_end_an_answer_and_are_not_told():
    model = tiny("llama")

    async def work():
        backend = opened(model)
        plain = await backend.generate("hello", Sampling(max_tokens=30))
        at = next(
            i for i in range(5, 20) if plain.text[i : i + 3].isascii() and plain.text.find(plain.text[i : i + 3]) == i
        )
        stop = plain.text[at : at + 3]
        whole = await backend.generate("hello", Sampling(max_tokens=30, stop=("none", stop)))
        pieces = [d async for d in backend.stream("hello", Sampling(max_tokens=30, stop=(stop,)))]
        await backend.close()
        return plain.text[:at], whole, pieces

    wanted, whole, pieces = run(work())
    assert whole.text == wanted and whole.finish == "stop"
    assert "".join(d.text for d in pieces) == wanted and pieces[-1].finish == "stop"
    assert whole.usage.completion < 30


def test_what_does_not_fit_is_refused_before_any_work():
    backend = opened(tiny("llama"))

    async def work():
        with pytest.raises(ContextOverflow) as over:
            await backend.generate([20] * 100, Sampling(max_tokens=29))
        assert (over.value.needed, over.value.limit) == (129, 128)
        with pytest.raises(ContextOverflow):
            backend.stream([20] * 100, Sampling(max_tokens=29))
        for prompt, sampling, message in (
            ([], Sampling(), "prompt is empty"),
            ("", Sampling(), "prompt is empty"),
            ([5, 300], Sampling(), "outside the vocabulary of 300"),
            ([5], Sampling(max_tokens=0), "max_tokens: 0 given"),
            ([5], Sampling(temperature=-1), "temperature"),
            ([5], Sampling(top_p=0), "top_p"),
            ([5], Sampling(top_k=-1), "top_k"),
        ):
            with pytest.raises(BadInput, match=message):
                await backend.generate(prompt, sampling)
        assert backend.statistics()["forwards"] == 0
        await backend.close()
        with pytest.raises(BackendError, match="was closed"):
            await backend.generate([5], Sampling(max_tokens=2))

    run(work())


def test_who_leaves_frees_the_place():
    async def work():
        backend = opened(tiny("llama"), max_batch=1, waiting=2)
        first = backend.stream([20], Sampling(max_tokens=100, temperature=1.0, seed=1))
        await anext(first)
        later = [asyncio.ensure_future(backend.generate([21], Sampling(max_tokens=2))) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(BackendError, match="2 requests wait already") as full:
            await backend.generate([22], Sampling(max_tokens=2))
        assert full.value.retryable and full.value.after
        await first.aclose()
        assert [r.usage.completion for r in await asyncio.gather(*later)] == [2, 2]
        cancelled = asyncio.ensure_future(backend.generate([23], Sampling(max_tokens=120)))
        await asyncio.sleep(0)
        cancelled.cancel()
        await backend.generate([24], Sampling(max_tokens=1))
        assert backend.statistics()["cancelled"] == 2
        await backend.close()

    run(work())


def test_a_failing_forward_fails_its_own_requests_alone(monkeypatch):
    model = tiny("llama")
    good, bad = [30, 31, 32], [40, 66, 41]

    async def work():
        backend = opened(model, max_batch=1)
        forward = backend.engine.runner._forward

        def failing(rows, slots, every):
            if any(66 in list(one.ids) for one in rows):
                raise RuntimeError("the machine is on fire\nand more")
            return forward(rows, slots, every)

        monkeypatch.setattr(backend.engine.runner, "_forward", failing)
        results = await asyncio.gather(
            *(backend.generate(p, Sampling(max_tokens=5)) for p in (good, bad, good)), return_exceptions=True
        )
        assert isinstance(results[1], BackendError) and "on fire" in str(results[1]) and "\n" not in str(results[1])
        assert results[0].tokens == results[2].tokens == tuple(alone(model, good, 5)[0])
        assert backend.statistics()["failed"] == 1
        await backend.close()

    run(work())


def test_the_engine_lives_on_whatever_breaks(monkeypatch):
    model = tiny("llama")

    async def work():
        backend = opened(model)
        broken = backend.engine.runner.close
        monkeypatch.setattr(backend.engine.runner, "close", lambda row: 1 / 0)
        lost = await asyncio.gather(
            *(backend.generate(p, Sampling(max_tokens=5)) for p in ([30], [31, 32])), return_exceptions=True
        )
        monkeypatch.setattr(backend.engine.runner, "close", broken)
        assert len(lost) == 2  # nobody waits for ever
        again = await asyncio.gather(*(backend.generate(p, Sampling(max_tokens=5)) for p in ([30], [31, 32])))
        await backend.close()
        return again

    assert [list(r.tokens) for r in run(work())] == [alone(model, p, 5)[0] for p in ([30], [31, 32])]


def test_closing_lets_requests_end():
    async def work():
        backend = opened(tiny("llama"))
        running = asyncio.ensure_future(backend.generate([20], Sampling(max_tokens=50, temperature=1, seed=1)))
        await asyncio.sleep(0)
        await backend.close()
        assert (await running).usage.completion > 0

    run(work())


@pytest.mark.real
def test_a_real_model_answers_as_transformers_does():
    import intarsia as ia

    model = ia.load("smollm2-135m", offline=True)
    talks = [[Message("user", f"Name {i} rivers.")] for i in range(1, 4)]

    async def work():
        backend = open_local(model, threads=1)
        replies = await asyncio.gather(*(backend.generate(t, Sampling(max_tokens=12)) for t in talks))
        ids = [backend.ids(t) for t in talks]
        await backend.close()
        return replies, ids

    for reply, ids in zip(*run(work()), strict=True):
        made = model.network.generate(torch.tensor([ids]), max_new_tokens=12, do_sample=False)[0, len(ids) :]
        assert list(reply.tokens) == [t for t in made.tolist() if t != model.tokenizer.eos_token_id]
