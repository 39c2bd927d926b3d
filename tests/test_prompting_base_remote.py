"""A model behind a server: what is sent, what is read, and what happens when the server behaves badly."""

import asyncio
import json
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from intarsia.errors import BadInput
from intarsia.prompting.base import (
    BackendError,
    Call,
    Constraint,
    ContextOverflow,
    InvalidOutput,
    Message,
    OpenAICompatible,
    Sampling,
    ToolSpec,
    Usage,
    assembled,
)
from tests.remote_help import END, RESET, USED, choice, event, piece, serving

KEY = "sk-a-key-nobody-sees"
ASK = [Message("system", "Be short."), Message("user", "Hello?")]
WEATHER = ToolSpec("weather", "Tells it.", {"type": "object", "properties": {"town": {"type": "string"}}})


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def backend(server, **more):
    return OpenAICompatible(server.url, "m", **({"pause": 0.001} | more))


def ask(server, prompt=ASK, sampling=Sampling(), constraint=None, tools=(), **more):
    async def whole():
        model = backend(server, **more)
        try:
            return await model.generate(prompt, sampling, constraint=constraint, tools=tools)
        finally:
            await model.close()

    return asyncio.run(whole())


def stream(server, prompt=ASK, sampling=Sampling(), constraint=None, tools=(), **more):
    async def whole():
        model = backend(server, **more)
        try:
            return [delta async for delta in model.stream(prompt, sampling, constraint=constraint, tools=tools)]
        finally:
            await model.close()

    return asyncio.run(whole())


def said(text, finish="stop", **more):
    return {**choice(text, finish_reason=finish), **more}


# --- what is sent ----------------------------------------------------------------------------------------------------


def test_a_conversation_is_sent_as_it_is_and_nothing_beside_it(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with serving(lambda *_: (200, said("Hi.", usage=USED["usage"]))) as server:
        reply = ask(server)
        assert (reply.text, reply.finish, reply.usage) == ("Hi.", "stop", Usage(7, 2))
        path, body, head = server.asked[0]
        assert path == "/v1/chat/completions" and head["Authorization"] == f"Bearer {KEY}"
        assert body == {
            "model": "m", "max_tokens": 256, "temperature": 0.0,
            "messages": [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Hello?"}],
        }  # fmt: skip


def test_every_setting_goes_along():
    sampling = Sampling(
        max_tokens=5, temperature=0.7, top_p=0.9, top_k=4, seed=3, stop=("x", "y"), logprobs=2,
        presence_penalty=0.5, frequency_penalty=-0.5,
    )  # fmt: skip
    with serving(lambda *_: (200, said("a"))) as server:
        ask(server, sampling=sampling, also={"tool_choice": "auto"})
        body = server.asked[0][1]
        del body["messages"]
        assert body == {
            "model": "m", "max_tokens": 5, "temperature": 0.7, "top_p": 0.9, "top_k": 4, "seed": 3, "stop": ["x", "y"],
            "logprobs": True, "top_logprobs": 2, "presence_penalty": 0.5, "frequency_penalty": -0.5,
            "tool_choice": "auto",
        }  # fmt: skip


@pytest.mark.parametrize("prompt", ["Once upon", [5, 6, 7]])
def test_texts_and_ids_are_gone_on_with(prompt):
    answer = {"choices": [{"text": " a time", "finish_reason": "length"}]}
    with serving(lambda *_: (200, answer)) as server:
        reply = ask(server, prompt, Sampling(logprobs=1))
        assert (reply.text, reply.finish) == (" a time", "length")
        path, body, _ = server.asked[0]
        assert path == "/v1/completions" and body["prompt"] == prompt and body["logprobs"] == 1


def test_tools_and_their_calls_and_answers():
    called = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"town": "Bonn"}'}}
    message = {"role": "assistant", "content": None, "tool_calls": [called]}
    answer = {"choices": [{"message": message, "finish_reason": "tool_calls"}]}
    with serving(lambda *_: (200, answer)) as server:
        reply = ask(server, tools=[WEATHER])
        assert reply.calls == (Call("weather", {"town": "Bonn"}, "c1"),)
        assert (reply.text, reply.finish) == ("", "tool_calls")
        assert server.asked[0][1]["tools"] == [
            {
                "type": "function",
                "function": {"name": "weather", "description": "Tells it.", "parameters": WEATHER.parameters},
            }
        ]
        turns = [*ASK, Message("assistant", "", calls=reply.calls), Message("tool", "rain", call="c1", name="weather")]
        ask(server, turns, tools=[WEATHER])
        assert server.asked[1][1]["messages"][2:] == [
            {"role": "assistant", "content": None, "tool_calls": [called]},
            {"role": "tool", "content": "rain", "tool_call_id": "c1"},
        ]
        with pytest.raises(BadInput, match="tools want a conversation"):
            ask(server, "text", tools=[WEATHER])


def test_arguments_that_are_no_json_are_no_call():
    called = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"town": '}}
    answer = {"choices": [{"message": {"content": None, "tool_calls": [called]}, "finish_reason": "tool_calls"}]}
    with serving(lambda *_: (200, answer)) as server, pytest.raises(InvalidOutput, match="weather") as error:
        ask(server, tools=[WEATHER])
    assert error.value.raw == '{"town": '


def test_logprobs_are_read_in_both_forms():
    chat = said("Hi", finish="stop")
    chat["choices"][0]["logprobs"] = {
        "content": [{"token": "Hi", "logprob": -0.5, "top_logprobs": [{"token": "Hi", "logprob": -0.5}]}]
    }
    plain = {"text": " b", "finish_reason": "stop", "logprobs": {
        "tokens": [" b"], "token_logprobs": [-0.25], "top_logprobs": [{" c": -2.0, " b": -0.25}],
    }}  # fmt: skip
    with serving(lambda path, _: (200, chat if "chat" in path else {"choices": [plain]})) as server:
        [one] = ask(server, sampling=Sampling(logprobs=1)).logprobs
        assert (one.token, one.logprob, one.top) == ("Hi", -0.5, (("Hi", -0.5),))
        [one] = ask(server, "a", Sampling(logprobs=2)).logprobs
        assert (one.token, one.logprob, one.top) == (" b", -0.25, ((" b", -0.25), (" c", -2.0)))


# --- forms -----------------------------------------------------------------------------------------------------------

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}
JSON = Constraint("json", json.dumps(SCHEMA), "number")


