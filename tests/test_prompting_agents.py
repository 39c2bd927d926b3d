"""Agents: tools are called, their results read, until there is an answer."""

from __future__ import annotations

import asyncio
import time
from typing import Literal

import pydantic
import pytest

from intarsia.errors import BadInput, Note
from intarsia.prompting.base import Call, InvalidOutput, Message, PromptingError, Reply
from intarsia.prompting.base.budget import Budget
from intarsia.prompting.base.fake import FakeBackend
from intarsia.prompting.execute.agents import agent, agent_now
from intarsia.prompting.execute.asking import ask_now
from intarsia.prompting.execute.tools import tool
from intarsia.prompting.execute.trust import fenced, is_untrusted, taint
from intarsia.prompting.tracing import trace
from tests.prompting_shapes_help import Drawn, one_a_byte

LOG: list[str] = []


@pytest.fixture(autouse=True)
def _empty():
    LOG.clear()


@tool
def find(q: str) -> str:
    """Finds."""
    LOG.append(f"find {q}")
    return f"page of {q}"


@tool(trusted=True)
def add(a: int, b: int) -> int:
    """Adds."""
    LOG.append(f"add {a} {b}")
    return a + b


@tool(writes=True)
def send(to: Literal["ann", "bob"]) -> str:
    """Sends."""
    LOG.append(f"send {to}")
    return "sent"


@tool(confirm=True, trusted=True)
def pay(cents: int) -> str:
    """Pays."""
    LOG.append(f"pay {cents}")
    return "paid"


@tool
def breaks() -> str:
    """Breaks."""
    raise RuntimeError("no luck")


class Sum(pydantic.BaseModel):
    total: int


def c(name: str, **arguments) -> Call:
    return Call(name, arguments)


def test_calls_until_it_answers():
    backend = FakeBackend([[c("find", q="x"), c("add", a=1, b=2)], c("add", a=3, b=4), "seven"])
    done = agent_now(backend, [find, add], "How many?")
    assert done.answer == done.text == "seven" and done.why_stopped == "answer"
    assert sorted(LOG[:2]) == ["add 1 2", "find x"] and LOG[2:] == ["add 3 4"]
    roles = [message.role for message in done.messages]
    assert roles == ["user", "assistant", "tool", "tool", "assistant", "tool", "assistant"]
    told = [message.content for message in done.messages if message.role == "tool"]
    assert told == [fenced(taint("page of x"))[0], "3", "7"] and ">page of x</untrusted-" in told[0]
    ids = [call.id for message in done.messages for call in message.calls]
    assert [m.call for m in done.messages if m.role == "tool"] == ids and all(ids)
    assert [(one.call.name, one.result, one.failed) for one in done.calls][2] == ("add", "7", False)
    assert done.usage.calls == 3
    assert [spec.name for spec in backend.requests[0].tools] == ["find", "add"]


def test_results_of_tools_are_from_outside():
    done = agent_now(FakeBackend([c("find", q="x"), "so"]), [find], "?")
    assert is_untrusted(done.messages[2]) and is_untrusted(done.answer)
    done = agent_now(FakeBackend([c("add", a=1, b=2), "so"]), [add], "?")
    assert not is_untrusted(done.messages) and not is_untrusted(done.answer)


def test_a_shape_is_kept():
    good = FakeBackend([c("add", a=1, b=2), '{"total": 3}'])
    assert agent_now(good, [add], "?", shape=Sum).answer == Sum(total=3)
    late = FakeBackend([c("add", a=1, b=2), "It is three.", '{"total": 3}'])
    done = agent_now(late, [add], "?", shape=Sum)
    assert done.answer == Sum(total=3) and done.usage.calls == 3
    assert late.requests[2].constraint.kind == "json" and late.requests[2].tools == ()
    never = FakeBackend(["It is three.", Reply("still three")])
    with pytest.raises(InvalidOutput):
        agent_now(never, [add], "?", shape=Sum)


