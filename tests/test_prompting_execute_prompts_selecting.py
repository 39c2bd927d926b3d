"""Selectors: who is chosen, in which order, and who is left out."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest

from intarsia.data import LabelledText
from intarsia.prompting.base.fake import FakeBackend
from intarsia.prompting.execute.prompt import Prompt
from intarsia.prompting.execute.selecting import Selector, Words
from tests.failing import fails

POINTS = {"a": (1, 0), "a2": (0.999, 0.02), "b": (0.9, 0.4), "c": (0.8, -0.6), "d": (-1, 0), "q": (1, 0.01)}
POOL = [LabelledText(text, "xy"[i % 2], group=f"g{i}") for i, text in enumerate(("a", "a2", "b", "c", "d"))]


def encode(texts):
    return np.array([POINTS[text] for text in texts], float)


def reference(query: str, k: int, relevance: float) -> list[str]:
    """Maximal marginal relevance, naively: the most like the input last."""
    unit = {name: np.array(point) / np.linalg.norm(point) for name, point in POINTS.items()}
    chosen: list[str] = []
    left = [record.text for record in POOL]
    while len(chosen) < k:

        def worth(text):
            near = max((unit[text] @ unit[other] for other in chosen), default=0.0)
            return relevance * unit[text] @ unit[query] - (1 - relevance) * near

        best = max(left, key=worth)
        chosen.append(best)
        left.remove(best)
    return sorted(chosen, key=lambda text: unit[text] @ unit[query])


@pytest.mark.parametrize("relevance", [1.0, 0.7, 0.5, 0.3])
@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_nearest_is_maximal_marginal_relevance_far_to_near(relevance, k) -> None:
    found = Selector(POOL, "nearest", encoder=encode, k=k, relevance=relevance).choose("q")
    assert [record.text for record in found.examples] == reference("q", k, relevance)


def test_an_input_never_sees_its_own_answer_or_its_kin() -> None:
    for how, encoder in (("nearest", encode), ("words", None), ("random", None)):
        many = Selector(POOL, how, encoder=encoder, k=5).choose_many(["a", "q"], groups=[None, "g2"])
        assert {r.text for r in many[0].examples} == {"a2", "b", "c", "d"}
        assert {r.text for r in many[1].examples} == {"a", "a2", "c", "d"}
    assert Selector(POOL[:1], "nearest", encoder=encode).choose("a").examples == ()


def test_balanced_and_random_are_the_same_for_all_inputs() -> None:
    one, two = Selector(POOL, "balanced", k=2, seed=3).choose_many(["q", "z"])
    assert one == two and Counter(record.label for record in one.examples) == {"x": 2, "y": 2}
    drawn = Selector(POOL, "random", k=3, seed=1)
    assert drawn.choose("q") == drawn.choose("z") == Selector(POOL, "random", k=3, seed=1).choose("q")
    assert len({Selector(POOL, "random", k=3, seed=seed).choose("q").examples for seed in range(9)}) > 3


def test_words_are_bm25() -> None:
    texts = ["the cat sat", "the dog sat on the mat", "a bird", ""]
    words = [text.split() for text in texts]
    mean = sum(map(len, words)) / len(words)

    def naive(query, document) -> float:
        total = 0.0
        for word in set(query):
            having = sum(word in other for other in words)
            times = document.count(word)
            idf = math.log(1 + (len(words) - having + 0.5) / (having + 0.5))
            total += idf * times * 2.2 / (times + 1.2 * (0.25 + 0.75 * len(document) / mean))
        return total

    found = Words(texts).scores("The CAT on the mat")
    assert found == pytest.approx([naive(["the", "cat", "on", "the", "mat"], document) for document in words])
    pool = [{"text": text, "label": i} for i, text in enumerate(texts)]
    chosen = Selector(pool, "words", k=2).choose("the cat on the mat").examples
    assert [one["label"] for one in chosen] == [0, 1]


def test_a_budget_leaves_out_the_least_alike() -> None:
    found = Selector(POOL, "nearest", encoder=encode, k=3, budget_tokens=5, count=lambda r: 2).choose("q")
    assert len(found.examples) == 2 and len(found.left_out) == 1 and found.examples[-1].text == "a"
    assert Selector(POOL, "random", k=3, budget_tokens=1, count=lambda r: 2).choose("q").examples == ()
    assert len(Selector(POOL, "random", k=3, budget_tokens=4).choose("q").examples) == 2


@dataclass
class Turn:
    text: str
    label: str


def test_examples_are_shots_of_a_prompt() -> None:
    pool = [Turn("I won a prize", "joy"), Turn("my dog died", "grief"), Turn("you broke it", "anger")]
    selector = Selector(pool, "nearest", encoder=FakeBackend(width=256), k=1)
    prompt = Prompt(
        "---\ninputs:\n  shots: list[Turn]\n  turn: str\n---\n"
        "{% for s in shots %}{% shot %}{{ s.text }}{% answer %}{{ s.label }}{% endshot %}{% endfor %}"
        "{% user %}{{ turn }}{% enduser %}"
    )
    turn = "their dog died"
    made = prompt.render(shots=list(selector.choose(turn).examples), turn=turn)
    assert [message.content for message in made] == ["my dog died", "grief", turn]


def test_what_does_not_fit_is_refused() -> None:
    fails(lambda: Selector([], "random"), "pool of examples is empty")
    fails(lambda: Selector(POOL, "near"), "given: 'near'")
    fails(lambda: Selector(POOL, "nearest"), "an encoder")
    fails(lambda: Selector(POOL, "random", encoder=encode), "an encoder")
    fails(lambda: Selector(POOL, "random", k=0), "at least 1")
    fails(lambda: Selector(POOL, "nearest", encoder=encode, relevance=0), "a share above 0")
    fails(lambda: Selector([*POOL, {"text": "a"}], "random"), "example 6 of the pool has no 'label'")
