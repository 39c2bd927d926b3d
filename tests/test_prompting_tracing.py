"""Recording and reading traces: nesting, concurrency, several processes, a killed process, and going on."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from intarsia.errors import BadInput, Note
from intarsia.prompting.base import Message, Reply, Usage
from intarsia.prompting.tracing import (
    Trace,
    carried,
    current,
    note,
    recorded,
    redact_secrets,
    step,
    trace,
    traces,
    tracing,
)
from intarsia.prompting.tracing.database import default_path


@pytest.fixture(autouse=True)
def file(tmp_path, monkeypatch):
    monkeypatch.delenv("INTARSIA_TRACE", raising=False)
    monkeypatch.setenv("INTARSIA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "traces.sqlite"


def shape(node) -> tuple:
    return (node.event.kind, node.event.name, *map(shape, node.children))


def test_steps_nest_and_everything_that_was_said_is_there(file):
    prompt = [Message("system", "Be brief. " * 500), Message("user", "Grüße <|im_end|>\x00")]
    with trace("answer", file, input={"question": "why"}) as t:
        with step("search", "manual", "why") as s:
            s.output = ["a", "b"]
        with step("model", "generate", prompt) as s:
            s.facts["model"] = "tiny"
            note("cut", {"messages": 0})
            s.output = Reply("because", usage=Usage(prompt=9, completion=2, cost=0.5))
            s.used(s.output.usage)
            s.used(Usage(prompt=1))
        t.root.output = "because"
    read = t.read()
    root = read.tree()
    assert shape(root) == ("flow", "answer", ("search", "manual"), ("model", "generate", ("note", "cut")))
    assert root.event.input == {"question": "why"} and root.event.output == "because"
    model = read.events()[2]
    assert model.input == prompt and model.output == Reply("because", usage=Usage(prompt=9, completion=2, cost=0.5))
    assert model.usage == {"prompt": 10, "completion": 2, "calls": 2} and model.cost == 0.5
    assert model.facts == {"model": "tiny"} and model.seconds >= 0 and model.state == "done"
    assert len({e.id for e in read.events()}) == 4 and len(t.id) == 32


def test_where_no_trace_is_open_a_step_takes_everything_and_keeps_nothing(tmp_path):
    asked = []
    with step("model", "generate", lambda: asked.append(1)) as s:
        s.output, s.cost = 5, 3.0
        s.facts["a"] = object()
        s.used(Usage())
    note("x", object())
    assert (s.output, s.facts, s.replayed, s.id, tracing(), current()) == (None, {}, False, "", False, None)
    assert not asked and not (tmp_path / "cache").exists()
    assert asyncio.run(recorded("step", "x", object(), make(4))) == 4


def make(value):
    async def made():
        return value

    return made


def test_concurrent_tasks_find_their_own_parent(file):
    async def outer(i):
        with step("step", "outer", i):
            await asyncio.sleep(0.001 * (3 - i))
            await asyncio.gather(*(inner(i, j) for j in range(2)))

    async def inner(i, j):
        with step("tool", "inner", {"i": i}) as s:
            await asyncio.sleep(0)
            s.output = (i, j)

    async def all_of_it():
        with trace("gather", file):
            await asyncio.gather(*(outer(i) for i in range(3)))

    asyncio.run(all_of_it())
    root = Trace.open(file).tree()
    assert sorted(n.event.input for n in root.children) == [0, 1, 2]
    for node in root.children:
        assert [c.event.output for c in node.children] == [(node.event.input, 0), (node.event.input, 1)]


def test_threads_join_the_trace_where_the_function_is_carried(file):
    def work(i):
        with step("step", "work", i) as s:
            s.output = i * i

    async def in_threads():
        await asyncio.gather(*(asyncio.to_thread(work, i) for i in range(4)))

    with trace("threads", file), ThreadPoolExecutor(8) as pool:
        list(pool.map(carried(work), range(50)))
        list(pool.map(work, range(3)))  # a bare thread knows of no trace
        asyncio.run(in_threads())
    events = Trace.open(file).events()[1:]
    assert sorted((e.input, e.output) for e in events) == sorted((i, i * i) for i in [*range(50), *range(4)])
    assert len({e.id for e in events}) == 54


def test_the_same_work_gives_the_same_log_whatever_the_order(file):
    async def work(order):
        async def one(i):
            await asyncio.sleep(order[i] * 0.002)
            with step("tool", "same", i % 2) as s:
                s.output = i % 2

        with trace("w", file, input=1) as t:
            await asyncio.gather(*(one(i) for i in range(4)))
        return t.read().tree().same()

    assert asyncio.run(work([0, 1, 2, 3])) == asyncio.run(work([3, 2, 1, 0]))
    assert asyncio.run(work([0, 0, 0, 0])) != asyncio.run(async_other(file))


async def async_other(file):
    with trace("w", file, input=1) as t, step("tool", "same", 7):
        pass
    return t.read().tree().same()


def test_an_error_is_kept_with_its_place_and_goes_on(file):
    with pytest.raises(ZeroDivisionError), trace("fails", file), step("step", "inner", 1):
        line = sys._getframe().f_lineno + 1
        _ = 1 / 0
    root, inner = Trace.open(file).events()
    assert root.state == inner.state == "failed" and root.seconds is not None
    assert inner.error == "ZeroDivisionError: division by zero" and inner.place == f"{__file__}:{line}"


def test_what_cannot_be_kept_is_refused_with_its_path_and_the_step_ends(file):
    with trace("t", file):
        with pytest.raises(BadInput, match=r"^input\.documents\[1\]\.date: object cannot"):
            step("step", "s", {"documents": [{}, {"date": object()}]})
        with pytest.raises(BadInput, match=r"^output\[0\]: object cannot"), step("step", "s", 1) as s:
            s.output = [object()]
        with pytest.raises(BadInput, match="'thought' is no kind of event"):
            step("thought", "s")
    assert [e.state for e in Trace.open(file).events()] == ["done", "failed"]


def test_secrets_are_redacted_in_inputs_outputs_facts_and_errors(file):
    secret = "sk-abcdefghijklmnop0123456789"
    with pytest.raises(ValueError), trace("r", file, redact=redact_secrets, input={"password": "hunter2"}):
        with step("model", "m", [Message("user", f"my key is {secret}")]) as s:
            s.facts["url"] = "https://me:pw123456@host/v1"
            s.output = f"{secret} is your key"
        raise ValueError(f"bad {secret}")
    text = "".join(map(str, sqlite3.connect(file).execute("SELECT * FROM events").fetchall()))
    assert secret not in text and "hunter2" not in text and "pw123456" not in text
    root, model = Trace.open(file).events()
    assert model.input == [Message("user", "my key is [redacted]")] and model.redacted and root.redacted
    assert root.error == "ValueError: bad [redacted]"


def test_off_records_nothing_whatever_a_program_asks_for(file, monkeypatch):
    monkeypatch.setenv("INTARSIA_TRACE", "off")
    with trace("t", file) as t, step("step", "s", object()):
        assert t is None and not tracing()
    assert not file.exists()
    with pytest.raises(BadInput, match="INTARSIA_TRACE=off"), trace("t", file, resume="abc"):
        pass


def test_the_file_is_the_users_alone_and_where_it_is_said_to_be(tmp_path, monkeypatch):
    assert default_path() == tmp_path / "cache" / "traces.sqlite"
    monkeypatch.setenv("INTARSIA_TRACE", str(tmp_path / "deep" / "own.sqlite"))
    with trace("t") as t:
        pass
    assert t.path == tmp_path / "deep" / "own.sqlite" and stat.S_IMODE(t.path.stat().st_mode) == 0o600
    assert [x.id for x in traces()] == [t.id]


def test_files_of_another_kind_and_of_a_newer_version_are_refused_in_one_line(file, tmp_path):
    with pytest.raises(BadInput, match="no traces there"):
        Trace.open(file)
    other = tmp_path / "other.sqlite"
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE x (y)")
    text = tmp_path / "text.sqlite"
    text.write_text("no database at all, " * 50)
    for wrong in (other, text):
        before = wrong.read_bytes()
        with pytest.raises(BadInput, match="no file of traces"), trace("t", wrong):
            pass
        assert wrong.read_bytes() == before
    with trace("t", file):
        pass
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE meta SET value = '99'")
    for use in (lambda: Trace.open(file), lambda: trace("t", file).__enter__()):
        with pytest.raises(BadInput, match=r"layout 99 of a newer Intarsia; this one reads up to 1: update it$"):
            use()


def test_a_trace_is_found_by_the_beginning_of_its_id(file):
    ids = []
    for i in range(3):
        with trace(f"t{i}", file) as t:
            ids.append(t.id)
    assert Trace.open(file).id == ids[-1] and Trace.open(file, ids[0][:8].upper()).id == ids[0]
    for wrong in ("zz", "%", "", "_"):
        with pytest.raises(BadInput, match=f"no trace '{wrong}'"):
            Trace.open(file, wrong)
    with sqlite3.connect(file) as connection:
        connection.execute("INSERT INTO traces VALUES (?, 'twin', 0, '{}')", (ids[0][:31] + "g",))
    with pytest.raises(BadInput, match=f"several traces begin with '{ids[0][:9]}'"):
        Trace.open(file, ids[0][:9])
    with sqlite3.connect(file) as connection:
        connection.execute("DELETE FROM traces WHERE name = 'twin'")
    assert [t.name for t in traces(file)] == ["t2", "t1", "t0"]


def test_a_trace_inside_another_is_a_step_of_it(file, tmp_path):
    with trace("outer", file) as outer:
        with trace("inner") as inner:
            assert inner is outer
        with trace("elsewhere", tmp_path / "b.sqlite") as apart, step("step", "s"):
            pass
    assert shape(outer.read().tree()) == ("flow", "outer", ("flow", "inner"))
    assert shape(apart.read().tree()) == ("flow", "elsewhere", ("step", "s"))


WRITER = """
import sys
from intarsia.prompting.tracing import trace, step
with trace(sys.argv[2], sys.argv[1]):
    for i in range(100):
        with step("step", "s", i) as s:
            s.output = "x" * 1000
