"""Flows: plain functions whose steps are recorded, taken from the record, and gone on with after a stop."""

from __future__ import annotations

import asyncio
import functools
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import warnings
from dataclasses import dataclass

import pytest

from intarsia.errors import BadInput, Note
from intarsia.progress import listening
from intarsia.prompting.base import Backend, BackendError, Message, Sampling
from intarsia.prompting.base.fake import FakeBackend
from intarsia.prompting.base.traced import Traced
from intarsia.prompting.execute.flows import (
    Failed,
    SomeFailed,
    TimedOut,
    Waiting,
    answering,
    approve,
    ask_person,
    flow,
    map_many,
    questions,
    retry,
    step,
    within,
)
from intarsia.prompting.execute.flows.keys import source_hash
from intarsia.prompting.tracing import Trace, traces


@pytest.fixture(autouse=True)
def file(tmp_path, monkeypatch):
    monkeypatch.delenv("INTARSIA_CACHE", raising=False)
    monkeypatch.setenv("INTARSIA_TRACE", str(tmp_path / "traces.sqlite"))
    CALLS.clear()
    return tmp_path / "traces.sqlite"


CALLS: list[object] = []


@dataclass(frozen=True)
class Page:
    number: int
    text: str


@step
async def find(question: str, k: int = 2) -> list[Page]:
    CALLS.append(("find", question))
    return [Page(i, f"{question} {i}") for i in range(k)]


@step
def count(pages: list[Page]) -> int:
    CALLS.append(("count", len(pages)))
    return sum(len(p.text) for p in pages)


def double(number: int) -> int:
    CALLS.append(("double", number))
    return 2 * number


async def draft(page: Page, backend: Backend) -> str:
    CALLS.append(("draft", page.number))
    return (await backend.generate([Message("user", page.text)], Sampling(max_tokens=9))).text


FAIL = {"on": False}
ERRORS: list[Exception] = []


@flow
async def answer(question: str, backend: Backend, k: int = 2) -> str:
    pages = await find(question, k=k)
    drafts = await map_many(functools.partial(draft, backend=backend), pages)
    number = await step("double", double, count(pages))
    last = await backend.generate([Message("user", f"{drafts} {number}")])
    if FAIL["on"]:
        raise RuntimeError("stop")
    return last.text


def model() -> Traced:
    return Traced(FakeBackend(lambda prompt: f"re: {prompt[-1].content}"))


def latest() -> Trace:
    return Trace.open()


def names(trace: Trace) -> list[tuple[int, str]]:
    return [(depth, event.name) for depth, event in trace.tree().walk()]


def test_a_flow_is_its_function_and_leaves_its_steps():
    text = asyncio.run(answer("why", model()))
    assert text == "re: ['re: why 0', 're: why 1'] 20"
    trace = latest()
    assert names(trace) == [
        (0, "answer"), (1, "find"), (1, "draft"), (2, "generate"), (1, "draft"), (2, "generate"), (1, "count"),
        (1, "double"), (1, "generate"),
    ]  # fmt: skip
    root = trace.events()[0]
    assert root.output == text and root.input["question"] == "why" and root.input["backend"].kind == "Traced"
    assert trace.facts == {"flow": f"{__file__}:answer"} and answer.__name__ == "answer"


def test_a_flow_twice_with_a_fake_model_gives_the_same_log():
    logs = []
    for _ in range(2):
        done = asyncio.run(answer.run({"question": "why", "backend": model(), "k": 5}))
        logs.append((done.value, done.trace.tree().same()))
    assert logs[0] == logs[1]
    other = asyncio.run(answer.run({"question": "how", "backend": model(), "k": 5}))
    assert other.trace.tree().same() != logs[0][1]


def test_going_on_asks_nothing_again_and_ends_as_if_it_had_not_stopped():
    whole = asyncio.run(answer.run({"question": "why", "backend": model()}))
    FAIL["on"] = True
    try:
        with pytest.raises(RuntimeError):
            asyncio.run(answer("why", model()))
    finally:
        FAIL["on"] = False
    CALLS.clear()
    backend = model()
    stopped = latest()
    done = asyncio.run(answer.run({"backend": backend}, resume=stopped.id))
    assert not CALLS and not backend.inner.requests and done.trace.id == stopped.id
    assert done.value == whole.value and done.trace.tree().same() == whole.trace.tree().same()


