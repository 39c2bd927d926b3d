"""OpenAI's API over a real network, a tiny one: the same answers as the backend's own."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import openai
import pytest

pytest.importorskip("fastapi", reason="the extra 'server' is not installed")

from intarsia.prompting.base import Message, Sampling
from intarsia.prompting.base.local import open_local
from intarsia.server.service import Serving, service
from tests.server_help import running, until
from tests.tiny import tiny

ASK = [{"role": "user", "content": "Hello"}]
TOOL = {"type": "function", "function": {
    "name": "weather", "parameters": {"type": "object", "properties": {"n": {"type": "integer", "minimum": 0,
    "maximum": 9}}, "required": ["n"], "additionalProperties": False}}}  # fmt: skip
TOOLS = (
    "{% if tools %}<tool_call>{% for t in tools %}{{ t | tojson }}{% endfor %}{% endif %}"
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}"
    "{% if m.tool_calls %}{% for c in m.tool_calls %}<tool_call>{{ c | tojson }}</tool_call>{% endfor %}{% endif %}"
    "<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@pytest.fixture(scope="module")
def backend() -> Any:
    model = tiny("llama")
    model.tokenizer.chat_template = TOOLS
    model.network.config.max_position_embeddings = model.tokenizer.model_max_length = 512
    return open_local(model, name="tiny", threads=1)


@pytest.fixture(scope="module")
def client(backend) -> Iterator[openai.OpenAI]:
    serving = Serving()
    serving.registry.add("tiny", backend)
    with running(service(serving)) as url, openai.OpenAI(base_url=f"{url}/v1", api_key="n", max_retries=0) as made:
        yield made


def test_answers_are_those_of_the_backend(client, backend):
    said = client.chat.completions.create(
        model="tiny", messages=ASK, max_tokens=12, temperature=0, logprobs=True, top_logprobs=3
    ).choices[0]
    own = asyncio.run(backend.generate([Message("user", "Hello")], Sampling(max_tokens=12, logprobs=3)))
    assert said.message.content == own.text and said.finish_reason == own.finish
    rows = said.logprobs.content
    np.testing.assert_allclose([r.logprob for r in rows], [r.logprob for r in own.logprobs], atol=1e-5)
    assert all(len(r.top_logprobs) == 3 for r in rows)
    events = client.chat.completions.create(model="tiny", messages=ASK, max_tokens=12, temperature=0, stream=True)
    assert "".join(e.choices[0].delta.content or "" for e in events) == own.text
    text = client.completions.create(model="tiny", prompt="abc", max_tokens=8, temperature=0)
    assert text.choices[0].text == asyncio.run(backend.generate("abc", Sampling(max_tokens=8))).text


def test_seeds_repeat_and_choices_differ(client):
    def drawn(seed: int) -> list[str]:
        said = client.chat.completions.create(model="tiny", messages=ASK, max_tokens=12, temperature=1, seed=seed, n=3)
        return [c.message.content for c in said.choices]

    assert drawn(1) == drawn(1) != drawn(100) and len(set(drawn(1))) == 3


def test_forms_and_calls_hold_whatever_the_weights(client):
    schema = {"type": "object", "properties": {"mood": {"enum": ["joy", "anger"]}}, "required": ["mood"],
              "additionalProperties": False}  # fmt: skip
    form = {"type": "json_schema", "json_schema": {"name": "mood", "schema": schema}}
    said = client.chat.completions.create(
        model="tiny", messages=ASK, response_format=form, max_tokens=60, temperature=0
    )
    assert json.loads(said.choices[0].message.content)["mood"] in ("joy", "anger")
    said = client.chat.completions.create(
        model="tiny", messages=ASK, max_tokens=9, extra_body={"guided_choice": ["yes", "no"]}
    )
    assert said.choices[0].message.content in ("yes", "no")
    for stream in (False, True):
        got = client.chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": "a"}], tools=[TOOL], tool_choice="required",
            parallel_tool_calls=False, max_tokens=70, temperature=0, stream=stream,
        )  # fmt: skip
        if stream:
            deltas = [e.choices[0] for e in got]
            calls = [c for d in deltas for c in d.delta.tool_calls or ()]
            finish = deltas[-1].finish_reason
        else:
            calls, finish = got.choices[0].message.tool_calls, got.choices[0].finish_reason
        assert finish == "tool_calls" and calls[0].function.name == "weather"
        assert 0 <= json.loads(calls[0].function.arguments)["n"] <= 9


def test_tools_and_a_form_of_the_answer(client):
    """A model that may call, and answers in a form: it does one of both, and nothing else."""
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"enum": ["yes", "no"]}}}
    ways = set()
    for seed in range(8):
        said = client.chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": "a"}], tools=[TOOL], response_format=form, seed=seed,
            max_tokens=120, temperature=2.0, parallel_tool_calls=False,
        )  # fmt: skip
        calls = said.choices[0].message.tool_calls
        ways.add(bool(calls))
        assert calls[0].function.name == "weather" if calls else json.loads(said.choices[0].message.content) in (
            "yes", "no"
        )  # fmt: skip
    assert False in ways


def test_scores_vectors_and_counts(client, backend):
    body = {"model": "tiny", "prompt": "ab", "choices": ["c", "de"]}
    said = client.post("/score", body=body, cast_to=dict[str, Any])
    several = {"model": "tiny", "prompts": ["ab", [5, 6], ASK], "choices": ["c", "de"]}
    many = client.post("/score", body=several, cast_to=dict[str, Any])
    assert len(many["results"]) == 3 and many["results"][0]["scores"] == pytest.approx(said["scores"], abs=1e-5)
    assert many["usage"]["prompt_tokens"] == sum(one["usage"]["prompt_tokens"] for one in many["results"])
    for wrong in ({"prompts": []}, {"prompts": ["a"], "prompt": "a"}, {"prompts": [""] * 65}):
        with pytest.raises((openai.BadRequestError, openai.UnprocessableEntityError)):
            client.post("/score", body={"model": "tiny", "choices": ["a"], **wrong}, cast_to=dict[str, Any])
    own = asyncio.run(backend.score("ab", ["c", "de"]))
    np.testing.assert_allclose(said["scores"], own, atol=1e-5)
    assert said["probabilities"][0] == pytest.approx(1 / (1 + math.exp(own[1] - own[0])))
    vectors = client.embeddings.create(model="tiny", input=["ab", "cde"])
    np.testing.assert_allclose(
        [v.embedding for v in vectors.data], asyncio.run(backend.embed(["ab", "cde"])), atol=1e-6
    )
    counted = client.post("/tokenize", body={"model": "tiny", "messages": ASK}, cast_to=dict[str, Any])
    assert counted["count"] == backend.count([Message("user", "Hello")]) and counted["max_model_len"] == 512


def test_who_leaves_frees_the_engine(client, backend):
    stream = client.chat.completions.create(model="tiny", messages=ASK, max_tokens=400, stream=True)
    next(iter(stream))
    stream.close()
    assert until(lambda: backend.statistics()["running"] == 0)
    with pytest.raises(openai.BadRequestError, match="512"):
        client.completions.create(model="tiny", prompt="a" * 500, max_tokens=100)
