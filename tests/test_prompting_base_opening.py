"""One door to a backend; traces of what is asked; many prompts at once; async code from plain code."""

import asyncio
import os
import subprocess
import sys
import threading

import pytest

from intarsia.errors import BadInput, IntarsiaError, MissingExtra
from intarsia.progress import listening
from intarsia.prompting.base import (
    BackendError,
    Budget,
    BudgetExceeded,
    Cached,
    FailedPrompt,
    FakeBackend,
    Message,
    Metered,
    OpenAICompatible,
    Price,
    Reply,
    Sampling,
    Traced,
    Wrapper,
    as_delta,
    assembled,
    collected,
    generate_many,
    innermost,
    open_backend,
    wait,
)
from intarsia.prompting.base.wrapping import layers
from intarsia.prompting.tracing import trace
from tests.tiny import tiny

ASK = [Message("user", "What is a river?")]


def kinds(backend):
    return [type(layer) for layer in layers(backend)]


# --- names -----------------------------------------------------------------------------------------------------------


def test_names_without_a_model():
    assert kinds(open_backend("fake:")) == [Traced, FakeBackend]
    assert open_backend("fake:mine", trace=False).name == "mine"
    for name in ("openai:http://host:1/v1#org/model", "http://host:1/v1#org/model"):
        backend = open_backend(name, key_variable="MINE")
        assert kinds(backend) == [Traced, OpenAICompatible]
        assert (backend.name, innermost(backend).server) == ("org/model", "http://host:1")
        assert innermost(backend).client.key_variable == "MINE"


def test_a_model_here(tmp_path):
    model = tiny("llama")
    model.save(tmp_path / "m")
    for name in (model, tmp_path / "m"):
        backend = open_backend(name, threads=1)
        reply = wait(backend.generate("a", Sampling(max_tokens=3)))
        assert reply.usage.completion == 3 or reply.finish == "stop"
        assert len(backend.fingerprint) > 8
        wait(backend.close())


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("opnai:http://host/v1#m", r"no kind of model 'opnai:' \(did you mean openai:"),
        ("anthropic:best", "no kind of model 'anthropic:': give fake:, openai:, wheel:"),
        ("openai:http://host/v1", "does not say which model"),
        ("openai:ftp://host/v1#m", "no server's"),
        ("smollm2-135n", "did you mean smollm2-135m"),
        ("./nowhere", "no file or folder"),
    ],
)
def test_what_is_no_name(name, match):
    with pytest.raises(BadInput, match=match) as error:
        open_backend(name)
    assert "\n" not in str(error.value)


def test_what_a_server_does_not_take():
    with pytest.raises(BadInput, match="takes no adapter: name the adapter as the model, after #"):
        open_backend("http://host/v1#m", adapter="mine")
    with pytest.raises(BadInput, match="takes no threads"):
        open_backend("fake:", threads=2)
    with pytest.raises(BadInput, match="what tokens cost"):
        open_backend("smollm2-135m", budget=Budget(cost=1))


def test_the_order_of_what_goes_around(tmp_path):
    budget = Budget(calls=1)
    backend = open_backend("fake:", cache=tmp_path / "a", budget=budget, price=Price(1, 1))
    assert kinds(backend) == [Traced, Cached, Metered, FakeBackend]
    with trace("test", tmp_path / "t") as recording:
        for _ in range(3):
            wait(backend.generate(ASK))
        with pytest.raises(BudgetExceeded):
            wait(backend.generate("other"))
        events = [event for event in recording.read().events() if event.kind == "model"]
    assert budget.spent.calls == 1 and len(events) == 4  # what the cache answers is in the trace, and costs nothing
    wait(backend.close())


