"""The voices: words, states, and views of equal length."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from intarsia.detection.voices.cuts import VIEWS, cut, length_of, view_for, word_ends
from intarsia.detection.voices.ngrams import NGrams, balanced, counts, raw_counts
from intarsia.detection.voices.states import Probe
from tests.failing import fails

WORDS = [
    *("the", "of", "and", "river", "stone", "we", "they", "saw", "built", "green", "old", "new", "water", "light"),
    *("many", "few", "home", "road"),
]


def texts(count: int, seed: int, machine: bool) -> list[str]:
    """People say `saw many`, machines `saw few`; all else is chance."""
    draw = np.random.default_rng(seed)
    out = []
    for _ in range(count):
        some = list(draw.choice(WORDS, 60))
        for at in draw.integers(0, 60, 6):
            some.insert(at, "saw few" if machine else "saw many")
        out.append(" ".join(some) + ".")
    return out


def test_runs_of_words_are_counted_with_punctuation():
    found = raw_counts(["a stone, a stone."])
    runs = Counter()
    tokens = ["a", "stone", ",", "a", "stone", "."]
    for n in (1, 2, 3):
        runs.update(" ".join(tokens[i : i + n]) for i in range(len(tokens) - n + 1))
    assert found.sum() == sum(runs.values()) and sorted(found.data) == sorted(runs.values())
    np.testing.assert_allclose(counts(["a stone, a stone."]).data, 1 + np.log(found.data))
    assert (raw_counts(["Stone"]) != raw_counts(["stone"])).nnz  # case tells


def test_a_script_without_blanks_has_words_too():
    assert length_of("我们在河边 saw it") == 7
    assert raw_counts(["我们在"]).sum() == 3 + 2 + 1
    assert cut("我们在河边", 3) == "我们在"


def test_what_is_learned_is_what_tells():
    people, machines = texts(80, 0, False), texts(80, 1, True)
    machine = np.arange(160) >= 80
    model = NGrams.fit(people + machines, machine, ["a"] * 160)
    scores = model.scores(texts(40, 2, False) + texts(40, 3, True))
    assert roc_auc_score(np.arange(80) >= 40, scores) > 0.99
    text = texts(1, 4, True)[0]
    runs = dict(model.evidence(text, 5))
    assert any("saw few" in run for run in runs) and all(value > 0 for value in runs.values())
    assert model.evidence("") == [] and math.isfinite(model.scores([""])[0])


def test_evidence_adds_up_to_the_log_odds():
    people, machines = texts(40, 0, False), texts(40, 1, True)
    model = NGrams.fit(people + machines, np.arange(80) >= 40, ["a"] * 80)
    text = machines[0]
    # Each place of the hash once: positive and negative parts together are the score less its bias.
    row = counts([text])
    scaled = row.data * model.rarity[row.indices]
    scaled /= np.linalg.norm(scaled)
    whole = scaled @ model.weight[row.indices] + model.bias
    assert model.scores([text])[0] == pytest.approx(whole, rel=1e-4)
    positive = sum(value for _, value in model.evidence(text, 10_000))
    assert positive == pytest.approx((scaled * model.weight[row.indices]).clip(min=0).sum(), rel=0.02)


def test_domains_and_kinds_weigh_alike():
    machine = np.array([0, 0, 0, 1, 0, 1], bool)
    weights = balanced(machine, ["a", "a", "a", "a", "b", "b"])
    assert weights.mean() == pytest.approx(1)
    np.testing.assert_allclose(weights / weights[3], [1 / 3, 1 / 3, 1 / 3, 1, 1, 1])
    fails(lambda: NGrams.fit(["a b"], np.array([True]), ["a"]), "texts of people and of machines")


def test_a_probe_learns_what_domains_share_and_not_what_they_differ_in():
    draw = np.random.default_rng(0)
    states, machine, names = [], [], []
    for number, name in enumerate("abc"):
        kind = np.arange(80) % 2 == 1
        some = draw.normal(size=(80, 6))
        some[:, 0] += 1.5 * kind
        some[:, 1] += 20 * number  # what the domain is about
        # In each domain machines lean another way on dimension 2.
        some[:, 2] += (1.5 if number == 0 else -0.7) * kind
        states.append(some)
        machine.append(kind)
        names += [name] * 80
    states, machine = np.concatenate(states), np.concatenate(machine)
    probe = Probe.fit(states, machine, names, strength=1.0)
    assert probe.weight[0] > 5 * abs(probe.weight[1]) and probe.weight[0] > 3 * abs(probe.weight[2])
    np.testing.assert_allclose(probe.scores(states), states @ probe.weight, rtol=1e-4)
    assert probe.scores(np.zeros((2, 3, 6))).shape == (2, 3)


def test_views():
    text = "  one two\n three  four"
    assert word_ends(text) == [5, 9, 16, 22] and cut(text, 2) == "  one two" and cut(text, 99) == text
    assert cut("", 5) == "" and length_of("") == 0 and length_of(text) == 4
    assert [view_for(n) for n in (1, 36, 65, 66, 700, 5000)] == [20, 50, 65, 80, 700, VIEWS[-1]]