def test_writing_needs_a_yes_after_text_from_outside():
    script = [c("find", q="x"), c("send", to="ann"), "done"]
    done = agent_now(FakeBackend(script), [find, send], "?")
    assert LOG == ["find x"] and "not allowed" in done.calls[1].result and done.calls[1].failed
    asked = []

    async def confirm(name, arguments, why):
        asked.append((name, dict(arguments), why))
        return True

    agent_now(FakeBackend(script), [find, send], "?", confirm=confirm)
    assert (
        LOG == ["find x", "find x", "send ann"]
        and asked[0][:2] == ("send", {"to": "ann"})
        and "outside" in asked[0][2][0]
    )
    LOG.clear()
    agent_now(FakeBackend([c("send", to="bob"), "done"]), [find, send], "?")  # nothing from outside yet
    assert LOG == ["send bob"]


def test_tools_that_ask_for_it_are_confirmed():
    done = agent_now(FakeBackend([c("pay", cents=5), "done"]), [pay], "?", confirm=lambda *a: False)
    assert LOG == [] and "the tool asks for it" in done.calls[0].result
    agent_now(FakeBackend([c("pay", cents=5), "done"]), [pay], "?", confirm=lambda *a: True)
    assert LOG == ["pay 5"]


def test_errors_go_back_once():
    done = agent_now(FakeBackend([c("breaks"), c("add", a="x", b=1), "sorry"]), [breaks, add], "?")
    assert done.why_stopped == "errors" and done.answer is None
    assert [one.result for one in done.calls] == [
        "error: RuntimeError: no luck",
        "error: a: Input should be a valid integer, unable to parse string as an integer",
    ]
    done = agent_now(FakeBackend([c("breaks"), c("add", a=1, b=1), c("breaks"), "sorry"]), [breaks, add], "?")
    assert done.why_stopped == "answer"
    with pytest.raises(PromptingError, match="its calls fail: error: RuntimeError"):
        agent_now(FakeBackend([c("breaks"), c("breaks")]), [breaks], "?", strict=True)


def test_unknown_tools_and_malformed_calls_are_told():
    class Loose(FakeBackend):
        async def generate(self, prompt, sampling=None, *, constraint=None, tools=()):
            answer = self.script[len(self.requests)]
            self.requests.append(prompt)
            return answer

    backend = Loose([Reply("", calls=(c("fnd", q="x"),)), Reply("well")])
    done = agent_now(backend, [find], "?")
    assert done.calls[0].result == "error: there is no tool 'fnd' (did you mean find?)"
    backend = Loose([Reply('<tool_call>{"name": </tool_call>'), Reply("well")])
    done = agent_now(backend, [find], "?")
    assert (
        done.answer == "well"
        and done.messages[2].role == "tool"
        and "no call could be read" in done.messages[2].content
    )


def test_calls_that_bring_nothing_new_end_it():
    backend = FakeBackend([c("find", q="x")] * 9)
    done = agent_now(backend, [find], "?")
    assert done.why_stopped == "repeated" and len(LOG) == 3
    assert "the same call gave the same result before" in done.messages[4].content
    ab = [c("find", q="x"), c("find", q="y")] * 5
    assert agent_now(FakeBackend(ab), [find], "?").why_stopped == "repeated"
    # The same call with other results is no repetition.
    numbers = iter(range(9))

    @tool
    def look() -> str:
        """Looks."""
        return f"at {next(numbers)}"

    assert agent_now(FakeBackend([c("look")] * 6 + ["there"]), [look], "?").answer == "there"


def test_steps_and_budgets_end_it():
    numbers = [c("find", q=str(i)) for i in range(20)]
    done = agent_now(FakeBackend(numbers), [find], "?", steps=3)
    assert done.why_stopped == "steps" and done.usage.calls == 3 and done.answer is None
    done = agent_now(FakeBackend(numbers), [find], "?", budget=Budget(calls=2))
    assert done.why_stopped == "budget" and done.usage.calls == 2
    with pytest.raises(PromptingError, match="all its steps"):
        agent_now(FakeBackend(numbers), [find], "?", steps=2, strict=True)

    @tool
    async def slow() -> str:
        """Slow."""
        await asyncio.sleep(5)
        return ""

    begun = time.monotonic()
    done = agent_now(FakeBackend([c("slow"), "done"]), [slow], "?", budget=Budget(seconds=0.2))
    assert done.why_stopped == "budget" and time.monotonic() - begun < 4