def test_a_wrapper_passes_everything_on():
    fake = FakeBackend()
    wrapper = Wrapper(fake)

    async def whole():
        assert (await wrapper.generate(ASK)).text == ASK[0].content
        assert (await collected(wrapper.stream(ASK))).text == ASK[0].content
        assert await wrapper.score("a", ["b"]) == await fake.score("a", ["b"])
        assert (await wrapper.embed(["a"])).shape == (1, fake.width)
        await wrapper.close()

    asyncio.run(whole())
    assert wrapper.count("a b") == 2
    assert (wrapper.name, wrapper.fingerprint) == (fake.name, fake.fingerprint)
    assert (wrapper.context_length, wrapper.tokenizer) == (fake.context_length, None)


def test_pieces_and_whole():
    reply = Reply("a", "length", (1, 2))
    assert assembled([as_delta(reply)]) == reply
    assert assembled([]).finish == "cancelled"


# --- traces ----------------------------------------------------------------------------------------------------------


def test_every_word_that_is_sent_is_in_the_trace(tmp_path):
    fake = FakeBackend({"": "a b"})
    model = Traced(fake)

    async def whole():
        with trace("test", tmp_path / "t") as recording:
            await model.generate(ASK, Sampling(max_tokens=9))
            await collected(model.stream(ASK, Sampling(max_tokens=9)))
            await model.score("x", ["y"])
            await model.embed(["z"])
            return recording.read()

    nodes = [node for node in asyncio.run(whole()).events() if node.kind == "model"]
    assert [node.name for node in nodes] == ["generate", "generate", "score", "embed"]
    for node, request in zip(nodes[:2], fake.requests, strict=False):
        assert node.input == {"prompt": list(request.prompt), "sampling": request.sampling}
        assert node.output.text == "a b"
        assert node.facts["model"] == "fake" and node.facts["fingerprint"] == fake.fingerprint
        assert (node.usage["prompt"], node.usage["completion"]) == (fake.count(ASK), 2)
    assert nodes[2].input == {"prompt": "x", "choices": ["y"]}
    assert nodes[3].input == {"texts": ["z"]} and nodes[3].output == {"shape": [1, 64]}


def test_a_trace_that_is_gone_on_with_asks_nothing_again(tmp_path):
    fake = FakeBackend({"": "a b"}, errors={3: BackendError("broken")})
    model = Traced(fake)

    async def work():
        whole = await model.generate(ASK)
        pieces = await collected(model.stream("other"))
        return whole.text, pieces.text, await model.score("x", ["y"])

    async def run(**more):
        with trace("test", tmp_path / "t", **more) as recording:
            try:
                return recording.id, await work()
            except BackendError:
                return recording.id, None

    number, failed = asyncio.run(run())
    assert failed is None and len(fake.requests) == 3
    _, answer = asyncio.run(run(resume=number))
    assert answer[:2] == ("a b", "a b") and len(fake.requests) == 4


def test_half_a_stream_is_written_and_asked_for_again(tmp_path):
    fake = FakeBackend({"": "a b c"})
    model = Traced(fake)

    async def run(**more):
        with trace("test", tmp_path / "t", **more) as recording:
            deltas = model.stream(ASK)
            await anext(deltas)
            await anext(deltas)
            await deltas.aclose()
            return recording.read()

    read = asyncio.run(run())
    [node] = [node for node in read.events() if node.kind == "model"]
    assert node.facts["came"] == "a b" and "before it had ended" in node.error
    asyncio.run(run(resume=read.id))
    assert len(fake.requests) == 2


def test_without_a_trace_no_fingerprint_is_worked_out():
    class Costly(FakeBackend):
        @property
        def fingerprint(self):
            raise AssertionError("nobody wants it")

        @fingerprint.setter
        def fingerprint(self, value):
            pass

    model = Traced(Costly())

    async def whole():
        await model.generate(ASK)
        await collected(model.stream(ASK))
        await model.score("a", ["b"])
        await model.embed(["a"])

    asyncio.run(whole())


# --- many ------------------------------------------------------------------------------------------------------------


