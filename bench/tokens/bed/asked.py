"""Pictures with questions, for the two models that answer; the test set; how well one does who cannot see."""

from __future__ import annotations

import functools
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.tokens.bed import words
from bench.tokens.bed.drawings import drawings
from bench.tokens.bed.questions import Question, ask, ask_any
from bench.tokens.bed.scenes import Scene, draw, normalised, picture

TEST_SIZE = 1200
TEST_SEEDS = {"test": 7001, "unseen": 7002}


@dataclass(frozen=True)
class Asked:
    """Pictures [n, 3, side, side], question ids [n, words], answer ids [n], and what they are made of."""

    pixels: Tensor
    questions: Tensor
    answers: Tensor
    scenes: tuple[Scene, ...]
    asked: tuple[Question, ...]

    @property
    def open(self) -> Tensor:
        """[n] whether the answer is another than yes or no."""
        return torch.tensor([question.kind != "exists" for question in self.asked])


def asked(seed: int, step: int, size: int, each: int = 1, split: str = "train") -> Asked:
    """`size` pictures with `each` questions about every one: row i * each + j is question j about picture i."""
    rng = np.random.default_rng((seed, step))
    art = drawings()
    scenes = [draw(rng, art, split) for _ in range(size)]
    questions = [ask_any(scene, rng) for scene in scenes for _ in range(each)]
    pixels = normalised([picture(scene, art, split) for scene in scenes])
    return Asked(
        torch.from_numpy(pixels),
        torch.tensor([words.ids(question.text) for question in questions]),
        torch.tensor([words.IDS[question.answer] for question in questions]),
        tuple(scenes),
        tuple(questions),
    )


@functools.lru_cache(maxsize=4)
def test_set(split: str = "test", size: int = TEST_SIZE) -> Asked:
    """The same at every call: one question about each picture."""
    return asked(TEST_SEEDS[split], 0, size, split=split)


@functools.lru_cache(maxsize=1)
def _usual(size: int) -> tuple[dict[str, str], str]:
    """Most common training answer to each question, and to all."""
    rng = np.random.default_rng((0, 0))
    art = drawings()
    by_text: dict[str, Counter[str]] = defaultdict(Counter)
    for _ in range(size):
        scene = draw(rng, art)
        for question in (ask_any(scene, rng) for _ in range(4)):
            by_text[question.text][question.answer] += 1
    every = sum(by_text.values(), Counter())
    return {text: counts.most_common(1)[0][0] for text, counts in by_text.items()}, every.most_common(1)[0][0]


def blind_accuracy(questions: Iterable[Question], size: int = 5000) -> dict[str, float]:
    """Of the most common training answer to each question: overall, on open questions, and by kind."""
    usual, fallback = _usual(size)
    listed = list(questions)
    right = torch.tensor([usual.get(question.text, fallback) == question.answer for question in listed])
    return accuracy(right, listed)


def accuracy(right: Tensor, questions: Iterable[Question]) -> dict[str, float]:
    """Shares of right answers: `accuracy` (open questions: not yes or no), its standard error, `all`, by kind."""
    kinds = [question.kind for question in questions]
    right = right.double()
    is_open = torch.tensor([kind != "exists" for kind in kinds])
    share = right[is_open].mean().item()
    found = {
        "accuracy": share,
        "standard_error": (share * (1 - share) / int(is_open.sum())) ** 0.5,
        "all": right.mean().item(),
    }
    for kind in sorted(set(kinds)):
        found[f"accuracy_{kind}"] = right[torch.tensor([k == kind for k in kinds])].mean().item()
    return found


def judged(scores: Tensor, data: Asked) -> dict[str, Any]:
    """Answers [n, words] judged. `right` [n] is there for paired comparisons; `embedding` [n, words] are the scores
    less their mean, for fidelity."""
    right = scores.argmax(-1) == data.answers
    centred = scores.float() - scores.float().mean(-1, keepdim=True)
    return {**accuracy(right, data.asked), "right": right, "embedding": centred}


def fidelity(found: dict[str, Any], dense: dict[str, Any]) -> float:
    """Mean cosine between what a model and the dense one give for the same rows (`embedding` of `evaluate`)."""
    return torch.nn.functional.cosine_similarity(found["embedding"], dense["embedding"], dim=-1).mean().item()


__all__ = ["Asked", "accuracy", "ask", "asked", "blind_accuracy", "fidelity", "judged", "test_set"]
