"""Agents and shapes over a network that runs here: never trained, drawn at random, and still every call is valid and
every answer has its shape."""

from __future__ import annotations

import asyncio
from typing import Literal

import pydantic
import pytest

from intarsia.prompting.base import Constraint, Message, Sampling
from intarsia.prompting.base.local import open_local
from intarsia.prompting.execute.agents import agent
from intarsia.prompting.execute.asking import ask
from intarsia.prompting.execute.tools import tool
from tests.tiny import tiny

CHAT = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}"
    "{% for c in m['tool_calls'] or [] %}\n<tool_call>\n{{ c['function'] | tojson }}\n</tool_call>{% endfor %}"
    "<|end|>{% endfor %}{% if tools %}{% for t in tools %}{{ t['function']['name'] }} {% endfor %}{% endif %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


class Reading(pydantic.BaseModel):
    mood: Literal["joy", "anger"]
    sure: bool
    words: list[Literal["a", "b"]] = pydantic.Field(max_length=2)


@pytest.fixture
def backend():
    model = tiny("llama")
    model.tokenizer.chat_template = CHAT
    model.network.config.max_position_embeddings = 100_000
    return open_local(model)


def test_values_of_a_shape(backend):
    async def work():
        for seed in range(4):
            drawn = Sampling(max_tokens=400, temperature=1.0, seed=seed)
            answer = await ask(backend, "Read: ", shape=Reading, sampling=drawn)
            assert isinstance(answer.value, Reading) and answer.usage.forced > 20
        likely = await ask(backend, "Read: ", shape=Literal["joy", "anger"])
        assert sum(likely.probabilities.values()) == pytest.approx(1)
        assert likely.value == max(likely.probabilities, key=lambda text: likely.probabilities[text])
        await backend.close()

    asyncio.run(work())


def test_calls_of_tools(backend):
    called = []

    @tool(trusted=True)
    def pick(kind: Literal["left", "right"], far: bool = False) -> str:
        """Picks."""
        called.append((kind, far))
        return str(len(called))

    async def work():
        stops = set()
        for seed in range(6):
            drawn = Sampling(max_tokens=500, temperature=1.0, seed=seed)
            done = await agent(backend, [pick], "Go.", shape=Literal["yes", "no"], sampling=drawn, steps=3)
            assert not any(one.failed for one in done.calls)
            assert done.answer in ("yes", "no") if done.why_stopped == "answer" else done.why_stopped == "steps"
            stops.add(done.why_stopped)
            looked = await agent(
                backend, [pick], "Go.", shape=Literal["yes", "no"], sampling=drawn, steps=2, first=True, conclude=True
            )
            assert looked.answer in ("yes", "no") and len(looked.calls) >= 1 and looked.usage.calls == 2
            forced = await backend.generate(
                [Message("user", "Go.")], drawn, constraint=Constraint("call", "pick"), tools=[pick.spec]
            )
            assert [call.name for call in forced.calls] == ["pick"] and not forced.text
        assert "answer" in stops
        await backend.close()

    asyncio.run(work())
    assert called and all(kind in ("left", "right") for kind, _ in called)
