"""A server that behaves badly: busy, slow, gone, or talking nonsense."""

import asyncio
import json
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from intarsia.errors import BadInput
from intarsia.prompting.base import (
    BackendError,
    ContextOverflow,
    InvalidOutput,
    Sampling,
    assembled,
)
from intarsia.prompting.base.openai_form import Answer
from tests.remote_help import ASK, RESET, ask, backend, event, piece, said, serving, stream

KEY = "sk-a-key-nobody-sees"


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


@pytest.mark.parametrize("asking", [ask, stream])
def test_a_busy_server_is_asked_again(asking):
    answers = iter([(429, {}, {"Retry-After": "0.01"}), (500, {}), (200, said("well"))])
    with serving(lambda *_: next(answers)) as server:
        reply = asking(server)
        assert (reply if asking is ask else assembled(reply)).text == "well"
        assert len(server.asked) == 3


def test_what_a_server_asks_for_is_waited_for(monkeypatch):
    waits, sleep = [], asyncio.sleep

    async def no_sleep(seconds, *result):
        if seconds < 1:
            return await sleep(seconds, *result)
        waits.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", no_sleep)
    busy = iter([{"Retry-After": "7"}, {"Retry-After": "999"}, {}])
    with serving(lambda *_: (429, {"error": {"message": "slow down"}}, next(busy, {}))) as server:
        with pytest.raises(BackendError, match="429 slow down") as error:
            ask(server, tries=4, pause=0.5)
        assert error.value.retryable and error.value.status == 429
        assert len(server.asked) == 4
    assert 7 <= waits[0] <= 7.5 and 60 <= waits[1] <= 60.5 and 2 <= waits[2] <= 2.5


@pytest.mark.parametrize("status", [400, 404, 501])
def test_what_will_not_pass_is_not_asked_again(status):
    with serving(lambda *_: (status, {"error": {"message": "no such thing"}})) as server:
        with pytest.raises(BackendError, match=f"{status} no such thing") as error:
            ask(server)
        assert not error.value.retryable
        assert [path for path, *_ in server.asked if path != "/v1/models"] == ["/v1/chat/completions"]


