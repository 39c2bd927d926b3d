"""Asking: a prompt in, a value of the wanted shape out."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from typing import Literal

import pydantic
import pytest

from intarsia.errors import BadInput
from intarsia.prompting.base import BackendError, BudgetExceeded, InvalidOutput, Message, Reply, Sampling
from intarsia.prompting.base.budget import Budget
from intarsia.prompting.base.fake import FakeBackend
from intarsia.prompting.execute.asking import ask, ask_now, hash_of
from intarsia.prompting.execute.trust import Untrusted, is_untrusted
from intarsia.prompting.tracing import trace
from tests.prompting_shapes_help import Drawn, one_a_byte


class Reading(pydantic.BaseModel):
    emotion: Literal["joy", "anger"]
    evidence: str


TALK = (Message("system", "Read."), Message("user", "What a day!"))
JSON = '{"emotion": "joy", "evidence": "what a day"}'


def test_text_and_messages():
    backend = FakeBackend(["fine, thanks", "good"])
    answer = ask_now(backend, "How are you? I am ", sampling=Sampling(max_tokens=9))
    assert answer.value == answer.text == "fine, thanks" and answer.messages == ()
    assert backend.requests[0].sampling.max_tokens == 9
    answer = ask_now(backend, TALK)
    assert answer.messages == (*TALK, Message("assistant", "good"))
    assert answer.prompt_hash == hash_of(TALK) != hash_of("How are you?") and len(answer.prompt_hash) == 64
    assert answer.usage.calls == 1 and answer.usage.completion == 1


def test_a_shape_is_asked_for_and_read():
    backend = FakeBackend([JSON])
    answer = ask_now(backend, TALK, shape=Reading)
    assert answer.value == Reading(emotion="joy", evidence="what a day")
    assert backend.requests[0].constraint.kind == "json" and backend.requests[0].constraint.name == "Reading"


def test_a_prompt_s_own_shape_and_sampling_hold(tmp_path):
    from intarsia.prompting.execute import Prompt

    file = tmp_path / "mood.md.j2"
    file.write_text(
        "---\ninputs: {day: untrusted}\nshape: [joy, anger]\nsampling: {max_tokens: 5}\n---\n"
        "{% user %}{{ day }}: {{ shape }}?{% enduser %}\n"
    )
    said = Prompt.load(file).render(day="what a day")
    backend = FakeBackend(scores={"joy": -1.0, "anger": -2.0})
    answer = ask_now(backend, said)
    assert answer.value == "joy" and answer.prompt_hash == said.hash
    assert not is_untrusted(answer.value)  # one of a few known texts


def test_a_choice_is_scored_in_one_pass():
    backend = FakeBackend(scores={"joy": math.log(0.3), "anger": math.log(0.1)})
    answer = ask_now(backend, TALK, shape=Literal["joy", "anger"])
    assert answer.value == "joy" and [request.kind for request in backend.requests] == ["score"]
    assert answer.probabilities == pytest.approx({"joy": 0.75, "anger": 0.25})
    drawn = Counter(
        ask_now(backend, TALK, shape=["joy", "anger"], sampling=Sampling(temperature=1.0, seed=seed)).value
        for seed in range(300)
    )
    assert 190 < drawn["joy"] < 260
    assert ask_now(FakeBackend(scores={"1": -3, "2": -1}), TALK, shape=Literal[1, 2]).value == 2


def test_a_choice_is_generated_where_scores_would_mislead_or_are_not_there():
    backend = FakeBackend(["joyful"], scores={"joy": -1.0, "joyful": -2.0})
    assert ask_now(backend, TALK, shape=["joy", "joyful"]).value == "joyful"

    class NoScores(FakeBackend):
        async def score(self, prompt, choices):
            raise BadInput("this server does not score")

    answer = ask_now(NoScores(["anger"]), TALK, shape=["joy", "anger"])
    assert answer.value == "anger" and answer.probabilities == {}


def test_wrong_answers_are_errors_unless_it_is_to_be_asked_again():
    wrong = Reply("{nothing")
    with pytest.raises(InvalidOutput) as error:
        ask_now(FakeBackend([wrong, JSON]), TALK, shape=Reading)
    assert error.value.raw == "{nothing"
    backend = FakeBackend([wrong, Reply("{again"), JSON])
    answer = ask_now(backend, TALK, shape=Reading, reask=lambda e: f"no: {e.errors[0]}", reasks=2)
    assert answer.value.emotion == "joy" and answer.usage.calls == 3
    said = backend.requests[2].prompt
    assert [message.role for message in said] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert said[2].content == "{nothing" and said[3].content.startswith("no: ")
    with pytest.raises(InvalidOutput):
        ask_now(FakeBackend([wrong, wrong, JSON]), TALK, shape=Reading, reask=lambda e: "again")
    text = FakeBackend([wrong, JSON])
    ask_now(text, "Read: ", shape=Reading, reask=lambda e: "\nNo. ")
    assert text.requests[1].prompt == "Read: {nothing\nNo. "


def test_a_prompt_may_say_what_is_asked_again(tmp_path):
    from intarsia.prompting.execute import Prompt

    file = tmp_path / "again.md.j2"
    file.write_text(
        "---\ninputs: {raw: str, errors: 'list[str]'}\n---\n{% user %}{{ errors | join('; ') }}{% enduser %}\n"
    )
    backend = FakeBackend([Reply("{"), JSON])
    ask_now(backend, TALK, shape=Reading, reask=Prompt.load(file))
    assert "Invalid JSON" in backend.requests[1].prompt[-1].content


def test_an_answer_that_was_cut_says_so():
    with pytest.raises(InvalidOutput, match="cut when all tokens"):
        ask_now(FakeBackend([JSON]), TALK, shape=Reading, sampling=Sampling(max_tokens=4))


def test_what_comes_of_text_from_outside_is_from_outside():
    talk = (Message("user", Untrusted("what a day")),)
    answer = ask_now(FakeBackend([JSON]), talk, shape=Reading)
    assert is_untrusted(answer.value.evidence) and is_untrusted(answer.text)
    assert not is_untrusted(ask_now(FakeBackend([JSON]), TALK, shape=Reading).value)


def test_budgets_and_traces(tmp_path):
    with pytest.raises(BudgetExceeded):
        ask_now(FakeBackend(["a"]), TALK, budget=Budget(tokens=3))
    budget = Budget(tokens=1000)
    with trace("asking", tmp_path / "t.sqlite") as t:
        ask_now(FakeBackend(["yes"]), TALK, budget=budget)
        ask_now(FakeBackend(scores={"a": -1, "b": -2}), TALK, shape=["a", "b"])
    assert budget.spent.calls == 1 and budget.spent.tokens > 0
    events = t.read().events()
    assert [event.name for event in events if event.kind == "model"] == ["generate", "score"]


def test_errors_of_the_backend_go_through():
    backend = FakeBackend(["a"], errors={1: BackendError("gone")})
    with pytest.raises(BackendError, match="gone"):
        ask_now(backend, TALK)


def test_where_a_loop_runs_it_is_awaited():
    async def inside():
        return ask_now(FakeBackend(["a"]), TALK)

    with pytest.raises(BadInput, match="await ask"):
        asyncio.run(inside())
    assert asyncio.run(ask(FakeBackend(["a"]), TALK)).value == "a"


def test_a_model_held_to_a_shape_always_answers_in_it():
    class Short(Reading):
        evidence: str = pydantic.Field(max_length=20)

    backend = Drawn(one_a_byte())
    for _ in range(6):
        assert isinstance(ask_now(backend, TALK, shape=Short).value, Short)