def test_a_tool_that_has_to_be_called_first():
    backend = FakeBackend([c("add", a=1, b=1), c("find", q="x"), "so"])
    done = agent_now(backend, [find, add], "?", first="find")
    assert done.answer == "so" and [one.call.name for one in done.calls] == ["add", "find"]
    forms = [request.constraint for request in backend.requests]
    assert [form and (form.kind, form.source) for form in forms] == [("call", "find")] * 2 + [None]
    # One that fails does not count; any will do where none is named.
    backend = FakeBackend([c("breaks"), c("add", a=1, b=1), "so"])
    assert agent_now(backend, [breaks, add], "?", first=True).answer == "so"
    forms = [request.constraint for request in backend.requests]
    assert [form and form.source for form in forms] == ["required"] * 2 + [None]
    # What was called earlier in the conversation was called, unless it failed.
    talk = agent_now(FakeBackend([c("find", q="x"), "so"]), [find], "?").messages[:3]
    assert agent_now(FakeBackend(["so"]), [find], talk, first="find").answer == "so"
    failed = agent_now(FakeBackend([c("breaks"), "so"]), [breaks], "?").messages[:3]
    assert "error: RuntimeError: no luck" in failed[2].content and is_untrusted(failed[2])
    backend = FakeBackend([c("breaks")] * 3)
    assert agent_now(backend, [breaks], failed, first=True).answer is None
    assert {request.constraint.source for request in backend.requests} == {"required"}


def test_a_model_that_does_not_call_what_it_must_is_told_and_stopped():
    class Stubborn(FakeBackend):
        async def generate(self, prompt, sampling=None, *, constraint=None, tools=()):
            self.requests.append(prompt)
            return Reply("I know it.")

    for backend in (FakeBackend(["I know it."] * 3), Stubborn()):
        done = agent_now(backend, [find], "?", first="find")
        assert done.why_stopped == "errors" and done.answer is None and done.usage.calls == 2
        assert done.messages[-1].content == "error: a tool has to be called before the answer"


def test_the_last_step_is_the_answer():
    numbers = [c("find", q=str(i)) for i in range(2)]
    backend = FakeBackend([*numbers, '{"total": 3}'])
    done = agent_now(backend, [find], "?", shape=Sum, steps=3, conclude=True)
    assert done.answer == Sum(total=3) and done.why_stopped == "answer" and done.usage.calls == 3
    assert backend.requests[2].tools == () and backend.requests[2].constraint.kind == "json"
    assert [len(request.tools) for request in backend.requests[:2]] == [1, 1]
    assert agent_now(FakeBackend(['{"total": 3}']), [find], "?", shape=Sum, steps=3, conclude=True).usage.calls == 1
    with pytest.raises(InvalidOutput):
        agent_now(FakeBackend([Reply("three"), '{"total": 3}']), [find], "?", shape=Sum, steps=1, conclude=True)
    assert agent_now(FakeBackend([numbers[0], "so"]), [find], "?", steps=2, conclude=True).answer == "so"
    broken = FakeBackend([numbers[0], "<tool_call>{</tool_call>"])
    assert agent_now(broken, [find], "?", steps=2, conclude=True).why_stopped == "steps"


def test_calls_that_bring_nothing_new_end_in_the_answer_too():
    same = [c("find", q="x")] * 3
    done = agent_now(FakeBackend([*same, '{"total": 3}']), [find], "?", shape=Sum, steps=8, conclude=True)
    assert done.answer == Sum(total=3) and done.why_stopped == "answer" and done.usage.calls == 4
    assert agent_now(FakeBackend(same), [find], "?", shape=Sum, steps=8).why_stopped == "repeated"


def test_it_goes_on_from_its_messages():
    first = agent_now(FakeBackend([c("find", q="x"), c("find", q="y")]), [find], "?", steps=1)
    done = agent_now(FakeBackend(["so"]), [find], first.messages)
    assert done.answer == "so" and done.messages[:3] == first.messages and LOG == ["find x"]
    # Calls that were not done yet are done first.
    open_ = first.messages[:2]
    done = agent_now(FakeBackend(["so"]), [find], open_)
    assert LOG == ["find x", "find x"] and done.messages[2].content == fenced(taint("page of x"))[0]
    assert done.usage.calls == 1


