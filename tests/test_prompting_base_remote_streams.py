"""Streams of a server, however they are cut, and wherever they break."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from intarsia.prompting.base import (
    BackendError,
    Call,
    OpenAICompatible,
    ToolSpec,
    Usage,
    assembled,
)
from tests.remote_help import ASK, END, RESET, USED, backend, event, piece, said, serving, stream

WEATHER = ToolSpec("weather", "Tells it.", {"type": "object", "properties": {"town": {"type": "string"}}})


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def test_a_stream_comes_in_pieces_and_ends_with_what_was_used():
    pieces = [event(piece("Hel")), b": still here\n\n", event(piece("lo")), event(END), event(USED), event("[DONE]")]
    with serving(lambda *_: (200, iter(pieces))) as server:
        deltas = stream(server)
        assert [delta.text for delta in deltas] == ["Hel", "lo", ""]
        assert (deltas[-1].finish, deltas[-1].usage) == ("stop", Usage(7, 2))
        assert server.asked[0][1]["stream_options"] == {"include_usage": True}


def test_streams_one_after_the_other_share_a_connection():
    pieces = [event(piece("a")), event(END), event("[DONE]")]

    async def thrice(server):
        model = backend(server)
        for _ in range(3):
            assert [delta.text async for delta in model.stream(ASK)] == ["a", ""]
        await model.close()

    with serving(lambda *_: (200, iter(pieces))) as server:
        asyncio.run(thrice(server))
        assert len(server.asked) == 3 and len(server.ports) == 1


EVENTS = [
    event(piece("Größe ")), b": a comment\n\n", event(piece("🌊 and\n")),
    b"event: message\r\nid: 4\r\n" + event(piece("ü")),
    event({"choices": [{"delta": {"tool_calls": [
        {"index": 0, "id": "c1", "function": {"name": "weather", "arguments": '{"to'}}]}}]}),
    event({"choices": [{"delta": {"tool_calls": [{"index": 0, "function": {"arguments": 'wn": "Köln"}'}}]}}]}),
    b'data: {"choices": [{"delta": {},\ndata:  "finish_reason": "tool_calls"}]}\n\n', event(USED), event("[DONE]"),
]  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=60))
def test_any_cut_of_a_stream_gives_the_same_answer(sizes):
    raw, parts = b"".join(EVENTS), []
    at = 0
    while at < len(raw):
        size = sizes[len(parts) % len(sizes)]
        parts.append(raw[at : at + size])
        at += size
    import httpx2

    class Parts(httpx2.AsyncByteStream):
        async def __aiter__(self):
            for part in parts:
                yield part

    def answer(_):
        return httpx2.Response(200, headers={"content-type": "text/event-stream; charset=utf-8"}, stream=Parts())

    async def whole():
        model = OpenAICompatible("http://127.0.0.1:9", "m", transport=httpx2.MockTransport(answer))
        return [delta async for delta in model.stream(ASK, tools=[WEATHER])]

    deltas = asyncio.run(whole())
    assert [delta.text for delta in deltas] == ["Größe ", "🌊 and\n", "ü", ""]
    reply = assembled(deltas)
    assert reply.calls == (Call("weather", {"town": "Köln"}, "c1"),)
    assert (reply.finish, reply.usage) == ("tool_calls", Usage(7, 2))


def test_a_server_that_does_not_stream_is_understood():
    with serving(lambda *_: (200, said("whole", usage=USED["usage"]))) as server:
        deltas = stream(server)
        assert [delta.text for delta in deltas] == ["whole", ""]
        assert deltas[-1].usage == Usage(7, 2)


def test_a_server_that_does_not_say_what_was_used():
    def no_options(_, body):
        if "stream_options" in body:
            return 400, {"error": {"message": "Unrecognized request argument supplied: stream_options"}}
        return 200, iter([event(piece("abcdef")), event(END), event("[DONE]")])

    with serving(no_options) as server:
        deltas = stream(server)
        assert assembled(deltas).text == "abcdef"
        assert deltas[-1].usage.completion == 2 and deltas[-1].usage.prompt >= 5  # the estimate: 3 bytes a token


@pytest.mark.parametrize(
    ("pieces", "match"),
    [
        ([event(piece("Hel")), RESET], "broke off"),
        ([event(piece("Hel"))], "ended before the answer did"),
        ([event(piece("Hel")), event({"error": {"message": "out of memory", "code": 500}})], "out of memory"),
        ([event(piece("Hel")), event("nonsense{")], "no JSON"),
    ],
)
def test_half_a_stream(pieces, match):
    with serving(lambda *_: (200, iter(pieces))) as server:

        async def whole():
            model, came = backend(server), []
            with pytest.raises(BackendError, match=match) as error:
                async for delta in model.stream(ASK):
                    came.append(delta.text)
            await model.close()
            return came, error.value.retryable

        came, retryable = asyncio.run(whole())
        assert came == ["Hel"] and retryable is (match != "no JSON")
        assert len(server.asked) == 1  # a stream that began is not begun again


def test_closing_a_stream_leaves_the_server():
    with serving(lambda *_: (200, iter(lambda: event(piece("a")), None))) as server:

        async def whole():
            model = backend(server)
            deltas = model.stream(ASK)
            assert (await anext(deltas)).text == "a"
            await deltas.aclose()
            assert await asyncio.to_thread(server.gone.wait, 5)
            await model.close()

        asyncio.run(whole())
