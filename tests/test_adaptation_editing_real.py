"""Editing facts of a real model: it says what was written, in other words too, and keeps the rest."""

from __future__ import annotations

import pytest
import torch

import intarsia as ia
from intarsia.adaptation import edit
from intarsia.data import FactEdit
from intarsia.errors import IntarsiaError

EDITS = [
    FactEdit(
        "{} is located in the city of", "Rome", subject="The Eiffel Tower", old="Paris",
        paraphrases=("The city where {} stands is", "You can visit {} in the city of"),
        neighbours=("The Louvre is located in the city of", "The Colosseum is located in the city of",
                    "The Statue of Liberty is located in the city of", "Big Ben is located in the city of"),
    ),
    FactEdit(
        "The capital of {} is", "Lyon", subject="France", old="Paris", paraphrases=("{}'s capital city is",),
        neighbours=("The capital of Spain is", "The capital of Italy is", "The capital of Japan is"),
    ),
    FactEdit(
        "{} was born in the country of", "Japan", subject="Albert Einstein",
        paraphrases=("The country where {} was born is",),
        neighbours=("Isaac Newton was born in the country of", "Marie Curie was born in the country of"),
    ),
    FactEdit(
        "The official language of {} is", "Korean", subject="Brazil", paraphrases=("People in {} speak",),
        neighbours=("The official language of Germany is", "The official language of Mexico is"),
    ),
    FactEdit(
        "{} was written by", "Dickens", subject="Hamlet", paraphrases=("The author of {} is",),
        neighbours=("Oliver Twist was written by", "Don Quixote was written by"),
    ),
]  # fmt: skip


@pytest.fixture(scope="module")
def model() -> ia.Model:
    try:
        return ia.load("smollm2-135m")
    except IntarsiaError as error:
        pytest.skip(f"SmolLM2 is not available: {error}")


@pytest.mark.real
def test_counterfacts_are_said_and_the_rest_stays(model, tmp_path, monkeypatch):
    monkeypatch.setenv("INTARSIA_CACHE", str(tmp_path))
    before = {name: value.clone() for name, value in model.network.state_dict().items()}
    new = edit(model, edits=EDITS, trace_prompts=2, background="python-docs", tokens=8000, perplexity_tokens=600)
    told = new.finding
    after = told.rates(1)
    assert told.rates(0)["efficacy"] == 0
    assert after["efficacy"] >= 0.8 and after["said"] >= 0.8 and after["paraphrase"] >= 0.5
    assert told.kept >= 0.75 and told.perplexity[1] < 1.03 * told.perplexity[0]
    assert len(told.layers) == 5 and 4 <= told.layers[-1] <= 10  # early, but not first
    assert ia.generate(new, [EDITS[0].prompt], max_new_tokens=3).texts[0].startswith(" Rome")
    assert all(torch.equal(value, before[name]) for name, value in model.network.state_dict().items())
