"""The labels of the nearest training texts, mixed into the likelihood: log p = (1 - a) log p_LM + a log p_kNN + const.

Source: Khandelwal et al. 2020, "Generalization through Memorization" (mixing p in place of log p)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from intarsia.adaptation.dialogue.neighbours import Neighbours
from intarsia.adaptation.routes.figures import log_softmax, value
from intarsia.adaptation.routes.rung import Learned, Likelihood, Plain, biased
from intarsia.adaptation.routes.rungs.likelihood import calibration
from intarsia.models.saved import Saved

if TYPE_CHECKING:
    from intarsia.adaptation.routes.bench import Bench
    from intarsia.adaptation.routes.examples import Example
    from intarsia.adaptation.routes.setting import Setting

NEAREST, TEMPERATURES, SHARES = (5, 20, 50), (0.05, 0.1), tuple(i / 10 for i in range(1, 11))


@dataclass
class Mixed:
    """The language model and the memory beside it; with a share of 1 the former is not run.

    - groups: of the texts in the memory. None from an example's own dialogue is asked about it."""

    likelihood: Likelihood
    memory: Neighbours
    share: float
    setting: Setting
    groups: list[str | None]

    def __call__(self, examples: Sequence[Example]) -> np.ndarray:
        kept, asked = _numbers(self.groups, [e.group for e in examples])
        near = replace(self.memory, groups=kept).scores(self.setting.said(examples), asked)
        return near if self.share == 1 else self.mix(self.likelihood(examples), near)

    def mix(self, likelihood: np.ndarray, near: np.ndarray) -> np.ndarray:
        """Of log probabilities [example, label] both."""
        return log_softmax((1 - self.share) * likelihood + self.share * near)


class Nearest(Plain):
    """A memory of labelled texts: it learns by keeping."""

    name = "neighbours"
    what = "nearest training texts, mixed into the likelihood"
    reads = ("embedder", "minutes", "metric")

    def learn(self, bench: Bench) -> Learned:
        import torch

        bias, _ = calibration(bench, bench.raw())
        plain = log_softmax(bench.raw() + bias)
        some, mine, held = bench.embedded()
        kept = mine.astype(np.float16)  # as it is saved
        y = bench.y[: len(some)]
        names = [e.group for e in some]
        groups, asked = _numbers(names, bench.groups)
        best: tuple[float, float, Mixed, np.ndarray] | None = None
        for nearest in NEAREST:
            for temperature in TEMPERATURES:
                memory = Neighbours(kept.astype(np.float32), y, groups, len(bench.labels), nearest, temperature)
                near = memory.scores(held, asked)
                for share in SHARES:
                    mixed = Mixed(Likelihood(bench.model, biased(bench.task, bias)), memory, share, bench, names)
                    scores = mixed.mix(plain, near)
                    rank = value(bench.config.metric, scores, bench.y_dev), _fit(scores, bench.y_dev)
                    if best is None or rank > best[:2]:
                        best = *rank, mixed, scores
        assert best is not None
        mixed = best[2]
        facts = {"nearest": mixed.memory.nearest, "temperature": mixed.memory.temperature, "share": mixed.share}
        tensors = {"vectors": torch.from_numpy(kept), "labels": torch.from_numpy(y.astype(np.int32))}
        note = {"bias": bias.tolist(), "groups": names, **facts}
        return Learned(Saved(tensors, note), mixed, best[3], facts | {"texts": len(some)})

    def open(self, setting: Setting, saved: Saved) -> Mixed:
        note, labels = saved.note, saved.tensors["labels"].numpy()
        vectors = saved.tensors["vectors"].float().numpy()
        memory = Neighbours(
            vectors, labels, np.arange(len(labels)), len(setting.labels), note["nearest"], note["temperature"]
        )
        likelihood = Likelihood(setting.model, biased(setting.task, note["bias"]))
        return Mixed(likelihood, memory, note["share"], setting, list(note["groups"]))


def _numbers(kept: Sequence[str | None], asked: Sequence[str | None]) -> tuple[np.ndarray, np.ndarray]:
    """Groups as numbers, alike for both; those without a group are alone."""
    number = {name: i for i, name in enumerate(dict.fromkeys(g for g in (*kept, *asked) if g is not None))}
    alone = iter(range(len(number), len(number) + len(kept) + len(asked)))
    both = [[next(alone) if g is None else number[g] for g in groups] for groups in (kept, asked)]
    return np.array(both[0]), np.array(both[1])


def _fit(scores: np.ndarray, true: np.ndarray) -> float:
    """Mean log probability of the right label: what decides between equal figures."""
    return float(scores[np.arange(len(true)), true].mean())
