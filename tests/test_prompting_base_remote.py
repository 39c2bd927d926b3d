"""A model behind a server: what is sent, and what is read."""

import asyncio
import json

import numpy as np
import pytest

from intarsia.errors import BadInput
from intarsia.prompting.base import (
    BackendError,
    Call,
    Constraint,
    InvalidOutput,
    Message,
    OpenAICompatible,
    Sampling,
    ToolSpec,
    Usage,
)
from tests.remote_help import ASK, USED, ask, backend, said, serving, stream

KEY = "sk-a-key-nobody-sees"
WEATHER = ToolSpec("weather", "Tells it.", {"type": "object", "properties": {"town": {"type": "string"}}})


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


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