def test_many_keep_their_order_and_so_many_are_under_way():
    now = most = 0

    async def say(prompt):
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.001 * (10 - int(prompt)))
        now -= 1
        return f"<{prompt}>"

    told = []
    with listening(told.append):
        replies = asyncio.run(generate_many(FakeBackend(say), [str(n) for n in range(10)], at_once=3))
    assert [reply.text for reply in replies] == [f"<{n}>" for n in range(10)] and most == 3
    assert [event.done for event in told] == [*range(11), 10] and told[-1].finished and told[-1].total == 10
    assert asyncio.run(generate_many(FakeBackend(), [])) == []


def test_one_of_many_that_fails_is_told_by_its_number():
    cancelled = []

    async def say(prompt):
        try:
            await asyncio.sleep(0 if prompt == "3" else 10)
        except asyncio.CancelledError:
            cancelled.append(prompt)
            raise
        raise BackendError("broken")

    prompts = [str(n) for n in range(6)]
    with pytest.raises(FailedPrompt, match=r"prompt 3 \(from 0\): broken") as error:
        asyncio.run(generate_many(FakeBackend(say), prompts, at_once=4))
    assert error.value.number == 3 and isinstance(error.value.error, BackendError)
    assert sorted(cancelled) == ["0", "1", "2"]
    bad = FakeBackend({"good": "yes", "bad": BackendError("broken")})
    replies = asyncio.run(generate_many(bad, ["good", "bad", "good"], keep_going=True))
    assert [getattr(reply, "text", "failed") for reply in replies] == ["yes", "failed", "yes"]
    with pytest.raises(BadInput, match="at_once is 0"):
        asyncio.run(generate_many(bad, ["good"], at_once=0))


def test_what_is_no_error_of_ours_comes_as_it_is():
    def say(_):
        raise ZeroDivisionError("a bug")

    with pytest.raises(ZeroDivisionError, match="a bug"):
        asyncio.run(generate_many(FakeBackend(say), ["a"]))


# --- wait ------------------------------------------------------------------------------------------------------------


def test_wait_works_with_and_without_a_loop(tmp_path):
    model = FakeBackend()
    assert wait(model.generate("a")).text == "a"

    async def notebook():
        return wait(model.generate("b")).text

    assert asyncio.run(notebook()) == "b"
    loops = set()

    async def remember():
        loops.add(asyncio.get_running_loop())

    for _ in range(2):
        wait(remember())
    worker = threading.Thread(target=lambda: wait(remember()))
    worker.start()
    worker.join()
    assert len(loops) == 1
    told = []
    with listening(told.append), trace("test", tmp_path / "t") as recording:
        wait(generate_many(Traced(model), ["x"]))
        assert len([node for node in recording.read().events() if node.kind == "model"]) == 1
    assert told


def test_wait_raises_what_was_raised_and_refuses_to_wait_for_itself():
    with pytest.raises(BackendError, match="broken"):
        wait(FakeBackend([BackendError("broken")]).generate("a"))

    async def inside():
        return wait(FakeBackend().generate("a"))

    with pytest.raises(BadInput, match="write await instead"):
        wait(inside())


def test_wait_works_in_a_fork():
    wait(asyncio.sleep(0))
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if wait(FakeBackend().generate("a")).text == "a" else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0


def test_every_public_name_is_there():
    import intarsia.prompting.base as base

    for name in base.__all__:
        assert getattr(base, name) is not None
    with pytest.raises(AttributeError):
        _ = base.nonsense
    assert issubclass(FailedPrompt, IntarsiaError)


def test_the_heavy_libraries_are_left_alone_until_they_are_used():
    code = (
        "import sys, intarsia.prompting.base as base\n"
        "for name in base.__all__: getattr(base, name)\n"
        "base.open_backend('fake:')\n"
        "heavy = ('torch', 'transformers', 'numpy', 'httpx2', 'stamina', 'llguidance', 'jsonschema')\n"
        "print([m for m in heavy if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_without_the_extra_it_is_told_which_one(monkeypatch):
    monkeypatch.setitem(sys.modules, "httpx2", None)
    with pytest.raises(MissingExtra, match=r"intarsia\[remote\]"):
        open_backend("http://host/v1#m")