"""


def test_several_processes_write_one_file_at_once(file):
    running = [subprocess.Popen([sys.executable, "-c", WRITER, str(file), f"p{i}"]) for i in range(3)]
    assert [p.wait(60) for p in running] == [0, 0, 0]
    found = list(traces(file))
    assert sorted(t.name for t in found) == ["p0", "p1", "p2"]
    for t in found:
        assert [e.input for e in t.events()[1:]] == list(range(100))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_writes_by_a_connection_of_its_own(file):
    with trace("forked", file) as t:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            child = os.fork()
        if child == 0:
            with step("step", "child"):
                pass
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        with step("step", "parent"):
            pass
    assert [e.name for e in t.read().events()] == ["forked", "child", "parent"]


KILLED = """
import os, sys, time
from intarsia.prompting.tracing import trace, step
with trace("killed", sys.argv[1]) as t:
    with step("step", "done", 1) as s:
        s.output = (1, 2)
    with step("step", "begun", 2):
        print("ready", flush=True)
        time.sleep(60)
"""


def test_a_killed_process_leaves_all_it_had_done(file):
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(file)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    root, done, begun = Trace.open(file).events()
    assert (root.state, done.state, begun.state) == ("open", "done", "open")
    assert done.output == (1, 2) and begun.input == 2 and begun.seconds is None
    with trace("killed", file, resume=root.trace) as t, step("step", "done", 1) as s:
        assert s.replayed and s.output == (1, 2)
    assert t.id == root.trace and t.run == 2


@dataclass(frozen=True)
class Found:
    pages: tuple[int, ...]


def work(file, resume=None, *, fail=False, question="why", code="1", calls=None):
    """A trace whose second step contains others, and may fail at the end."""

    def do(kind, name, given, give):
        with step(kind, name, given, code=code if name == "search" else "") as s:
            if not s.replayed:
                calls.append((name, given))
                s.output = give() if callable(give) else give
            return s.output

    def deep():
        return [do("tool", "look", i, i + 1) for i in (1, 1, 2)]

    with trace("work", file, resume=resume) as t:
        pages = do("search", "search", question, Found((1, 2)))
        do("step", "deep", pages, deep)
        if fail:
            raise RuntimeError("stop")
        do("step", "last", question, "end")
        return t


def test_going_on_does_nothing_again_that_was_done(file):
    first, second = [], []
    with pytest.raises(RuntimeError):
        work(file, fail=True, calls=first)
    assert [n for n, _ in first] == ["search", "deep", "look", "look", "look"]
    t = work(file, Trace.open(file).id, calls=second)
    assert second == [("last", "why")]
    whole = work(file, calls=[])
    went_on = t.read().tree()
    assert went_on.same() == whole.read().tree().same()
    assert [n.event.replayed for n in went_on.children] == [True, True, False]
    third = []
    assert work(file, t.id, calls=third).run == 3 and not third
    assert len(t.read().events(every_run=True)) == 9 and len(t.read().events()) == 7


def test_a_changed_input_and_a_changed_source_are_done_again_and_said(file):
    t = work(file, calls=[])
    again = []
    with pytest.warns(Note) as said:
        work(file, t.id, question="how", calls=again)
    assert [str(w.message) for w in said] == [
        "search 'search' is done again: its input has changed", "step 'last' is done again: its input has changed"
    ]  # fmt: skip
    assert again == [("search", "how"), ("last", "how")]  # what was found is the same: deep is taken
    names = [n.event.name for n in t.read().tree().children]
    assert names.count("search") == 1 and sorted(names) == ["deep", "last", "search"]
    again = []
    with pytest.warns(Note, match="search 'search' is done again: its source has changed"):
        work(file, t.id, code="2", calls=again)
    assert again == [("search", "why")]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        work(file, t.id, code="1", calls=again)  # and back to what was
    assert len(again) == 1


def test_what_was_redacted_is_not_taken_for_the_real_thing(file):
    with trace("r", file, redact=redact_secrets) as t, step("tool", "key") as s:
        s.output = "sk-abcdefghijklmnop0123456789"
    with pytest.warns(Note, match="redacted"):
        with trace("r", file, resume=t.id), step("tool", "key") as s:
            assert not s.replayed and s.output is None


def test_recorded_takes_or_makes(file):
    async def all_of_it(resume=None):
        made = []

        async def ask():
            made.append(1)
            return Reply("hi", usage=Usage(prompt=2, completion=1))

        with trace("r", file, resume=resume) as t:
            reply = await recorded("model", "generate", "hello", ask, model="m")
        return t.id, reply, len(made)

    id, reply, made = asyncio.run(all_of_it())
    assert made == 1 and asyncio.run(all_of_it(id)) == (id, reply, 0)
    event = Trace.open(file).events()[1]
    assert event.usage == {"prompt": 2, "completion": 1, "calls": 1} and event.facts == {"model": "m"}


def test_a_step_that_was_cancelled_is_failed_and_done_again(file):
    async def all_of_it():
        async def slow():
            with step("step", "slow", 1):
                await asyncio.sleep(60)

        with trace("c", file) as t:
            task = asyncio.create_task(slow())
            await asyncio.sleep(0.01)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        return t

    t = asyncio.run(all_of_it())
    assert t.read().events()[1].error.startswith("CancelledError")
    with trace("c", file, resume=t.id), step("step", "slow", 1) as s:
        assert not s.replayed


def test_a_busy_file_is_waited_for(file):
    with trace("t", file):
        holder = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
        holder.execute("BEGIN IMMEDIATE")
        threading.Timer(0.2, holder.execute, ["COMMIT"]).start()
        begun = time.time()
        with step("step", "s"):
            pass
    assert Trace.open(file).events()[1].begun >= begun
