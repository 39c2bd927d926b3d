"""The fake model: the same every time, and as strict as a real one."""

import asyncio
import json
import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from intarsia.errors import BadInput
from intarsia.prompting.base import (
    Backend,
    BackendError,
    Call,
    Constraint,
    ContextOverflow,
    FakeBackend,
    InvalidOutput,
    Message,
    Reply,
    Retrying,
    Sampling,
    ToolSpec,
    assembled,
)
from intarsia.prompting.base.fake import pieces
from intarsia.prompting.base.smallest import smallest
from intarsia.prompting.base.validating import errors_of

ASK = [Message("system", "Be short."), Message("user", "What is a river, in one word?")]
TOOL = ToolSpec("look", "Looks.", {"type": "object", "properties": {"at": {"type": "string"}}})


def ask(model, prompt=ASK, sampling=Sampling(), **more):
    return asyncio.run(model.generate(prompt, sampling, **more))


def stream(model, prompt=ASK, sampling=Sampling(), **more):
    async def whole():
        return [delta async for delta in model.stream(prompt, sampling, **more)]

    return asyncio.run(whole())


def test_it_is_a_backend():
    assert isinstance(FakeBackend(), Backend)


def test_a_list_is_answered_in_its_order_and_ends():
    model = FakeBackend(["one", Call("look", {"at": "x"}), Reply("whole", "length"), BackendError("busy")])
    assert ask(model).text == "one"
    assert ask(model, tools=[TOOL]).calls == (Call("look", {"at": "x"}, "call_1"),)
    assert ask(model).finish == "length"
    with pytest.raises(BackendError, match="busy"):
        ask(model)
    with pytest.raises(BadInput, match="has 4 answers"):
        ask(model)
    assert [request.tools for request in model.requests] == [(), (TOOL,), (), (), ()]


def test_patterns_are_searched_for_in_the_last_message():
    model = FakeBackend({r"river": "Rhine", r"^$": "nothing", "": "else"})
    assert [ask(model, p).text for p in (ASK, "a river", "", "a lake")] == ["Rhine", "Rhine", "nothing", "else"]
    with pytest.raises(BadInput, match="no answer to 'a lake'"):
        ask(FakeBackend({"river": "Rhine"}), "a lake")


def test_a_function_is_asked_also_an_async_one():
    async def later(prompt):
        await asyncio.sleep(0)
        return prompt.upper()

    assert ask(FakeBackend(lambda messages: messages[-1].content[::-1])).text == ASK[-1].content[::-1]
    assert ask(FakeBackend(later), "abc").text == "ABC"


def test_a_text_is_no_script():
    with pytest.raises(BadInput, match="a list, a dict or a function"):
        FakeBackend("answer")


def test_a_tool_that_was_not_offered_is_not_called():
    with pytest.raises(BadInput, match="calls look, and no tool was offered"):
        ask(FakeBackend([Call("look")]))


def test_without_a_script_it_says_what_it_was_told_and_draws_by_the_seed():
    model = FakeBackend()
    assert ask(model).text == ASK[-1].content
    drawn = [ask(model, sampling=Sampling(temperature=1, seed=seed)).text for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2] and sorted(drawn[0].split()) == sorted(ASK[-1].content.split())


def test_stop_and_max_tokens_and_the_stream_agree():
    model = FakeBackend({"": "one two three END four"})
    assert ask(model, sampling=Sampling(stop=(" END", "four"))).text == "one two three"
    cut = ask(model, sampling=Sampling(max_tokens=2, logprobs=3))
    assert (cut.text, cut.finish, cut.usage.completion) == ("one two", "length", 2)
    for logprob in cut.logprobs:
        assert len(logprob.top) == 3 and math.fsum(math.exp(p) for _, p in logprob.top) < 1
    deltas = stream(model, sampling=Sampling(max_tokens=2, logprobs=3))
    assert [delta.text for delta in deltas] == ["one", " two", ""]
    assert assembled(deltas) == cut


@given(st.text())
def test_tokens_are_the_text(text):
    assert "".join(pieces(text)) == text
    assert FakeBackend().count(text) == len(pieces(text))


def test_what_does_not_fit_is_refused():
    with pytest.raises(ContextOverflow) as error:
        ask(FakeBackend(context_length=20), "a b c", Sampling(max_tokens=18))
    assert (error.value.needed, error.value.limit) == (21, 20)
    with pytest.raises(BadInput, match="no token ids"):
        ask(FakeBackend(), [1, 2])


def test_tools_and_calls_are_counted():
    model = FakeBackend()
    called = [*ASK, Message("assistant", "", calls=(Call("look", {"at": "x"}),))]
    assert model.count(ASK) < model.count(called) < model.count(called, [TOOL])


def test_errors_come_when_they_are_due_and_pass():
    model = FakeBackend(["a", "b"], errors={1: BackendError("busy", retryable=True), 3: BackendError("broken")})
    patient = Retrying(model, pause=0.001)
    assert ask(patient).text == "a" and len(model.requests) == 2
    with pytest.raises(BackendError, match="broken"):
        ask(patient)
    assert len(model.requests) == 3