def test_json_is_asked_for_in_openais_way_and_checked():
    answers = iter(['{"n": 3}', '{"n": "3"}', "three"])
    with serving(lambda *_: (200, said(next(answers)))) as server:
        assert ask(server, constraint=JSON).text == '{"n": 3}'
        assert server.asked[0][1]["response_format"] == {
            "type": "json_schema", "json_schema": {"name": "number", "schema": SCHEMA, "strict": True},
        }  # fmt: skip
        with pytest.raises(InvalidOutput, match=r"\$\.n: '3' is not of type 'integer'"):
            ask(server, constraint=JSON)
        with pytest.raises(InvalidOutput, match="not JSON") as error:
            ask(server, constraint=JSON)
        assert error.value.raw == "three"


def test_a_schema_that_openai_would_refuse_as_strict_is_not_called_so():
    loose = Constraint("json", '{"type": "object", "properties": {"n": {"type": "integer"}}}')
    with serving(lambda *_: (200, said("{}"))) as server:
        ask(server, constraint=loose)
        assert server.asked[0][1]["response_format"]["json_schema"]["strict"] is False


@pytest.mark.parametrize(
    ("constraint", "good", "bad"),
    [
        (Constraint("choice", '["yes", "no"]'), "no", "maybe"),
        (Constraint("regex", r"\d{3}"), "123", "12"),
        (Constraint("grammar", 'start: "a"+ "b"'), "aab", "aac"),
    ],
)
def test_other_forms_are_asked_for_as_the_server_knows_and_checked(constraint, good, bad):
    refusing = {"structured_outputs", f"guided_{constraint.kind}"}
    answer = good

    def picky(_, body):
        for field in refusing & body.keys():
            detail = [{"loc": ["body", field], "msg": "Extra inputs are not permitted"}]
            return 422, {"detail": detail}
        return 200, said(answer)

    source = json.loads(constraint.source) if constraint.kind == "choice" else constraint.source

    async def twice(server):
        model = backend(server)
        for _ in range(2):
            assert (await model.generate(ASK, constraint=constraint)).text == good
        await model.close()

    with serving(picky) as server:
        asyncio.run(twice(server))
        fields = [body.keys() & {"structured_outputs", f"guided_{constraint.kind}"} for _, body, _ in server.asked]
        assert fields == [{"structured_outputs"}, {f"guided_{constraint.kind}"}, set(), set()]  # learned once
        refusing.clear()
        ask(server, constraint=constraint)
        assert server.asked[-1][1]["structured_outputs"] == {constraint.kind: source}
        answer = bad
        with pytest.raises(InvalidOutput):
            ask(server, constraint=constraint)
        with pytest.raises(InvalidOutput):
            stream(server, constraint=constraint)


@pytest.mark.parametrize(
    ("kind", "source"),
    [("json", '{"type": "objct"}'), ("choice", "yes"), ("regex", "("), ("grammar", "start: x")],
)
def test_a_form_that_is_none_is_not_sent(kind, source):
    with serving(lambda *_: (200, said("a"))) as server:
        for asking in (ask, stream):
            with pytest.raises(BadInput):
                asking(server, constraint=Constraint(kind, source))
        assert server.asked == []


def test_a_form_that_is_refused_for_itself_is_told():
    with serving(lambda *_: (400, {"error": {"message": "Invalid schema for response_format 'number'"}})) as server:
        with pytest.raises(BackendError, match="Invalid schema"):
            ask(server, constraint=JSON)
        assert len(server.asked) == 1