def test_another_model_and_another_input_are_asked_again():
    done = asyncio.run(answer.run({"question": "why", "backend": model()}))
    CALLS.clear()
    other = Traced(FakeBackend(lambda prompt: "no", name="other"))
    with pytest.warns(Note, match="done again"):
        again = asyncio.run(answer.run({"backend": other}, resume=done.trace.id))
    assert [c[0] for c in CALLS] == ["draft", "draft"] and again.value == "no"
    CALLS.clear()
    with pytest.warns(Note, match="step 'find' is done again: its input has changed"):
        asyncio.run(answer.run({"question": "how", "backend": other}, resume=done.trace.id))
    assert ("find", "how") in CALLS
    with pytest.raises(BadInput, match=r"the input 'backend' is a Traced .other., which no trace holds: give it again"):
        asyncio.run(answer.run(resume=done.trace.id))


def test_a_changed_source_is_done_again_and_said():
    def made(factor):
        def work(x):
            CALLS.append(x)
            return x * factor

        return work

    def flow_of(work):
        @flow(name="f")
        async def f():
            return await step("work", work, 3)

        return f

    done = asyncio.run(flow_of(made(2)).run())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert asyncio.run(flow_of(made(2)).run(resume=done.trace.id)).value == 6
    assert CALLS == [3]
    with pytest.warns(Note, match="step 'work' is done again: its source has changed"):
        assert asyncio.run(flow_of(made(5)).run(resume=done.trace.id)).value == 15
    assert [e.facts.get("redone") for e in latest().events()] == [None, "its source has changed"]


def test_the_source_hash_sees_bodies_closures_and_bound_values():
    def outer(n):
        return lambda x: x + n

    assert source_hash(outer(1)) == source_hash(outer(1)) != source_hash(outer(2))
    assert source_hash(lambda x: x + 1) != source_hash(lambda x: x + 2)
    part = functools.partial
    assert source_hash(part(double, 1)) == source_hash(part(double, 1)) != source_hash(part(double, 2))
    assert source_hash(find) == source_hash(find.__wrapped__) != source_hash(count)
    assert source_hash("a".upper) != source_hash("b".upper)
    assert source_hash(len) != source_hash(sum)

    def ring():
        return ring()

    assert len(source_hash(ring)) == 16
    # What cannot be kept counts by its class.
    assert source_hash(outer(threading.Lock())) == source_hash(outer(threading.Lock())) != source_hash(outer(open))


def test_concurrent_steps_are_found_again_in_any_order():
    async def slow(i, seconds):
        CALLS.append(i)
        await asyncio.sleep(seconds[i])
        if FAIL["on"] and i == 3:
            raise RuntimeError("three")
        return i

    async def one(i):
        return await step("one", slow_of, i)

    seconds = [0.02, 0.0, 0.01, 0.03]

    async def slow_of(i):
        return await slow(i, ORDER)

    ORDER = seconds

    @flow(name="g")
    async def g():
        return await asyncio.gather(*(one(i % 4) for i in range(6)))

    FAIL["on"] = True
    try:
        with pytest.raises(RuntimeError):
            asyncio.run(g())
    finally:
        FAIL["on"] = False
    first = sorted(CALLS)
    CALLS.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        done = asyncio.run(g.run(resume=latest().id))
    assert first == [0, 0, 1, 1, 2, 3] and CALLS == [3] and done.value == [0, 1, 2, 3, 0, 1]


def test_a_flow_inside_a_flow_is_a_step_of_it():
    @flow
    async def inner(x: int) -> int:
        CALLS.append(x)
        return await step("double", double, x)

    @flow
    async def outer() -> int:
        return await inner(1) + await inner(2)

    done = asyncio.run(outer.run())
    assert done.value == 6 and len(list(traces())) == 1
    assert names(done.trace) == [(0, "outer"), (1, "inner"), (2, "double"), (1, "inner"), (2, "double")]
    CALLS.clear()
    assert asyncio.run(outer.run(resume=done.trace.id)).value == 6 and not CALLS


