"""OpenAI's API over a backend whose answers are known, asked by the official client."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import openai
import pydantic
import pytest

pytest.importorskip("fastapi", reason="the extra 'server' is not installed")

from intarsia.server.service import Serving, service
from tests.server_help import Spelling, running, until

TOOL = {"type": "function", "function": {
    "name": "weather", "description": "How is it there?",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}  # fmt: skip


@pytest.fixture(scope="module")
def spelling() -> Spelling:
    return Spelling()


@pytest.fixture(scope="module")
def url(spelling) -> Iterator[str]:
    serving = Serving()
    serving.registry.add("spelling", spelling)
    serving.registry.add("org/other", Spelling("other"))
    with running(service(serving)) as address:
        yield address


@pytest.fixture(scope="module")
def client(url) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as made:
        yield made


def ask(client: Any, text: str = "a", **more: Any) -> Any:
    return client.chat.completions.create(model="spelling", messages=[{"role": "user", "content": text}], **more)


def test_a_chat_is_answered(client, spelling):
    said = ask(client, "xa", max_tokens=3, temperature=0, seed=7, presence_penalty=0.5, frequency_penalty=-1, top_p=0.9)
    (choice,) = said.choices
    assert choice.message.content == "bcd" and choice.message.role == "assistant" and choice.finish_reason == "length"
    assert said.object == "chat.completion" and said.model == "spelling" and said.id.startswith("chatcmpl-")
    assert (said.usage.prompt_tokens, said.usage.completion_tokens, said.usage.total_tokens) == (8, 3, 11)
    assert said.usage.prompt_tokens_details.cached_tokens == 2
    prompt, sampling, form, tools = spelling.asked[-1]
    assert [(m.role, m.content) for m in prompt] == [("user", "xa")] and form is None and tools == ()
    assert (sampling.max_tokens, sampling.temperature, sampling.seed, sampling.top_p) == (3, 0, 7, 0.9)
    assert (sampling.presence_penalty, sampling.frequency_penalty, sampling.logprobs) == (0.5, -1, None)


def test_what_is_not_said_is_openais_default_or_the_rest_of_the_context(client, spelling):
    ask(client, "a", stop=["d"])
    _, sampling, _, _ = spelling.asked[-1]
    assert sampling.temperature == 1 and sampling.top_p == 1 and sampling.seed is None
    assert sampling.max_tokens == 1000 - len("user: a") and sampling.stop == ("d",)
    client.completions.create(model="spelling", prompt="a")
    assert spelling.asked[-1][1].max_tokens == 16


def test_roles_parts_and_earlier_calls_reach_the_backend(client, spelling):
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Bern"}'}}
    client.chat.completions.create(
        model="spelling", max_completion_tokens=2, tools=[TOOL],
        messages=[
            {"role": "developer", "content": "be kind"},
            {"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": "rain"},
        ],
    )  # fmt: skip
    prompt, sampling, _, tools = spelling.asked[-1]
    assert [m.role for m in prompt] == ["system", "user", "assistant", "tool"] and prompt[1].content == "one\ntwo"
    assert prompt[2].calls[0].arguments == {"city": "Bern"} and (prompt[3].call, prompt[3].name) == ("c1", "weather")
    assert sampling.max_tokens == 2 and tools[0].name == "weather" and tools[0].parameters["required"] == ["city"]


def test_a_stream_says_the_same_bit_by_bit(client):
    events = list(ask(client, "a", max_tokens=5, stream=True, stream_options={"include_usage": True}))
    assert events[0].choices[0].delta.role == "assistant"
    assert [e.choices[0].delta.content for e in events[1:6]] == list("bcdef")
    assert events[6].choices[0].finish_reason == "length" and events[7].choices == []
    assert events[7].usage.completion_tokens == 5 and all(e.usage is None for e in events[:7])
    assert len({e.id for e in events}) == 1 and {e.object for e in events} == {"chat.completion.chunk"}
    assert all(e.usage is None for e in ask(client, "a", max_tokens=2, stream=True))


def test_many_answers_have_seeds_of_their_own_and_count_the_prompt_once(client, spelling):
    said = ask(client, "a", max_tokens=2, n=3, seed=5)
    assert [c.index for c in said.choices] == [0, 1, 2] and [c.message.content for c in said.choices] == ["bc"] * 3
    assert said.usage.prompt_tokens == 7 and said.usage.completion_tokens == 6
    assert sorted(asked[1].seed for asked in spelling.asked[-3:]) == [5, 6, 7]
    texts = ["", "", ""]
    for event in ask(client, "a", max_tokens=4, n=3, stream=True):
        texts[event.choices[0].index] += event.choices[0].delta.content or ""
    assert texts == ["bcde"] * 3


def test_log_probabilities(client):
    rows = ask(client, "a", max_tokens=2, logprobs=True, top_logprobs=2).choices[0].logprobs.content
    assert [r.token for r in rows] == ["b", "c"] and rows[0].logprob == -0.5 and rows[0].bytes == [98]
    assert [(t.token, t.logprob) for t in rows[1].top_logprobs] == [("a", -1.0), ("b", -2.0)]
    streamed = [e.choices[0].logprobs for e in ask(client, "a", max_tokens=2, logprobs=True, stream=True)]
    assert [row.content[0].token for row in streamed if row] == ["b", "c"]
    told = client.completions.create(model="spelling", prompt="a", max_tokens=2, logprobs=1).choices[0].logprobs
    assert told.tokens == ["b", "c"] and told.text_offset == [0, 1] and told.top_logprobs == [{"a": -1.0}] * 2


def test_tools_are_called_whole_and_in_a_stream(client):
    choice = ask(client, "call weather", tools=[TOOL], max_tokens=9).choices[0]
    first, second = choice.message.tool_calls
    assert choice.finish_reason == "tool_calls" and choice.message.content is None
    assert first.function.name == "weather" and json.loads(first.function.arguments) == {"city": "Bern"}
    assert first.id != second.id and first.type == "function"
    events = list(ask(client, "call weather", tools=[TOOL], max_tokens=9, stream=True))
    calls = [c for e in events for c in e.choices[0].delta.tool_calls or ()]
    assert [c.index for c in calls] == [0, 1] and json.loads(calls[1].function.arguments) == {"city": "Genf"}
    assert events[-1].choices[0].finish_reason == "tool_calls"
    single = ask(client, "call weather", tools=[TOOL], max_tokens=9, parallel_tool_calls=False)
    assert len(single.choices[0].message.tool_calls) == 1


def test_a_tool_can_be_forbidden_or_demanded(client, spelling):
    assert ask(client, "call weather", tools=[TOOL], tool_choice="none", max_tokens=2).choices[0].message.content
    assert spelling.asked[-1][3] == ()
    for choice in ("required", {"type": "function", "function": {"name": "weather"}}):
        said = ask(client, "a", tools=[TOOL], tool_choice=choice, max_tokens=90).choices[0]
        assert said.finish_reason == "tool_calls" and said.message.tool_calls[0].function.name == "weather"
        form = spelling.asked[-1][2]
        assert json.loads(form.source)["properties"]["name"] == {"const": "weather"}
    events = list(ask(client, "a", tools=[TOOL], tool_choice="required", max_tokens=90, stream=True))
    assert all(not e.choices[0].delta.content for e in events) and events[-2].choices[0].delta.tool_calls
    with pytest.raises(openai.BadRequestError, match="names no tool"):
        ask(client, "a", tools=[TOOL], tool_choice={"type": "function", "function": {"name": "other"}})


class Weather(pydantic.BaseModel):
    city: str
    degrees: int


def test_answers_have_the_form_that_is_asked_for(client, spelling):
    parsed = client.chat.completions.parse(
        model="spelling", messages=[{"role": "user", "content": "a"}], response_format=Weather, max_tokens=99
    )
    assert parsed.choices[0].message.parsed == Weather(city="Bern", degrees=7)
    form = spelling.asked[-1][2]
    assert form.kind == "json" and form.name == "Weather" and "degrees" in json.loads(form.source)["properties"]
    ask(client, "a", response_format={"type": "json_object"}, max_tokens=99)
    assert json.loads(spelling.asked[-1][2].source) == {"type": "object"}
    for extra, kind, source in [
        ({"guided_regex": "[0-9]+"}, "regex", "[0-9]+"),
        ({"guided_choice": ["yes", "no"]}, "choice", '["yes", "no"]'),
        ({"guided_grammar": "start: /a/"}, "grammar", "start: /a/"),
        ({"guided_json": {"type": "object"}}, "json", '{"type": "object"}'),
        ({"structured_outputs": {"choice": ["yes"]}}, "choice", '["yes"]'),
        ({"structured_outputs": {"json": {"type": "object"}}}, "json", '{"type": "object"}'),
    ]:
        ask(client, "a", max_tokens=99, extra_body=extra)
        assert (spelling.asked[-1][2].kind, spelling.asked[-1][2].source) == (kind, source)
    with pytest.raises(openai.BadRequestError, match="one form"):
        ask(client, "a", extra_body={"guided_regex": "a", "guided_choice": ["a"]})


def test_texts_go_on(client, url):
    said = client.completions.create(model="spelling", prompt=["a", "m"], max_tokens=3, n=2)
    assert [c.text for c in said.choices] == ["bcd", "bcd", "nop", "nop"] and said.usage.prompt_tokens == 2
    assert client.completions.create(model="spelling", prompt=[97], max_tokens=2).choices[0].text == "bc"
    texts: dict[int, str] = {}
    for event in client.completions.create(model="spelling", prompt=["a", "m"], max_tokens=3, stream=True):
        texts[event.choices[0].index] = texts.get(event.choices[0].index, "") + event.choices[0].text
    assert texts == {0: "bcd", 1: "nop"}


def test_vectors(client, spelling):
    plain = client.embeddings.create(model="spelling", input=["one", "two"], encoding_format="float")
    wanted = asyncio.run(spelling.embed(["one", "two"]))
    np.testing.assert_allclose([row.embedding for row in plain.data], wanted, rtol=1e-6)
    coded = client.embeddings.create(model="spelling", input="one", encoding_format="base64").data[0].embedding
    np.testing.assert_array_equal(np.frombuffer(base64.b64decode(coded), "<f4"), wanted[0])
    default = client.embeddings.create(model="spelling", input="two")  # (base64 on the wire)
    np.testing.assert_allclose(default.data[0].embedding, wanted[1], rtol=1e-6)
    assert default.usage.prompt_tokens == 3


def test_models_scores_and_counts(client, url):
    assert [m.id for m in client.models.list()] == ["spelling", "org/other"]
    assert client.models.retrieve("org/other").id == "org/other"
    with pytest.raises(openai.NotFoundError, match=r"no model 'spellin' here \(did you mean spelling"):
        client.models.retrieve("spellin")
    body = {"model": "spelling", "prompt": "a", "choices": ["x", "yyy"]}
    said = client.post("/score", body=body, cast_to=dict[str, Any])
    assert said["scores"] == [-1, -3] and sum(said["probabilities"]) == pytest.approx(1)
    assert said["probabilities"][0] / said["probabilities"][1] == pytest.approx(np.exp(2))
    body = {"model": "spelling", "messages": [{"role": "user", "content": "abc"}]}
    assert client.post("/tokenize", body=body, cast_to=dict[str, Any])["count"] == 9


def test_the_async_client(url):
    async def talk() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:

            async def one(letter: str) -> str:
                stream = await ask(client, letter, max_tokens=20, stream=True)
                return "".join([e.choices[0].delta.content or "" async for e in stream])

            return await asyncio.gather(*[one(letter) for letter in "abcdefgh"])  # fmt: skip

    for letter, text in zip("abcdefgh", asyncio.run(talk()), strict=True):
        assert text == "".join(chr(97 + (ord(letter) - 96 + i) % 26) for i in range(20))


def test_the_clients_own_stream_helper(client):
    message = [{"role": "user", "content": "a"}]
    with client.chat.completions.stream(
        model="spelling", messages=message, response_format=Weather, max_tokens=99
    ) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.parsed == Weather(city="Bern", degrees=7)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"colour": 1}, "colour: not a field that this server knows: leave it out"),
        ({"logit_bias": {"5": 1}}, "logit_bias: only null or {} is supported here"),
        ({"functions": []}, "functions: only null"),
        ({"store": True}, "store: only null or false"),
        ({"reasoning_effort": "high"}, "reasoning_effort"),
        ({"top_logprobs": 2}, "top_logprobs is for requests with logprobs"),
        ({"max_tokens": 1, "max_completion_tokens": 2}, "one thing"),
        ({"max_tokens": "1"}, "max_tokens"),
        ({"temperature": 3}, "temperature"),
        ({"n": 0}, "n:"),
        ({"stream_options": {"include_usage": True}}, "stream: true"),
        ({"tool_choice": "required"}, "wants tools"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "king", "content": "a"}]}, "messages.0"),
        ({"messages": [{"role": "user", "content": "a", "name": "Ann"}]}, "name: only null"),
        ({"messages": [{"role": "tool", "content": "a", "tool_call_id": "c"}]}, "answers no call"),
        ({"messages": [{"role": "assistant"}]}, "content or tool_calls"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}, "content"),
        ({"tools": [TOOL, TOOL]}, "two tools"),
        ({"model": ""}, "model"),
        ({"messages": [{"role": "user", "content": "bad"}]}, "a bad prompt"),
    ],
)
def test_what_cannot_be_had_is_refused_by_name(url, more, words):
    import httpx2

    body = {"model": "spelling", "messages": [{"role": "user", "content": "a"}], **more}
    for stream in (False, True):
        if stream and "stream_options" in more:
            continue
        answer = httpx2.post(f"{url}/v1/chat/completions", json={**body, "stream": stream})
        error = answer.json()["error"]
        assert answer.status_code == 400 and words in error["message"] and error["type"] == "invalid_request_error"
        assert "\n" not in error["message"] and set(error) == {"message", "type", "param", "code"}


def test_errors_of_the_official_client(client, spelling):
    with pytest.raises(openai.BadRequestError) as told:
        ask(client, "a", max_tokens=5000)
    assert told.value.code == "context_length_exceeded"
    with pytest.raises(openai.NotFoundError) as told:
        client.chat.completions.create(model="none", messages=[{"role": "user", "content": "a"}])
    assert told.value.code == "model_not_found" and told.value.param == "model"
    with pytest.raises(openai.InternalServerError) as told:
        client.completions.create(model="spelling", prompt="fail")
    assert "secret" not in str(told.value)
    for field, value in (("echo", True), ("suffix", "x"), ("best_of", 3)):
        with pytest.raises(openai.BadRequestError, match=field):
            client.completions.create(model="spelling", prompt="a", **{field: value})
    with pytest.raises(openai.BadRequestError, match="dimensions"):
        client.embeddings.create(model="spelling", input="a", dimensions=2)


def test_a_client_that_goes_cancels_the_work():
    slow = Spelling(pause=0.02)
    serving = Serving()
    serving.registry.add("spelling", slow)
    with running(service(serving)) as url:
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=0.3)
        with pytest.raises(openai.APITimeoutError):
            ask(client, "a", max_tokens=900)
        assert until(lambda: slow.cancelled == 1 and slow.running == 0)
        for n in (1, 3):
            stream = ask(client, "a", max_tokens=900, stream=True, n=n)
            next(iter(stream))
            stream.close()
            assert until(lambda n=n: slow.cancelled == (2 if n == 1 else 5) and slow.running == 0)
        assert slow.made < 5 * 300 and serving.registry.current["spelling"].running == 0