def test_a_stream_is_begun_again_only_before_its_first_piece():
    model = FakeBackend({"": "a b"}, errors={1: BackendError("busy", retryable=True)})
    assert [d.text for d in stream(Retrying(model, pause=0.001))] == ["a", " b", ""]

    class Breaks(FakeBackend):
        async def stream(self, *given, **more):
            async for delta in super().stream(*given, **more):
                yield delta
                raise BackendError("cut", retryable=True)

    broken = Breaks({"": "a b"})
    with pytest.raises(BackendError, match="cut"):
        stream(Retrying(broken, pause=0.001))
    assert len(broken.requests) == 1


# --- forms -----------------------------------------------------------------------------------------------------------

SCHEMA = {
    "type": "object",
    "properties": {
        "mood": {"enum": ["neutral", "joy"]},
        "times": {"type": "integer", "minimum": 5},
        "words": {"type": "array", "items": {"type": "string", "minLength": 2}, "minItems": 2},
        "more": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/more"}]},
        "not_wanted": {"type": "number"},
    },
    "required": ["mood", "times", "words", "more"],
    "additionalProperties": False,
    "$defs": {"more": {"type": "object", "properties": {"deep": {"$ref": "#/$defs/more"}}}},
}
FORMS = [
    Constraint("choice", '["yes", "no"]'),
    Constraint("regex", r"[a-z]+@[a-z]+\.org"),
    Constraint("regex", r"a*b"),
    Constraint("regex", r'"[^"]*x"'),
    Constraint("json", json.dumps(SCHEMA)),
    Constraint("json", '{"type": "string", "pattern": "^ab+c$"}'),
    Constraint("json", "{}"),
    Constraint("grammar", 'start: "(" start ")" | "x"'),
]


@pytest.mark.parametrize("form", FORMS, ids=lambda form: f"{form.kind} {form.source[:20]}")
def test_without_a_script_a_form_gets_its_smallest_text(form):
    text = ask(FakeBackend(), constraint=form).text
    assert errors_of(text, form) == [] and ask(FakeBackend(), constraint=form).text == text


def test_the_smallest_texts_are_small():
    texts = [smallest(form) for form in FORMS]
    assert (texts[0], texts[2], texts[3], texts[7]) == ("no", "b", '"x"', "x")
    assert json.loads(texts[4]).keys() == {"mood", "times", "words", "more"}
    assert re.fullmatch(r"[a-z]@[a-z]\.org", texts[1])


def test_choices_are_drawn_by_the_seed():
    drawn = {
        ask(FakeBackend(), sampling=Sampling(temperature=1, seed=seed), constraint=FORMS[0]).text for seed in range(9)
    }
    assert drawn == {"yes", "no"}


@pytest.mark.parametrize(
    ("form", "text", "match"),
    [
        (FORMS[0], "maybe", "none of the 2 choices"),
        (FORMS[1], "a@b.com", "'com' is not allowed"),
        (FORMS[2], "aa", "ends too early"),
        (FORMS[4], '{"mood": "joy"}', "required property"),
        (FORMS[7], "(x", "ends too early"),
    ],
)
def test_a_script_has_to_have_the_form(form, text, match):
    with pytest.raises(InvalidOutput, match=match) as error:
        ask(FakeBackend([text]), constraint=form)
    assert error.value.raw == text


def test_json_may_be_written_in_any_way():
    text = '{"times":7,\n "more": null, "words": ["aa", "bb"], "mood":"joy"}'
    assert ask(FakeBackend([text]), constraint=FORMS[4]).text == text


def test_a_form_that_is_none_is_told():
    for form in (Constraint("regex", "("), Constraint("grammar", "start: nothing")):
        with pytest.raises(BadInput):
            ask(FakeBackend(["a"]), constraint=form)
    with pytest.raises(BadInput, match="no JSON schema"):
        ask(FakeBackend(["{}"]), constraint=Constraint("json", '{"type": "objct"}'))


# --- scores and embeddings -------------------------------------------------------------------------------------------


def test_scores():
    model = FakeBackend()
    first = asyncio.run(model.score(ASK, ["yes", "no", "yes no"]))
    assert first == asyncio.run(FakeBackend().score(ASK, ["yes", "no", "yes no"]))
    assert all(score < 0 for score in first) and first[2] < first[0]
    assert asyncio.run(FakeBackend(scores={"a": -1}).score("x", ["a"])) == [-1.0]
    assert asyncio.run(FakeBackend(scores=lambda prompt, choice: -len(choice)).score("x", ["ab"])) == [-2.0]
    with pytest.raises(BadInput, match="no score for 'b'"):
        asyncio.run(FakeBackend(scores={"a": -1}).score("x", ["b"]))


@settings(max_examples=30)
@given(st.lists(st.text(), max_size=5))
def test_embeddings_have_length_one(texts):
    found = asyncio.run(FakeBackend(width=16).embed(texts))
    assert found.shape == (len(texts), 16) and found.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-5)


def test_texts_that_share_words_are_near():
    a, same, near, far = asyncio.run(FakeBackend(width=256).embed(["red car", "car, red!", "red bus", "deep sea"]))
    assert a @ same == pytest.approx(1) and a @ far < a @ near < 1