def test_plain_functions_are_flows_too():
    @flow
    def plain(x: int) -> int:
        return count([Page(0, "abc")]) + x

    assert plain(2) == 5
    assert names(latest()) == [(0, "plain"), (1, "count")]
    CALLS.clear()
    done = plain.run_now({"x": 7}, resume=latest().id)
    assert done.value == 10 and not CALLS


def test_without_a_record_everything_runs_as_it_is(monkeypatch, file):
    monkeypatch.setenv("INTARSIA_TRACE", "off")
    done = answer.run_now({"question": "why", "backend": model()})
    assert done.value == "re: ['re: why 0', 're: why 1'] 20" and done.trace is None and not file.exists()
    with pytest.raises(BadInput, match="INTARSIA_TRACE=off"):
        answer.run_now({"question": "why", "backend": model()}, resume="abc")


def test_a_step_outside_of_a_flow_records_nothing(file):
    assert asyncio.run(step("double", double, 2)) == 4 and count([]) == 0 and not file.exists()


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"qestion": "x"}, "answer takes no 'qestion' (did you mean question?); it takes question, backend, k"),
        ({"question": "x"}, "answer: missing a required argument: 'backend'"),
        ({"question": "x", "backend": object()}, "backend: object cannot be kept in a trace"),
    ],
)
def test_wrong_inputs_are_refused_before_anything_runs(inputs, words, file):
    with pytest.raises(BadInput) as caught:
        answer.run_now(inputs)
    assert str(caught.value).startswith(words) and not CALLS and not file.exists()


def test_a_trace_of_another_flow_is_refused():
    @flow
    def other():
        return 1

    other()
    with pytest.raises(BadInput, match="is of 'other', not of 'answer'"):
        answer.run_now({"question": "x", "backend": model()}, resume=latest().id)


def test_what_cannot_be_kept_is_said_with_its_path():
    @flow
    async def bad():
        await step("work", double, {"documents": [1, {"lock": threading.Lock()}]})

    with pytest.raises(BadInput, match=r"^number\.documents\[1\]\.lock: _thread\.lock cannot be kept"):
        asyncio.run(bad())


KILLED = """
import asyncio, os, sys
from pathlib import Path
from intarsia.prompting.execute.flows import flow, step
out = Path(sys.argv[1])

async def work(i):
    with out.open("a") as log:
        log.write(f"{i} ")
    if i == 2 and not (out.parent / "go").exists():
        print("ready", flush=True)
        await asyncio.sleep(60)
    return i * i

@flow
async def squares(n: int) -> int:
    total = 0
    for i in range(n):
        total += await step("work", work, i)
    return total

if __name__ == "__main__":
    done = asyncio.run(squares.run({"n": 5} if len(sys.argv) < 3 else None, resume=(sys.argv + [None])[2]))
    print(done.value)
"""


