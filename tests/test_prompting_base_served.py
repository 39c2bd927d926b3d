"""Intarsia's client at Intarsia's server: what goes through both is as it was without them."""

import asyncio
import json

import numpy as np
import pytest

from intarsia.errors import BadInput
from intarsia.prompting.base import (
    BackendError,
    Call,
    Constraint,
    ContextOverflow,
    FakeBackend,
    InvalidOutput,
    Message,
    OpenAICompatible,
    Sampling,
    ToolSpec,
    assembled,
)
from intarsia.prompting.base.many import score_many
from intarsia.server.service import Serving, service
from tests.server_help import running

ASK = [Message("system", "Be short."), Message("user", "What is a river?")]
TOOL = ToolSpec("look", "Looks.", {"type": "object", "properties": {"at": {"type": "string"}}})
SCHEMA = json.dumps({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]})


@pytest.fixture
def served(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    fake = FakeBackend()
    serving = Serving()
    serving.registry.add("m", fake)
    with running(service(serving)) as url:
        yield fake, OpenAICompatible(url, "m", pause=0.001)


def run(work):
    return asyncio.run(work)


def test_what_is_asked_arrives(served):
    fake, model = served
    sampling = Sampling(
        max_tokens=9, temperature=0.5, top_p=0.9, top_k=3, seed=4, stop=("x",), logprobs=2, presence_penalty=0.5,
        frequency_penalty=0.25,
    )  # fmt: skip
    called = Message("assistant", "", calls=(Call("look", {"at": "x"}, "c1"),))
    prompt = [*ASK, called, Message("tool", "a sea", call="c1", name="look")]
    constraint = Constraint("json", SCHEMA)
    fake.script = ['{"n": 3}']
    run(model.generate(prompt, sampling, constraint=constraint, tools=[TOOL]))
    [request] = fake.requests
    assert request.sampling == sampling and request.tools == (TOOL,)
    assert json.loads(request.constraint.source) == json.loads(SCHEMA)
    assert [(m.role, m.content, m.calls, m.call) for m in request.prompt] == [
        (m.role, m.content, m.calls, m.call) for m in prompt
    ]


def test_answers_whole_and_in_pieces(served):
    fake, model = served

    async def whole():
        for sampling in (Sampling(logprobs=2), Sampling(max_tokens=2), Sampling(temperature=1, seed=3)):
            wanted = await fake.generate(ASK, sampling)
            got = await model.generate(ASK, sampling)
            pieces = [delta async for delta in model.stream(ASK, sampling)]
            for reply in (got, assembled(pieces)):
                assert (reply.text, reply.finish, reply.usage) == (wanted.text, wanted.finish, wanted.usage)
                assert [p.token for p in reply.logprobs] == [p.token for p in wanted.logprobs]
                np.testing.assert_allclose(
                    [p.logprob for p in reply.logprobs], [p.logprob for p in wanted.logprobs], rtol=1e-6
                )
            assert len(pieces) > 2
        assert (await model.generate("go on", Sampling(max_tokens=5))).text == "go on"

    run(whole())


def test_calls(served):
    fake, model = served
    fake.script = {"": Call("look", {"at": "Köln"}, "c7")}

    async def whole():
        for reply in (
            await model.generate(ASK, tools=[TOOL]),
            assembled([delta async for delta in model.stream(ASK, tools=[TOOL])]),
        ):
            assert reply.calls == (Call("look", {"at": "Köln"}, "c7"),) and reply.finish == "tool_calls"

    run(whole())


def test_a_call_that_has_to_be_made(served):
    fake, model = served

    async def whole():
        for source in ("look", "required"):
            form = Constraint("call", source)
            fake.script = {"": Call("look", {"at": "Köln"}, "c7")}
            assert (await model.generate(ASK, constraint=form, tools=[TOOL])).calls[0].name == "look"
            fake.script = None  # the smallest call
            reply = await model.generate(ASK, constraint=form, tools=[TOOL])
            assert reply.calls[0].name == "look" and reply.finish == "tool_calls"
            direct = await fake.generate(ASK, constraint=form, tools=[TOOL])
            assert direct.calls[0].arguments == reply.calls[0].arguments
        with pytest.raises(BadInput, match="not offered"):
            await fake.generate(ASK, constraint=Constraint("call", "other"), tools=[TOOL])
        fake.script = ["no call"]
        with pytest.raises(InvalidOutput, match="calls no tool, and look had to be called"):
            await fake.generate(ASK, constraint=Constraint("call", "look"), tools=[TOOL])

    run(whole())


@pytest.mark.parametrize(
    "constraint",
    [
        Constraint("json", SCHEMA), Constraint("choice", '["yes", "no"]'), Constraint("regex", r"\d{3}"),
        Constraint("grammar", 'start: "a"+'),
    ],
    ids=lambda constraint: constraint.kind,
)  # fmt: skip
def test_forms(served, constraint):
    fake, model = served
    assert run(model.generate(ASK, constraint=constraint)).text == run(fake.generate(ASK, constraint=constraint)).text
    assert len(fake.requests) == 2 and fake.requests[0].constraint.kind == constraint.kind


def test_scores_embeddings_and_the_model(served):
    fake, model = served

    async def whole():
        for prompt in (ASK, "a text"):
            wanted, found = await fake.score(prompt, ["a", "b c"]), await model.score(prompt, ["a", "b c"])
            assert found == pytest.approx(wanted) and found.usage == wanted.usage
            assert found.usage.prompt == fake.count(prompt) + 1  # "b": no choice's last token is read
        await model.check()
        prompts, choices = [ASK, "a text", [*ASK, Message("user", "b")]], ["a", "b c"]
        found = await score_many(model, prompts, choices)
        for prompt, scores in zip(prompts, found, strict=True):
            assert scores == pytest.approx(await fake.score(prompt, choices))
            assert scores.usage.prompt == fake.count(prompt) + 1
        assert [scores.usage.calls for scores in found] == [1, 0, 0]  # one request
        assert await score_many(model, [], choices) == []
        texts = ["red car", "blue sea", ""][:2]
        np.testing.assert_allclose(await model.embed(texts), await fake.embed(texts), rtol=1e-5)
        await model.check()

    run(whole())


def test_errors(served):
    fake, model = served
    fake.context_length = 300
    with pytest.raises(ContextOverflow) as error:
        run(model.generate(ASK, Sampling(max_tokens=400)))
    assert error.value.limit == 300
    fake.errors = {len(fake.requests) + 1: BackendError("the engine is busy", retryable=True)}
    assert run(model.generate(ASK, Sampling(max_tokens=9))).text == ASK[-1].content
