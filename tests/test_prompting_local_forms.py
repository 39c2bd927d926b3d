"""Forms, tools, choices and beginnings over one network: the same numbers as plain forwards, with less work."""

import asyncio
import json

import pytest
import torch

from intarsia.errors import BadInput
from intarsia.prompting.base import Constraint, Message, Sampling, ToolSpec
from intarsia.prompting.base.local import open_local
from intarsia.prompting.base.local.prefixes import BLOCK, Prefixes
from tests.test_prompting_local_chat import CHATML
from tests.test_prompting_local_generate import alone, prompts
from tests.tiny import tiny

SCHEMA = Constraint("json", json.dumps({
    "type": "object", "properties": {"name": {"enum": ["Oslo", "Ottawa"]}, "n": {"type": "integer", "maximum": 9,
    "minimum": 0}}, "required": ["name", "n"], "additionalProperties": False,
}))  # fmt: skip


def run(work):
    return asyncio.run(work)


def opened(model, **options):
    return open_local(model, threads=1, **options)


def test_an_answer_has_the_form_and_what_has_no_choice_costs_no_forward():
    async def work():
        backend = opened(tiny("llama"))
        sampling = [Sampling(max_tokens=60, temperature=2.0, seed=s) for s in range(6)]
        free = asyncio.ensure_future(backend.generate([30, 31], Sampling(max_tokens=5)))
        replies = [*await asyncio.gather(*(backend.generate([Message("user", "hi")], s, constraint=SCHEMA)
                                           for s in sampling)), await free]  # fmt: skip
        masked = [
            await backend.generate(
                [Message("user", "hi")], Sampling(max_tokens=60, temperature=2.0, seed=s, logprobs=0), constraint=SCHEMA
            )
            for s in range(6)
        ]
        pieces = [d async for d in backend.stream([Message("user", "hi")], sampling[0], constraint=SCHEMA)]
        statistics = backend.statistics()
        await backend.close()
        return replies, masked, pieces, statistics

    (*replies, free), masked, pieces, statistics = run(work())
    for reply in replies:
        value = json.loads(reply.text)
        assert value["name"] in ("Oslo", "Ottawa") and 0 <= value["n"] <= 9 and reply.finish == "stop"
        assert reply.usage.forced > len(reply.tokens) // 2
    assert len({r.text for r in replies}) > 1
    assert free.tokens == tuple(alone(tiny("llama"), [30, 31], 5)[0])
    assert "".join(d.text for d in pieces) == replies[0].text
    # One forward a token, and no token taken for granted: the same distribution, so forms hold alike.
    for reply in masked:
        assert json.loads(reply.text)["name"] in ("Oslo", "Ottawa") and reply.usage.forced == 0
        assert len(reply.logprobs) == len(reply.tokens)
    assert statistics["forced_tokens"] >= sum(r.usage.forced for r in replies)


def test_greedy_by_a_form_is_the_best_of_what_it_allows():
    model = tiny("gpt2")
    form = Constraint("choice", json.dumps(["yes", "no", "perhaps"]))

    async def work():
        backend = opened(model)
        out = await asyncio.gather(*(backend.generate(p, Sampling(max_tokens=9), constraint=form)
                                     for p in prompts(5, 4)))  # fmt: skip
        await backend.close()
        return out

    for ids, reply in zip(prompts(5, 4), run(work()), strict=True):
        with torch.no_grad():
            row = model.network(input_ids=torch.tensor([ids])).logits[0, -1]
        firsts = {w: model.tokenizer.convert_tokens_to_ids(w[0]) for w in ("yes", "no", "perhaps")}
        assert reply.text == max(firsts, key=lambda w: row[firsts[w]])
        assert reply.usage.forced == len(reply.text) - 1


def test_a_form_that_cannot_be_is_refused_before_any_work():
    async def work():
        backend = opened(tiny("llama"))
        with pytest.raises(BadInput, match="cannot be held"):
            await backend.generate([5], Sampling(max_tokens=5), constraint=Constraint("regex", "(["))
        assert backend.statistics()["requests"] == 0
        await backend.close()

    run(work())