# --- streams ---------------------------------------------------------------------------------------------------------


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


# --- a server that behaves badly -------------------------------------------------------------------------------------


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
    ("body", "match"), [(b"<html>", "no JSON"), ({}, "without a choice"), ([], "no object"), ({"choices": 3}, "choice")]
)
def test_nonsense(body, match):
    with serving(lambda *_: (200, body)) as server, pytest.raises(BackendError, match=match):
        ask(server)


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


# --- models, embeddings, scores --------------------------------------------------------------------------------------


def test_check_asks_for_the_model():
    models = {"data": [{"id": "other"}, {"id": "m", "max_model_len": 2048}]}
    with serving(lambda *_: (200, models)) as server:

        async def whole():
            model = backend(server)
            assert (await model.check())["id"] == "m" and model.context_length == 2048
            with pytest.raises(BadInput, match=r"no model 'othr' .did you mean other"):
                await OpenAICompatible(server.url, "othr").check()

        asyncio.run(whole())
    with serving(lambda *_: (404, {})) as server:
        assert asyncio.run(backend(server).check()) == {}


@pytest.mark.parametrize("asking", [ask, stream])
def test_a_model_that_is_not_there_is_told_with_those_that_are(asking):
    def answer(path, _):
        if path.endswith("/models"):
            return 200, {"data": [{"id": "m-7b"}]}
        return 404, {"error": {"message": "The model does not exist"}}

    with serving(answer) as server, pytest.raises(BadInput, match="no model 'm': it has m-7b"):
        asking(server)


def test_embeddings_come_in_the_order_of_the_texts_and_of_length_one():
    def embed(_, body):
        data = [{"index": n, "embedding": [float(len(text)), 1.0]} for n, text in enumerate(body["input"])]
        return 200, {"data": data[::-1]}

    with serving(embed) as server:
        texts = ["a" * n for n in range(1, 200)]
        found = asyncio.run(backend(server).embed(texts))
        assert found.shape == (199, 2) and found.dtype == np.float32
        wanted = np.array([[n, 1.0] for n in range(1, 200)])
        np.testing.assert_allclose(found, wanted / np.linalg.norm(wanted, axis=1, keepdims=True), rtol=1e-6)
        assert len(server.asked) == 2
        assert asyncio.run(backend(server).embed([])).shape[0] == 0
    with serving(lambda *_: (200, {"data": []})) as server, pytest.raises(BackendError, match="for each text"):
        asyncio.run(backend(server).embed(["a"]))


def test_scores_of_a_server_that_has_them():
    with serving(lambda _, body: (200, {"scores": [-float(len(c)) for c in body["choices"]]})) as server:
        assert asyncio.run(backend(server).score(ASK, ["a", "bb"])) == [-1.0, -2.0]
        path, body, _ = server.asked[0]
        assert path == "/v1/score" and [m["content"] for m in body["messages"]] == ["Be short.", "Hello?"]
        assert asyncio.run(backend(server).score(ASK, [])) == []
        with pytest.raises(BadInput, match="empty choice"):
            asyncio.run(backend(server).score(ASK, [""]))


def echo(_, body):
    """A server with `echo`: a token a character, and minus its place is its log probability."""
    if "choices" in body:
        return 404, {}
    text = body["prompt"]
    values = [None, *(-float(n) for n in range(1, len(text) + 1))]
    tokens = [*text, "!"]
    return 200, {"choices": [{"text": text + "!", "logprobs": {
        "tokens": tokens, "token_logprobs": values, "text_offset": list(range(len(tokens)))}}]}  # fmt: skip


def test_scores_by_the_prompts_own_log_probabilities():
    with serving(echo) as server:

        async def whole():
            model = backend(server)
            assert await model.score("abc", ["de", "f"]) == [-7.0, -3.0]
            assert [path for path, *_ in server.asked].count("/v1/score") == 1
            await model.score("abc", ["de"])
            assert [path for path, *_ in server.asked].count("/v1/score") == 1  # learned
            with pytest.raises(BadInput, match="without the model's tokenizer"):
                await model.score(ASK, ["a"])

        asyncio.run(whole())


def test_scores_that_cannot_be_told():
    straddling = {"choices": [{"text": "abcd", "logprobs": {
        "tokens": ["ab", "cd"], "token_logprobs": [None, -1.0], "text_offset": [0, 2]}}]}  # fmt: skip
    with serving(lambda path, _: (404, {}) if "score" in path else (200, straddling)) as server:
        with pytest.raises(BadInput, match="do not end where the prompt does"):
            asyncio.run(backend(server).score("abc", ["d"]))
    for status, body in [(404, {}), (400, {"error": {"message": "echo is not supported"}}), (200, said("a"))]:
        with serving(lambda path, _, s=status, b=body: (404, {}) if "score" in path else (s, b)) as server:
            with pytest.raises(BadInput, match="gives no log probabilities"):
                asyncio.run(backend(server).score("abc", ["d"]))
