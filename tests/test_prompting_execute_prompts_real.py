"""Prompt optimisation with a real model on real dialogues: it keeps its calls, and says what was measured."""

from __future__ import annotations

import asyncio

import pytest

from intarsia.data import load_data, shared_data
from intarsia.errors import IntarsiaError
from intarsia.prompting.base.opening import open_backend
from intarsia.prompting.execute.optimising import optimise
from intarsia.prompting.execute.prompt import Prompt

SOURCE = """---
inputs:
  text: untrusted
  shots: {type: "list[dict]", default: []}
shape: [joy, anger]
---
{% system %}Say which emotion a line from a series has: {{ shape }}.{% endsystem %}
{% for shot in shots %}
{% shot %}{{ shot.text }}{% answer %}{{ shot.label }}{% endshot %}
{% endfor %}
{% user %}{{ text }}{% enduser %}
"""


@pytest.mark.real
@pytest.mark.slow
def test_a_real_prompt_is_optimised_within_its_calls(tmp_path) -> None:
    if (folder := shared_data("dialogue/meld")) is None:
        pytest.skip("MELD is not there: put it into the folder of INTARSIA_DATA")
    turns = [turn for turn in load_data(folder)["train"] if 15 < len(turn.text) < 60]
    some = [turn for label in ("joy", "anger") for turn in [t for t in turns if t.label == label][:30]]
    rows = [{"text": turn.text, "label": turn.label} for turn in some]

    try:
        backend = open_backend("smollm2-135m")
    except IntarsiaError as error:
        pytest.skip(f"the model is not available: {error}")

    async def run() -> tuple:
        try:
            prompt, journal = Prompt(SOURCE), tmp_path / "journal.jsonl"
            found = await optimise(prompt, rows, "accuracy", backend, calls=160, journal=journal, shot_count=2)
            again = await optimise(prompt, rows, "accuracy", backend, calls=160, journal=journal, shot_count=2)
            test = await optimise(found.best, rows, "accuracy", backend, calls=64)
        finally:
            await backend.close()
        return found, again, test

    found, again, test = asyncio.run(run())
    assert found.calls <= 160 and again.to_dict() == found.to_dict()
    assert found.dev[1] >= found.dev[0] and found.gain[1] <= found.gain[0] <= found.gain[2]
    # The file that comes out, asked alone, has the scores that were reported.
    assert test.dev[0] == pytest.approx(found.dev[1]) and test.test[0] == pytest.approx(found.test[1])