def test_a_killed_flow_goes_on_where_it_was(tmp_path, file):
    script, log = tmp_path / "squares.py", tmp_path / "log"
    script.write_text(KILLED)
    command = [sys.executable, str(script), str(log)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    (tmp_path / "go").touch()
    id = latest().id
    assert [e.state for e in latest().events()] == ["open", "done", "done", "open"]
    done = subprocess.run([*command, id[:8]], capture_output=True, text=True, check=True)
    assert done.stdout == "30\n" and log.read_text().split() == ["0", "1", "2", "2", "3", "4"]
    whole = subprocess.run(command, capture_output=True, text=True, check=True)
    assert whole.stdout == "30\n"
    assert latest().id != id and Trace.open(file, id).tree().same() == latest().tree().same()


def test_many_at_once_keep_their_order_and_their_bound():
    active, most = 0, 0

    async def work(i):
        nonlocal active, most
        active, most = active + 1, max(most, active + 1)
        await asyncio.sleep(0.001 * (i % 3))
        active -= 1
        return i * i

    async def all_of_it():
        return await map_many(work, range(20), at_once=4)

    events = []
    with listening(events.append):
        assert asyncio.run(all_of_it()) == [i * i for i in range(20)] and most == 4
    assert events[0].done == 0 and events[-1].finished and events[-1].done == events[-1].total == 20
    assert asyncio.run(map_many(double, [1, 2])) == [2, 4] and asyncio.run(map_many(double, [])) == []
    for wrong in ({"at_once": 0}, {"errors": "ignore"}):
        with pytest.raises(BadInput):
            asyncio.run(map_many(double, [1], **wrong))


def test_many_try_all_and_say_which_failed_where():
    async def work(i):
        CALLS.append(i)
        if i % 4 == 1:
            raise ValueError(f"bad {i}")
        return i

    @flow(name="many")
    async def many():
        return await map_many(work, range(10), at_once=3)

    with pytest.raises(
        SomeFailed, match=r"^3 of 10 items failed: \[1\] ValueError: bad 1 \(.*flows\.py:\d+\); "
    ) as caught:
        asyncio.run(many())
    assert [(f.number, f.item, str(f.error)) for f in caught.value.failures] == [(i, i, f"bad {i}") for i in (1, 5, 9)]
    CALLS.clear()
    with pytest.raises(SomeFailed):
        asyncio.run(many.run(resume=latest().id))
    assert sorted(CALLS) == [1, 5, 9]
    got = asyncio.run(map_many(work, range(3), errors="collect"))
    assert got[0] == 0 and got[2] == 2 and isinstance(got[1], Failed) and got[1].place.startswith(__file__)


def test_retry_tries_again_what_may_pass_and_is_one_step():
    errors = ERRORS
    errors[:] = [BackendError("busy", retryable=True), BackendError("busy", retryable=True, after=0.001)]

    async def work(x):
        CALLS.append(x)
        if ERRORS:
            raise ERRORS.pop()
        return x

    @flow(name="again")
    async def again():
        return await retry("work", work, 5, pause=0.001)

    done = asyncio.run(again.run())
    assert done.value == 5 and CALLS == [5, 5, 5]
    assert names(done.trace) == [(0, "again"), (1, "work"), (2, "tried again"), (2, "tried again")]
    assert asyncio.run(again.run(resume=done.trace.id)).value == 5 and len(CALLS) == 3
    errors[:] = [BackendError("wrong key")]
    with pytest.raises(BackendError, match="wrong key"):
        asyncio.run(retry("work", work, 1, pause=0))
    errors[:] = [ValueError("x")] * 3
    with pytest.raises(ValueError):
        asyncio.run(retry("work", work, 1, times=3, pause=0, on=ValueError))
    assert not errors and asyncio.run(retry("work", work, 1, times=1)) == 1
    with pytest.raises(BadInput, match="times is 0"):
        asyncio.run(retry("work", work, 1, times=0))


def test_within_ends_what_takes_too_long_and_nothing_else():
    async def own():
        raise TimeoutError("its own")

    assert asyncio.run(within(5, asyncio.sleep(0, 7))) == 7
    with pytest.raises(TimedOut, match=r"the search took longer than 0\.01 s"):
        asyncio.run(within(0.01, asyncio.sleep(60), "the search"))
    with pytest.raises(TimeoutError, match="its own"):
        asyncio.run(within(5, own()))


@flow
async def careful(what: str) -> str:
    text = await step("double", double, 2)
    if not await approve(f"Send {what}?"):
        return "kept"
    to = await ask_person("To whom?", default="all")
    return f"sent {what} {text} to {to}"


def test_a_flow_waits_for_a_person_and_goes_on_with_the_answer():
    with pytest.raises(
        Waiting, match=r"waiting for an answer to: Send it\?; answer with `intarsia flow resume"
    ) as caught:
        asyncio.run(careful("it"))
    trace = latest()
    assert caught.value.exit_code == 4 and caught.value.trace == trace.id
    assert trace.events()[0].state == "waiting" and list(questions(trace).values()) == ["Send it?"]
    assert "waiting for an answer to: Send it?" in trace.finding().summary
    with pytest.raises(BadInput, match="'maybe' is no answer here: say yes or no"):
        careful.run_now(resume=trace.id, answers="maybe")
    with pytest.raises(Waiting):
        careful.run_now(resume=trace.id)
    done = careful.run_now(resume=trace.id, answers="Yes")
    assert done.value == "sent it 4 to all" and CALLS == [("double", 2)]
    assert [e.facts.get("by") for e in done.trace.events()[2:]] == ["person", "default"]
    assert careful.run_now(resume=trace.id).value == done.value
    with pytest.raises(BadInput, match="waits for no answer"):
        careful.run_now(resume=trace.id, answers="yes")
    with pytest.raises(BadInput, match="answers belong to a trace"):
        careful.run_now({"what": "it"}, answers="yes")


def test_several_questions_wait_and_each_gets_its_own_answer():
    @flow
    async def two():
        return await map_many(approve, ["First?", "Second?"])

    with pytest.raises(Waiting, match=r"First\?"):
        asyncio.run(two())
    trace = latest()
    waiting = {question: id for id, question in questions(trace).items()}
    assert set(waiting) == {"First?", "Second?"}
    with pytest.raises(BadInput, match=r"give ID=TEXT for each \(.*First\?; .*Second\?\)"):
        two.run_now(resume=trace.id, answers="yes")
    with pytest.raises(Waiting, match=r"Second\?"):
        two.run_now(resume=trace.id, answers=[f"{waiting['First?'][:6]}=yes"])
    done = two.run_now(resume=trace.id, answers=["no"])
    assert done.value == [True, False]


def test_who_is_there_is_asked_at_once_and_not_twice():
    asked = []

    async def person(question):
        asked.append(question)
        return "yes" if "Send" in question else None

    done = careful.run_now({"what": "it"}, asker=person)
    assert done.value == "sent it 4 to all" and asked == ["Send it?", "To whom?"]
    careful.run_now(resume=done.trace.id, asker=person)
    assert len(asked) == 2
    with answering(lambda question: "no"):
        assert asyncio.run(careful("that")) == "kept"


def test_nobody_to_answer_without_a_record(monkeypatch):
    monkeypatch.setenv("INTARSIA_TRACE", "off")
    with pytest.raises(Waiting, match="nobody is there to answer"):
        asyncio.run(careful("it"))


def test_wrong_uses_are_one_line():
    for wrong in (lambda: step("name"), lambda: step(3, double), lambda: flow(3)):
        with pytest.raises(BadInput):
            wrong()

    @flow
    async def one():
        return one.run_now()

    with pytest.raises(BadInput, match=r"await flow\.run"):
        asyncio.run(one())


def test_a_redactor_holds_for_the_whole_flow(file):
    from intarsia.prompting.tracing import redact_secrets

    @flow(redact=redact_secrets)
    async def secretive(key: str) -> int:
        return await step("length", len, key)

    assert asyncio.run(secretive("sk-abcdefghijklmnop0123456789")) == 29
    assert (
        b"sk-abc" not in file.read_bytes() + file.with_name("traces.sqlite-wal").read_bytes()
        if (file.with_name("traces.sqlite-wal").exists())
        else b"sk-abc" not in file.read_bytes()
    )


def test_flows_import_no_heavy_library():
    code = textwrap.dedent(
        """
        import sys
        from intarsia.prompting.execute.flows import flow, step, map_many
        print(sorted({"torch", "transformers", "numpy", "stamina", "pydantic"} & set(sys.modules)))
        """
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ})
    assert "torch" not in done.stdout and "transformers" not in done.stdout and "numpy" not in done.stdout


