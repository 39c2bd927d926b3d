"""Where the tokens are known: traces prove them, the cache goes by them, and servers are asked with them."""

import asyncio

import pytest
import torch

from intarsia.prompting.base import (
    Budget,
    Cached,
    ContextOverflow,
    Message,
    Metered,
    OpenAICompatible,
    Sampling,
    Traced,
)
from intarsia.prompting.base.chat import chat
from intarsia.prompting.base.local import open_local
from intarsia.prompting.base.traced import sha256_of_ids
from intarsia.prompting.base.wrapping import ids_of, runs_here
from intarsia.prompting.tracing import trace
from tests.remote_help import serving
from tests.tiny import tiny

TALK = [Message("system", "Be short."), Message("user", "What is <|a|> river?")]
TEMPLATE = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}[assistant] "
SHORT = Sampling(max_tokens=4)


@pytest.fixture(scope="module")
def model():
    model = tiny("llama")
    model.tokenizer.chat_template = TEMPLATE
    return model


@pytest.fixture(scope="module")
def local(model):
    backend = open_local(model, threads=1)
    yield backend
    asyncio.run(backend.close())


def test_a_trace_proves_the_tokens_that_were_read(local, tmp_path):
    wanted = chat(local.tokenizer, TALK).ids
    assert tuple(ids_of(Traced(local), TALK)) == wanted and runs_here(Traced(local))

    async def whole():
        with trace("test", tmp_path / "t") as recording:
            await Traced(local).generate(TALK, SHORT)
            [_ async for _ in Traced(local).stream(TALK, SHORT)]
            return [event for event in recording.read().events() if event.kind == "model"]

    events = asyncio.run(whole())
    assert [event.facts["ids"] for event in events] == [{"count": len(wanted), "sha256": sha256_of_ids(wanted)}] * 2
    assert [event.input["prompt"] for event in events] == [TALK] * 2
    assert events[0].output.tokens == events[1].output.tokens


def test_the_cache_goes_by_tokens(local, tmp_path):
    model = Cached(local, tmp_path / "a")

    async def whole():
        text = "What is a river?"
        first = await model.generate(text, SHORT)
        for again in (await model.generate(local.ids(text), SHORT), await model.generate(text, SHORT)):
            assert again.cached and (again.text, again.tokens) == (first.text, first.tokens)
        talk = await model.generate(TALK, SHORT)
        assert not talk.cached and (await model.generate(list(chat(local.tokenizer, TALK).ids), SHORT)).cached

    asyncio.run(whole())


def test_texts_of_no_words_can_be_metered(local):
    budget = Budget()
    assert asyncio.run(Metered(local, budget).embed(["", "a river"])).shape[0] == 2
    assert budget.spent.tokens == local.count("a river")


def scoring(model, vllm):
    """A server that gives the log probabilities of a prompt's tokens: by `echo`, or as vLLM."""

    def answer(path, body):
        if path.endswith("/score"):
            return 404, {}
        if body["max_tokens"] == 0:
            return 400, {"error": {"message": "max_tokens must be at least 1"}}
        if vllm and "echo" in body:
            return 400, {"error": {"message": "echo is not supported"}}
        ids = body["prompt"]
        with torch.no_grad():
            logs = model.network(input_ids=torch.tensor([ids])).logits[0].double().log_softmax(-1)
        values = [None, *(float(logs[at, token]) for at, token in enumerate(ids[1:]))]
        if vllm:
            rows = [v if v is None else {str(i): {"logprob": v}} for i, v in zip(ids, values, strict=True)]
            return 200, {"choices": [{"text": "x", "prompt_logprobs": rows}]}
        logprobs = {"tokens": ["?"] * (len(ids) + 1), "token_logprobs": [*values, -1.0]}
        return 200, {"choices": [{"text": "x", "logprobs": logprobs}]}

    return answer


@pytest.mark.parametrize("vllm", [False, True])
def test_scores_of_a_server_are_those_of_the_model_here(model, local, vllm):
    async def whole(server):
        remote = OpenAICompatible(server.url, "m", tokenizer=model.tokenizer)
        assert not runs_here(remote) and ids_of(remote, "a") is None
        for prompt in (TALK, "A river: "):
            wanted = await local.score(prompt, ["yes", "no, not at all"])
            assert await remote.score(prompt, ["yes", "no, not at all"]) == pytest.approx(wanted, abs=1e-4)
        await remote.close()

    with serving(scoring(model, vllm)) as server:
        asyncio.run(whole(server))


def test_with_a_tokenizer_tokens_are_counted_and_not_estimated(model):
    with serving(lambda *_: (500, {})) as server:
        remote = OpenAICompatible(server.url, "m", tokenizer=model.tokenizer, context_length=50)
        count = len(chat(model.tokenizer, TALK).ids)
        assert remote.count(TALK) == count != OpenAICompatible(server.url, "m").count(TALK)
        with pytest.raises(ContextOverflow) as error:
            asyncio.run(remote.generate(TALK, Sampling(max_tokens=50)))
        assert (error.value.needed, error.value.limit) == (count + 50, 50)
        assert server.asked == []