def test_calls_of_tools_come_read():
    model = tiny("llama")
    model.tokenizer.chat_template = CHATML.replace("<|im_end|>", "<|end|>").replace("<|im_start|>", "<s>")
    tool = ToolSpec("f", "Does f.", {"type": "object", "properties": {"x": {"const": 1}}, "required": ["x"]})
    call = Constraint("regex", r'<tool_call>\n\{"name": "f", "arguments": \{"x": 1\}\}\n</tool_call>')

    async def work():
        backend = opened(model)
        ask = ([Message("user", "q")], Sampling(max_tokens=100))
        reply = await backend.generate(*ask, constraint=call, tools=[tool])
        pieces = [d async for d in backend.stream(*ask, constraint=call, tools=[tool])]
        with pytest.raises(BadInput, match="tools want a conversation"):
            await backend.generate([5], tools=[tool])
        more = backend.count([Message("user", "q")], [tool]) - backend.count([Message("user", "q")])
        await backend.close()
        return reply, pieces, more

    model.network.config.max_position_embeddings = 512
    reply, pieces, more = run(work())
    assert [(c.name, c.arguments) for c in reply.calls] == [("f", {"x": 1})] and reply.finish == "tool_calls"
    assert reply.text == "" and pieces[-1].calls == reply.calls and "".join(d.text for d in pieces) == ""
    assert more > 50


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3"])
def test_choices_have_the_probability_of_a_plain_forward(family):
    model = tiny(family)
    texts = ["a", "bc", "longer than that", "b"]
    prompt = "What is it? It is "

    def plain(ids, more):
        with torch.no_grad():
            logs = model.network(input_ids=torch.tensor([[*ids, *more]])).logits[0].double().log_softmax(-1)
        return sum(float(logs[len(ids) - 1 + i, token]) for i, token in enumerate(more))

    async def work():
        backend = opened(model)
        first = await backend.score(prompt, texts)
        cached = backend.engine.runner._prefixes.bytes
        running = [asyncio.ensure_future(backend.generate(p, Sampling(max_tokens=20))) for p in prompts(3, 5)]
        again = await backend.score(prompt, texts)
        one = [(await backend.score(prompt, [text]))[0] for text in texts]
        talk = await backend.score([Message("user", prompt)], ["<|end|>"])
        said = backend.ids([Message("user", prompt)])
        others = [r.tokens for r in await asyncio.gather(*running)]
        none = await backend.score(prompt, [])
        with pytest.raises(BadInput, match="empty choice"):
            await backend.score(prompt, [""])
        await backend.close()
        return first, again, one, cached, others, talk, said, none

    first, again, one, cached, others, talk, said, none = run(work())
    ids = model.tokenizer(prompt)["input_ids"]
    wanted = [plain(ids, model.tokenizer(text)["input_ids"]) for text in texts]
    for got in (first, again, one):
        assert got == pytest.approx(wanted, abs=1e-4)
    assert cached > 0 and none == []
    assert [list(t) for t in others] == [alone(model, p, 20)[0] for p in prompts(3, 5)]
    letters = model.tokenizer("<|end|>", split_special_tokens=True)["input_ids"]
    assert len(letters) == 7 and talk == pytest.approx([plain(said, letters)], abs=1e-4)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3"])
def test_a_prompt_that_begins_like_an_earlier_one_computes_what_is_new(family):
    model = tiny(family)
    base = (prompts(8, 1, 60)[0] * 50)[:50]

    async def work():
        backend = opened(model)
        first = await backend.generate([*base, 20], Sampling(max_tokens=20))
        second = await backend.generate([*base, 21, 22], Sampling(max_tokens=10))
        talk = [*base, 20, *first.tokens, 30, 31]
        third = await backend.generate(talk, Sampling(max_tokens=10))
        same = await backend.generate(talk, Sampling(max_tokens=10))
        before = backend.statistics()
        await backend.close()
        return first, second, third, same, talk, before

    first, second, third, same, talk, statistics = run(work())
    assert first.usage.cached == 0 and second.usage.cached == 50 // BLOCK * BLOCK
    assert third.usage.cached >= (50 + len(first.tokens)) // BLOCK * BLOCK
    assert same.usage.cached == (len(talk) - 1) // BLOCK * BLOCK
    assert list(second.tokens) == alone(model, [*base, 21, 22], 10)[0]
    assert list(third.tokens) == list(same.tokens) == alone(model, talk, 10)[0]
    assert statistics["cached_tokens"] == sum(r.usage.cached for r in (second, third, same))


def test_requests_that_begin_alike_at_once_compute_it_once():
    model = tiny("llama")
    base = (prompts(9, 1, 100)[0] * 30)[:96]

    async def work():
        backend = opened(model)
        replies = await asyncio.gather(*(backend.generate([*base, 20 + i], Sampling(max_tokens=4)) for i in range(5)))
        statistics = backend.statistics()
        await backend.close()
        return replies, statistics

    replies, statistics = run(work())
    assert sorted(r.usage.cached for r in replies) == [0, 96, 96, 96, 96]
    for i, reply in enumerate(replies):
        assert list(reply.tokens) == alone(model, [*base, 20 + i], 4)[0]
    assert statistics["prefilled_tokens"] < 2 * len(base)


def test_kept_beginnings_stay_within_their_bytes():
    kept = Prefixes(limit=10 * 100)

    def make(start, end):
        return (start, end), 100

    rows = [list(range(i, i + 5 * BLOCK)) for i in (0, 1000, 2000)]
    for ids in rows:
        assert kept.keep(ids, make) == len(ids)
    assert kept.bytes == 1000 and len(kept) == 10
    # The least recently used went, and no block is left without those before it.
    assert kept.find(rows[0]) == []
    assert [len(kept.find(ids)) for ids in rows[1:]] == [5, 5]
    assert len(kept.find([*rows[1][: 2 * BLOCK], 7, *rows[1]])) == 2
    assert kept.find(rows[1], under="adapter") == []
    assert kept.keep(list(range(5000, 5000 + 40 * BLOCK)), make) == 10 * BLOCK
    assert kept.bytes <= 1000
