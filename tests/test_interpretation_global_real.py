"""Minimal pairs, a neuron and a concept in a small real model: what is known of them must come out."""

from __future__ import annotations

import pytest

import intarsia as ia
from intarsia.data import TextPair
from intarsia.interpretation import concept, minimal_pairs, neurons

PAIRS = [
    TextPair("The keys to the cabinet are on the table.", "The keys to the cabinet is on the table.", "number"),
    TextPair("The dogs run fast.", "The dogs runs fast.", "number"),
    TextPair("My sisters have left.", "My sisters has left.", "number"),
    TextPair("She hurt herself.", "She hurt himself.", "reflexive"),
    TextPair("The women saw themselves.", "The women saw itself.", "reflexive"),
    TextPair("Nobody said anything.", "Somebody said anything.", "polarity"),
]
TEXTS = [
    "They were huge. When she sneezed, bats flew out of them.",
    "Tell me when the train is here.",
    "Water boils at one hundred degrees.",
    "The capital of France is Paris, and it is large.",
]
GLAD = ["day", "film", "meal", "song", "trip", "game", "book", "house"]


@pytest.mark.real
def test_grammar_a_neuron_for_when_and_a_direction_for_praise() -> None:
    try:
        model = ia.load("smollm2-135m")
    except ia.IntarsiaError as error:
        pytest.skip(f"smollm2-135m is not available: {error}")
    assert minimal_pairs(model, pairs=PAIRS).accuracy[0] > 0.9

    found = neurons(model, texts=TEXTS, neurons=["22:1424"], top=2, stride=30)
    (view,) = found.views
    assert [e.tokens[e.peak].strip().lower() for e in view.excerpts] == ["when", "when"]
    assert min(e.values[e.peak] for e in view.excerpts) > 8

    praise = concept(
        model,
        positive=[f"What a wonderful {word}, I loved it." for word in GLAD],
        negative=[f"What a terrible {word}, I hated it." for word in GLAD],
        folds=4,
        draws=2,
    )
    best = praise.finding.best
    assert best.auroc[0] > 0.95 > 0.8 > best.control