def test_an_account_that_is_empty_is_not_asked_again():
    error = {"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}}
    with serving(lambda *_: (429, error)) as server:
        with pytest.raises(BackendError, match="quota") as told:
            ask(server)
        assert not told.value.retryable and len(server.asked) == 1


def test_refusals_are_one_line_without_the_key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    for status, body in [(400, f"bad\nkey {KEY}" + "x" * 999), (401, f"Incorrect key {KEY[:9]}***")]:
        with serving(lambda *_, s=status, b=body: (s, {"error": {"message": b}})) as server:
            with pytest.raises(BackendError) as error:
                ask(server)
            assert "\n" not in str(error.value) and KEY[:9] not in str(error.value) and len(str(error.value)) < 300
    broken = [event(piece("a")), event({"error": {"message": f"wrong {KEY}"}})]
    with serving(lambda *_: (200, iter(broken))) as server:
        with pytest.raises(BackendError, match=r"wrong \.\.\."):
            stream(server)


def test_a_key_does_not_follow_a_redirect(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with serving(lambda *_: (200, said("a"))) as other:
        with serving(lambda *_: (307, {}, {"Location": f"{other.url}/v1/chat/completions"})) as server:
            with pytest.raises(BackendError, match="sends elsewhere"):
                ask(server)
        assert other.asked == []


@pytest.mark.parametrize(
    ("body", "match"),
    [
        (b"<html>", "no JSON"),
        ({}, "without a choice"),
        ([], "no object"),
        ({"choices": 3}, "without a choice"),
        ({"choices": []}, "without a choice"),
        ({"choices": [3]}, "another form"),
    ],
)
def test_nonsense(body, match):
    with serving(lambda *_: (200, body)) as server, pytest.raises(BackendError, match=match):
        ask(server)


LEAF = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.sampled_from(["stop", "a", "{}", ""])
KEYS = st.sampled_from(
    [
        "choices", "delta", "message", "content", "tool_calls", "index", "id", "function", "name", "arguments", "text",
        "finish_reason", "usage", "prompt_tokens", "completion_tokens", "prompt_tokens_details", "cached_tokens",
        "logprobs", "tokens", "token_logprobs", "top_logprobs", "token", "logprob", "error", "code", "refusal",
    ]
)  # fmt: skip
ANY = st.recursive(LEAF, lambda c: st.lists(c, max_size=3) | st.dictionaries(KEYS, c, max_size=4), max_leaves=15)
CHUNK = st.fixed_dictionaries({"choices": st.lists(ANY, max_size=2)}, optional={"usage": ANY})


@settings(max_examples=100, deadline=None)
@given(
    st.lists(ANY | st.fixed_dictionaries({"choices": st.lists(ANY, max_size=2)}, optional={"usage": ANY}), max_size=3)
)
def test_whatever_is_sent_is_read_or_refused(chunks):
    answer = Answer("http://host", "")
    try:
        for chunk in chunks:
            answer.take(json.dumps(chunk))
        assert isinstance(answer.text, str) and isinstance(answer.calls, tuple)
    except (BackendError, InvalidOutput):
        pass


@pytest.mark.parametrize(
    "body", [{"data": [3]}, {"data": [{"embedding": "x"}]}, {"data": [{"index": 0}]}, {"scores": ["x"]}]
)
def test_nonsense_instead_of_embeddings_and_scores(body):
    with serving(lambda *_: (200, body)) as server:
        for work in (lambda: backend(server).embed(["a"]), lambda: backend(server).score(ASK, ["a"])):
            with pytest.raises((BackendError, BadInput)):
                asyncio.run(work())


def test_a_server_that_is_not_there_or_sleeps():
    with serving(lambda *_: (200, {})) as server:
        pass
    with pytest.raises(BackendError, match="cannot be reached") as error:
        ask(server, pause=100)  # not worth waiting for
    assert not error.value.retryable
    awake = threading.Event()
    with serving(lambda *_: (awake.wait(10), (200, said("late")))[1]) as server:
        with pytest.raises(BackendError, match=r"no answer in 0\.05 s") as error:
            ask(server, timeout=0.05, tries=2)
        assert error.value.retryable and len(server.asked) == 2
        awake.set()


def test_a_connection_that_is_cut_is_made_again():
    answers = iter([(200, iter([RESET])), (200, said("well"))])
    with serving(lambda *_: next(answers)) as server:
        assert ask(server).text == "well"


def test_fields_that_a_server_calls_otherwise_are_learned_once():
    def picky(_, body):
        if "max_tokens" in body:
            return 400, {"error": {"message": "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens'."}}
        return 200, said(str(body["max_completion_tokens"]))

    async def twice(server):
        model = backend(server)
        texts = [(await model.generate(ASK, Sampling(max_tokens=n))).text for n in (3, 4)]
        await model.close()
        return texts

    with serving(picky) as server:
        assert asyncio.run(twice(server)) == ["3", "4"]
        assert len(server.asked) == 3


@pytest.mark.parametrize(
    "message",
    [
        "This model's maximum context length is 4096 tokens; you requested 5000 tokens (4744 of them messages)",
        "the prompt and the tokens that are to be made need 5000, the model takes 4096: shorten the prompt",
        "request (5000 tokens) exceeds the available context size (4096 tokens), try increasing it",
    ],
)
def test_too_long_a_prompt_is_told_as_such(message):
    with serving(lambda *_: (400, {"error": {"message": message}})) as server:
        with pytest.raises(ContextOverflow) as error:
            ask(server)
    assert (error.value.needed, error.value.limit) == (5000, 4096)


def test_so_many_at_once():
    now, most, lock = 0, 0, threading.Lock()
    release = threading.Semaphore(0)

    def counting(*_):
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        release.acquire(timeout=0.05)
        with lock:
            now -= 1
        return 200, said("a")

    async def many(server):
        model = backend(server, at_once=2)
        await asyncio.gather(*(model.generate(ASK) for _ in range(6)))
        await model.close()

    with serving(counting) as server:
        asyncio.run(many(server))
        assert most == 2 and len(server.asked) == 6


def test_one_backend_in_several_event_loops():
    with serving(lambda *_: (200, said("a"))) as server:
        model = backend(server)
        for _ in range(2):
            assert asyncio.run(model.generate(ASK)).text == "a"
        asyncio.run(model.close())
