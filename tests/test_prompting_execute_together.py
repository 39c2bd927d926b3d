"""Several prompts in one request: what is sent, what comes of it, and what is done where it does not come."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Literal

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from intarsia.errors import BadInput
from intarsia.prompting.base import BackendError, Budget, ContextOverflow, Message, Reply, Sampling, Usage
from intarsia.prompting.base.cache import Cached
from intarsia.prompting.base.fake import FakeBackend, pieces
from intarsia.prompting.base.local import open_local
from intarsia.prompting.base.many import FailedPrompt
from intarsia.prompting.execute import Grammar, Prompt, Shape
from intarsia.prompting.execute.asking_many import ask_many, ask_many_now, share
from intarsia.prompting.execute.together import Answers, put_together
from intarsia.prompting.execute.trust import Untrusted, is_untrusted
from intarsia.prompting.tracing import trace
from tests.tiny import tiny


class Entry(pydantic.BaseModel):
    name: str
    kind: Literal["big", "small"]
    inner: Entry | None = None


def talk(text, system="Say what it is."):
    return (Message("system", system), Message("user", text))


class Unscored(FakeBackend):
    async def score(self, prompt, choices):
        raise BadInput("this server does not score")


WORDS = ["ant", "bee", "cat", "dog", "eel", "fox", "gnu"]
PROMPTS = [talk(word) for word in WORDS]


def answering(prompt):
    """Each word with a letter before it: in a list where there are several."""
    texts = re.findall(r"(?m)^\[\d+\] (\w+)$", prompt[-1].content)
    return json.dumps([f"x{text}" for text in texts]) if texts else f"x{prompt[-1].content}"


def test_what_is_put_together_is_what_they_share_and_numbered_texts():
    said = put_together(PROMPTS[:3])
    assert said == (PROMPTS[0][0], Message("user", "[1] ant\n\n[2] bee\n\n[3] cat"))
    assert put_together(["a", "b"]) == (Message("user", "[1] a\n\n[2] b"),)
    outside = put_together([talk("a"), talk(Untrusted("b"))])
    assert outside[1].content.spans == ((11, 12),)  # where it stood, and nothing else
    with pytest.raises(BadInput, match=r"prompts 0 and 1 \(from 0\) differ"):
        put_together([talk("a"), talk("a", "Be quick.")])
    with pytest.raises(BadInput, match="not token ids"):
        put_together([[1, 2]])
    with pytest.raises(BadInput, match="role assistant"):
        put_together([(Message("assistant", "a"),)])
    assert put_together(["a", "b"], "Text {number}: ")[0].content == "Text 1: a\n\nText 2: b"
    with pytest.raises(BadInput, match="so that texts can be told apart"):
        put_together(["a", "b"], "- ")
    with pytest.raises(BadInput, match="one or more"):
        put_together([])


@pytest.mark.parametrize("count, together, sizes", [(7, 3, [3, 3, 1]), (6, 3, [3, 3]), (2, 5, [2]), (1, 4, [1])])
def test_answers_come_in_order_with_fewer_requests(count, together, sizes):
    backend = FakeBackend(answering)
    found = ask_many_now(backend, PROMPTS[:count], shape=str, together=together, sampling=Sampling(max_tokens=9))
    assert [answer.value for answer in found] == [answer.text for answer in found] == [f"x{w}" for w in WORDS[:count]]
    assert [max(1, len(re.findall(r"\[\d", r.prompt[-1].content))) for r in backend.requests] == sizes
    used = sum((answer.usage for answer in found), Usage(calls=0))
    assert used.calls == len(sizes) and used.prompt == sum(backend.count(r.prompt) for r in backend.requests)
    for request, size in zip(backend.requests, sizes, strict=True):
        assert request.sampling.max_tokens == (9 if size == 1 else 13 * size)
        if size > 1:
            schema = json.loads(request.constraint.source)
            assert schema == {"type": "array", "items": {"type": "string"}, "minItems": size, "maxItems": size}


def test_one_at_a_time_is_as_asking_each():
    backend = FakeBackend(scores=lambda prompt, choice: float(choice == "big"))
    found = ask_many_now(backend, PROMPTS, shape=["big", "small"])
    assert [answer.value for answer in found] == ["big"] * 7 and {r.kind for r in backend.requests} == {"score"}
    assert ask_many_now(backend, [], shape=str) == []


def test_choices_are_scored_each_by_itself():
    def score(prompt, choice):
        assert "[1]" not in prompt[-1].content
        return float((choice == "big") == (prompt[-1].content in WORDS[:3]))

    for prompts in (PROMPTS, [talk(word, f"System {word}") for word in WORDS]):  # they need not be alike
        backend = FakeBackend(scores=score)
        found = ask_many_now(backend, prompts, shape=["big", "small"], together=5)
        assert [answer.value for answer in found] == ["big"] * 3 + ["small"] * 4
        assert {request.kind for request in backend.requests} == {"score"} and len(backend.requests) == 7
        assert found[0].probabilities["big"] > 0.7 and found[0].messages[-1].content == "big"
    # Where one text begins another it is written; where one prompt fails, the others have their answers.
    written = FakeBackend(['["big", "bigger"]'])
    assert [a.value for a in ask_many_now(written, PROMPTS[:2], shape=["big", "bigger"], together=2)][1] == "bigger"
    broken = FakeBackend(scores=score, errors={2: BackendError("no"), 4: BackendError("no")})
    found = ask_many_now(broken, PROMPTS[:3], shape=["big", "small"], together=3, keep_going=True)
    assert [getattr(answer, "value", "failed") for answer in found].count("big") == 2


def test_values_are_of_the_shape_s_type():
    inner = '{"name": "b", "kind": "big", "inner": {"name": "c", "kind": "small", "inner": null}}'
    backend = FakeBackend([f'[{{"name": "a", "kind": "small", "inner": null}}, {inner}]'])
    first, second = ask_many_now(backend, PROMPTS[:2], shape=Entry, together=2)
    assert first.value == Entry(name="a", kind="small") and second.value.inner.name == "c"
    assert json.loads(second.text) == json.loads(inner) and second.messages[-1].role == "assistant"
    schema = json.loads(backend.requests[0].constraint.source)
    assert "$defs" in schema and schema["minItems"] == 2  # what it refers to is where it was
    assert ask_many_now(Unscored(['["1", "2"]']), PROMPTS[:2], shape=Literal[1, 2], together=2)[1].value == 2
    pattern = re.compile(r"a+|b")
    found = ask_many_now(FakeBackend(['["aa", "b"]']), PROMPTS[:2], shape=pattern, together=2)
    assert [answer.value for answer in found] == ["aa", "b"]
    for wrong in (Grammar('start: "a"'), {"type": "object", "properties": {"more": {"$ref": "#"}}}):
        with pytest.raises(BadInput, match=r"grammar|as a whole"):
            ask_many_now(FakeBackend(), PROMPTS[:2], shape=wrong, together=2)


def test_what_has_not_the_form_is_asked_by_itself():
    wrong = [Reply(text, usage=Usage(10, 4)) for text in ("no list", '["only"]', "[1, 2]", '"text"')]
    for reply in wrong:
        backend = FakeBackend([reply, "a", "b", '["c", "d"]'])
        found = ask_many_now(backend, PROMPTS[:4], shape=str, together=2, at_once=1)
        assert [answer.value for answer in found] == ["a", "b", "c", "d"]
        used = sum((answer.usage for answer in found), Usage(calls=0))
        assert used.calls == 4 and used.completion == 4 + 2 + len(pieces('["c", "d"]'))  # the lost ones count
    refused = FakeBackend(["a", "b"], errors={1: BackendError("no schemas here", status=400)})
    assert [a.value for a in ask_many_now(refused, PROMPTS[:2], shape=str, together=2)] == ["a", "b"]


def test_what_does_not_fit_is_halved():
    backend = FakeBackend(answering, context_length=50)
    found = ask_many_now(backend, PROMPTS, shape=str, together=7, sampling=Sampling(max_tokens=4))
    assert [answer.value for answer in found] == [f"x{word}" for word in WORDS]
    sizes = [len(re.findall(r"\[\d", r.prompt[-1].content)) for r in backend.requests]
    assert sum(max(1, size) for size in sizes) == 7 and max(sizes) in (2, 3)

    class Blind(FakeBackend):  # only the server knows how much it takes
        async def generate(self, prompt, *given, **more):
            if prompt[-1].content.count("[") > 2:
                raise ContextOverflow(100, 50)
            return await super().generate(prompt, *given, **more)

    found = ask_many_now(Blind(answering, context_length=None), PROMPTS, shape=str, together=7)
    assert [answer.value for answer in found] == [f"x{word}" for word in WORDS]
    budget = Budget(tokens=150)
    found = ask_many_now(
        FakeBackend(answering), PROMPTS, shape=str, together=7, budget=budget, sampling=Sampling(max_tokens=16)
    )
    assert [answer.value for answer in found] == [f"x{word}" for word in WORDS] and budget.spent.calls > 1


def test_errors_end_it_or_stand_in_their_places():
    def script(prompt):
        return Reply("no list") if "[1]" in prompt[-1].content or prompt[-1].content == "bee" else '"x"'

    with pytest.raises(FailedPrompt, match=r"prompt 1 \(from 0\)") as failed:
        ask_many_now(FakeBackend(script), PROMPTS[:4], shape=Shape.of({"type": "string"}), together=2)
    assert failed.value.number == 1
    found = ask_many_now(FakeBackend(script), PROMPTS[:4], shape={"type": "string"}, together=2, keep_going=True)
    assert [getattr(one, "value", "failed") for one in found] == ["x", "failed", "x", "x"]
    down = BackendError("gone", retryable=True)
    backend = FakeBackend(errors={1: down})
    assert ask_many_now(backend, PROMPTS[:2], shape=str, together=2, keep_going=True) == [down, down]
    assert len(backend.requests) == 1  # nobody answers: it is not asked again for each
    with pytest.raises(FailedPrompt, match="gone"):
        ask_many_now(FakeBackend(errors={1: down}), PROMPTS[:2], shape=str, together=2)
    with pytest.raises(BadInput, match="at least 1"):
        ask_many_now(backend, PROMPTS, shape=str, together=0)


def test_what_stands_beside_text_from_outside_may_have_been_swayed_by_it():
    prompts = [talk("a"), talk(Untrusted("b"))]
    found = ask_many_now(FakeBackend(['["c", "d"]']), prompts, shape=str, together=2)
    assert all(is_untrusted(answer.value) and is_untrusted(answer.text) for answer in found)
    found = ask_many_now(Unscored(['["big", "small"]']), prompts, shape=["big", "small"], together=2)
    assert not any(is_untrusted(answer.value) for answer in found)  # one of a few known texts


def test_rendered_prompts_have_the_same_marks():
    prompt = Prompt(
        "---\ninputs: {turn: untrusted}\nshape: [joy, anger]\nsampling: {max_tokens: 5}\n---\n"
        "{% system %}Name the emotion between {{ fence.open }} and {{ fence.close }}: {{ shape }}{% endsystem %}"
        "{% user %}{{ turn }}{% enduser %}"
    )
    apart = [prompt.render(turn=text) for text in ("Oh no!", "Hm.")]
    with pytest.raises(BadInput, match="render_many"):
        put_together(apart)
    made = prompt.render_many([{"turn": "Oh no!"}, {"turn": "Hm."}])
    said = put_together(made)
    assert said[1].content.count("<untrusted-") == 2 and made[0].fence == made[1].fence
    assert said[1].content.startswith(f"[1] <{made[0].fence}>Oh no!</") and is_untrusted(said[1].content)
    backend = Unscored(['["anger", "joy"]'])
    assert [answer.value for answer in ask_many_now(backend, made, together=2)] == ["anger", "joy"]
    assert backend.requests[-1].sampling.max_tokens == (1 + 4) * 2  # a choice is no longer than its longest text
    assert prompt.render_many([{"turn": "Oh no!"}])[0].hash == apart[0].hash


def test_what_was_asked_is_not_asked_again(tmp_path):
    backend = Cached(FakeBackend(answering), tmp_path / "answers.sqlite")
    first = ask_many_now(backend, PROMPTS, shape=str, together=3)
    again = ask_many_now(backend, PROMPTS, shape=str, together=3)
    assert [a.value for a in first] == [a.value for a in again] and len(backend.inner.requests) == 3
    assert sum(answer.usage.calls for answer in again) == 0
    plain, file = FakeBackend(answering), tmp_path / "t.sqlite"
    with trace("many", file) as t:
        ask_many_now(plain, PROMPTS, shape=str, together=3)
    with trace("many", file, resume=t.id):
        found = ask_many_now(plain, PROMPTS, shape=str, together=3)
    assert [a.value for a in found] == [a.value for a in first] and len(plain.requests) == 3


@given(st.integers(0, 1000), st.integers(0, 1000), st.integers(1, 12))
def test_shares_add_up(prompt, made, of):
    usage = Usage(prompt, made, prompt // 2, made // 3, 1, 0.5)
    total = sum((share(usage, place, of) for place in range(of)), Usage(calls=0))
    assert total.cost == pytest.approx(0.5) and total == Usage(*list(vars(usage).values())[:5], cost=total.cost)


def test_a_network_is_held_to_just_so_many_answers():
    model = tiny("llama")
    model.network.config.max_position_embeddings = 4000
    backend = open_local(model, threads=1)

    async def work():
        drawn = Sampling(max_tokens=30, temperature=1.0, seed=3)
        labels = await ask_many(backend, PROMPTS, shape=["big", "bigger"], together=4, sampling=drawn)
        pattern = await ask_many(backend, PROMPTS[:4], shape=re.compile("[a-z]{1,3}"), together=4, sampling=drawn)
        before = backend.statistics()["requests"]
        await backend.close()
        return labels, pattern, before

    labels, pattern, requests = asyncio.run(work())
    assert len(labels) == 7 and {answer.value for answer in labels} <= {"big", "bigger"}
    assert all(re.fullmatch("[a-z]{1,3}", answer.value) for answer in pattern)
    assert requests == 2 + 1


def test_a_form_of_answers_says_what_is_wrong():
    form = Answers(Shape.of(["a", "b"]), 2)
    assert form.read(' ["a", "b"]') == [("a", "a"), ("b", "b")]
    for text, why in [("{", "not JSON"), ('["a"]', "1 are there"), ('{"a": 1}', "no list"), ('["a", "c"]', "none of")]:
        with pytest.raises(Exception, match=why):
            form.read(text)