SHIPPED = """
from __future__ import annotations
from dataclasses import dataclass
from intarsia.prompting.base import Backend
from intarsia.prompting.execute.flows import approve, flow, step

@dataclass(frozen=True)
class Order:
    item: str
    number: int = 1

def price(order: Order) -> int:
    with open("log", "a") as log:
        log.write("priced ")
    return 3 * order.number

@flow
async def buy(order: Order, model: Backend) -> str:
    cost = await step("price", price, order)
    reply = await model.generate(f"{order.item} at {cost}")
    if await approve(f"Buy {order.item} for {cost}?"):
        return reply.text
    return "kept the money"

def helper():
    return 1
"""


@pytest.fixture
def cli(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shop.py").write_text(SHIPPED)
    (tmp_path / "order.json").write_text('{"order": {"item": "tea", "number": 2}, "model": "fake:shop"}')
    sys.modules.pop("shop", None)

    yield cli
    sys.modules.pop("shop", None)


def test_the_command_runs_waits_and_goes_on(cli, tmp_path):
    code, out, errors = cli("flow", "run", "shop.py:buy", "--input", "order.json")
    assert (code, out) == (
        4,
        "",
    ) and "waiting for an answer to: Buy tea for 6?; answer with `intarsia flow resume" in errors
    (row,) = json.loads(cli("flow", "ls", "--json")[1])
    assert row["state"] == "waiting" and list(row["questions"].values()) == ["Buy tea for 6?"]
    assert "Buy tea for 6?" in cli("flow", "ls")[1] and "price" in cli("flow", "show", row["id"][:8])[1]
    code, out, errors = cli("flow", "resume", row["id"][:8], "--answer", "yes")
    assert (code, out) == (0, "tea at 6\n") and f"trace {row['id'][:12]}" in errors
    assert (tmp_path / "log").read_text() == "priced "
    shown = json.loads(cli("flow", "resume", row["id"], "--json")[1])
    assert shown == {"value": "tea at 6", "trace": row["id"]}
    code, out, _ = cli("flow", "run", "shop.py:buy", "--resume", row["id"], "--set", "model=fake:shop")
    assert (code, out) == (0, "tea at 6\n") and (tmp_path / "log").read_text() == "priced "


def test_a_trace_begun_elsewhere_is_gone_on_with_by_the_command(cli, tmp_path, file):
    script = SHIPPED + "\nif __name__ == '__main__':\n    import asyncio, sys\n    asyncio.run(go())\n"
    script = script.replace(
        "def helper()",
        "@flow\nasync def go() -> int:\n    order = await step('order', Order, 'tea', 3)\n"
        "    if await approve('Go?'):\n        return order.number\n\ndef helper()",
    )
    (tmp_path / "shop.py").write_text(script)
    done = subprocess.run([sys.executable, "shop.py"], capture_output=True, text=True, cwd=tmp_path)
    assert "Waiting" in done.stderr
    code, out, errors = cli("flow", "resume", latest().id, "--answer", "y")
    assert (code, out) == (0, "3\n"), errors


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "shop.py"], "'shop.py' is no flow: give FILE.py:NAME"),
        (["run", "nowhere.py:buy"], "nowhere.py: no such file"),
        (["run", "shop.py:bye"], "shop.py: no flow 'bye' (did you mean buy?)"),
        (["run", "shop.py:helper"], "'helper' is a function, and no flow: write @flow before it"),
        (["run", "broken.py:x"], "broken.py: cannot be imported: ZeroDivisionError: division by zero"),
        (["run", "shop.py:buy"], "buy: missing a required argument: 'order'"),
        (["run", "shop.py:buy", "--set", "order=5", "--set", "model=fake:"], "buy: input 'order': Input should be"),
        (["run", "shop.py:buy", "--set", 'order={"item": "a", "number": "b"}', "--set", "model=fake:"],
         "buy: input 'order.number': Input should be a valid integer, unable to parse string as an integer, is 'b'"),
        (["run", "shop.py:buy", "--set", 'order={"item": "a"}', "--set", "model=5"],
         "wants the name of a backend, is 5"),
        (["run", "shop.py:buy", "--input", "nowhere.json"], "nowhere.json: cannot be read"),
        (["run", "shop.py:buy", "--input", "shop.py"], "shop.py: is no JSON"),
        (["run", "shop.py:buy", "--input", "list.json"], "must hold one JSON object, an input a key; is list"),
        (["run", "shop.py:buy", "--set", "x"], "--set x: give NAME=VALUE"),
        (["run", "shop.py:buy", "--set", "x=1"], "buy takes no 'x'; it takes order, model"),
        (["resume", "abc"], "no trace 'abc'"),
    ],
)  # fmt: skip
def test_bad_input_on_the_command_line_is_one_line(cli, tmp_path, file, arguments, words):
    from intarsia.prompting.tracing import trace

    with trace("t", file):
        pass
    (tmp_path / "broken.py").write_text("1 / 0\n")
    (tmp_path / "list.json").write_text("[]")
    code, out, errors = cli("flow", *arguments)
    assert (code, out) == (2, "") and words in errors and errors.count("\n") == 1
    assert not (tmp_path / "log").exists()


def test_a_trace_that_is_of_no_flow_cannot_be_gone_on_with(cli, file):
    from intarsia.prompting.tracing import trace

    with trace("t", file) as t:
        pass
    assert "is of no flow" in cli("flow", "resume", t.id)[2]
    assert json.loads(cli("flow", "ls", "--json")[1]) == []