def test_a_checker_says_when_to_stop():
    places = []

    @tool(writes=True, trusted=True)
    def move(to: Literal["left", "right"]) -> str:
        """Moves."""
        places.append(to)
        return f"at {len(places)}"

    def check(messages: list[Message], done):
        return places if len(places) == 3 else None

    done = agent_now(FakeBackend([c("move", to="left")] * 9), [move], "?", check=check)
    assert done.why_stopped == "checker" and done.answer == ["left"] * 3


def test_tools_that_write_are_called_one_after_the_other():
    order = []

    def made(name: str, writes: bool):
        async def work() -> str:
            order.append(f"{name} begins")
            await asyncio.sleep(0.02)
            order.append(f"{name} ends")
            return name

        return tool(name=name, description="Works.", writes=writes)(work)

    agent_now(FakeBackend([[c("a"), c("b")], "x"]), [made("a", True), made("b", False)], "?")
    assert order == ["a begins", "a ends", "b begins", "b ends"]
    order.clear()
    agent_now(FakeBackend([[c("a"), c("b")], "x"]), [made("a", False), made("b", False)], "?")
    assert order[:2] == ["a begins", "b begins"]


def test_every_step_is_traced_and_not_done_again(tmp_path):
    file = tmp_path / "t.sqlite"
    script = [c("find", q="x"), "so"]
    with trace("one", file) as t:
        agent_now(FakeBackend(script), [find], "?")
    events = t.read().events()
    kinds = [(event.kind, event.name) for event in events]
    assert ("flow", "agent") in kinds and ("tool", "find") in kinds and kinds.count(("model", "generate")) == 2
    assert next(event for event in events if event.kind == "tool").output == {"result": "page of x", "failed": False}
    same = FakeBackend(script)
    with trace("one", file, resume=t.id):
        done = agent_now(same, [find], "?")
    assert done.answer == "so" and LOG == ["find x"] and not same.requests
    with trace("one", file, resume=t.id), pytest.warns(Note, match="source has changed"):  # another model
        assert agent_now(FakeBackend(["no"]), [find], "?").answer == "no"


def test_asking_with_tools():
    answer = ask_now(FakeBackend([c("add", a=1, b=2), '{"total": 3}']), "?", tools=[add], shape=Sum)
    assert answer.value == Sum(total=3) and answer.usage.calls == 2 and len(answer.messages) == 4
    with pytest.raises(PromptingError):
        ask_now(FakeBackend([c("breaks"), c("breaks")]), "?", tools=[breaks])


def test_what_cannot_be_an_agent():
    with pytest.raises(BadInput, match="same name"):
        agent_now(FakeBackend([]), [find, find], "?")
    with pytest.raises(BadInput, match="at least 1"):
        agent_now(FakeBackend([]), [find], "?", steps=0)
    with pytest.raises(BadInput, match="not token ids"):
        agent_now(FakeBackend([]), [find], [1, 2])
    with pytest.raises(BadInput, match="no tool 'fnd'"):
        agent_now(FakeBackend([]), [find], "?", first="fnd")
    with pytest.raises(BadInput, match="a step of its own"):
        agent_now(FakeBackend([]), [find], "?", first=True, steps=1, conclude=True)


def test_a_model_held_to_calls_and_shapes_never_errs():
    """A model without any sense, held to the form: each call is valid, and the answer has the shape."""

    @tool(trusted=True)
    def pick(kind: Literal["a", "b"], n: int = 0) -> str:
        """Picks."""
        LOG.append(kind)
        return f"{len(LOG)}"

    stops = set()
    for seed in range(12):
        backend = Drawn(one_a_byte(), seed, most=1500)
        done = asyncio.run(agent(backend, [pick], "?", shape=Literal["yes", "no"], steps=4))
        assert not any(one.failed for one in done.calls)
        assert done.answer in ("yes", "no") if done.why_stopped == "answer" else done.why_stopped == "steps"
        stops.add(done.why_stopped)
        looked = asyncio.run(
            agent(backend, [pick], "?", shape=Literal["yes", "no"], steps=3, first="pick", conclude=True)
        )
        assert looked.answer in ("yes", "no") and looked.calls and not looked.calls[0].failed
    assert "answer" in stops and LOG
