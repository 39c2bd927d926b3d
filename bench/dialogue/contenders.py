"""Majority, a linear model, the network untuned, DialogueLLM, and our own: figures on test, with intervals."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import intarsia as ia
from bench.common import show
from bench.kept import Kept
from intarsia.adaptation import dialogue
from intarsia.adaptation.dialogue.published import PAPER
from intarsia.data import Dataset, LabelledText, Turn
from intarsia.measure.classification import judge
from intarsia.measure.labelling import label_scores
from intarsia.measure.labels import LabelTask
from intarsia.measure.likelihood import LabelScores, score

MODEL = "smollm2-135m"
NAMES = ("majority", "linear", "linear+neighbours", "zero-shot", "calibrated", "dialoguellm", "own", "own-offline")
BATCH = 16  # DialogueLLM's batch of 128 would be a dozen steps in this time


def run(
    name: str, data: Dataset, kept: Kept, cpu_minutes: float, only: Sequence[str] | None, *, quick: bool
) -> dict[str, float]:
    """The contenders on one data set; figures for `--json`."""
    train, dev, test = splits(data, quick)
    if quick:
        cpu_minutes /= 10
    made = {}
    for contender in NAMES:
        if only and contender not in only:
            continue
        make = getattr(Contenders(train, dev, test, cpu_minutes), contender.replace("-", "_").replace("+", "_and_"))
        made[contender] = kept(contender, make)
    columns = ["contender", "weighted F1", "95 %", "accuracy", "macro F1", "ECE", "dev wF1", "CPU min", "turns a s"]
    rows = []
    for contender, f in made.items():
        low, high = f["weighted_f1"][1:]
        rows.append([
            contender, f"{f['weighted_f1'][0]:.1%}", f"{low:.1%} to {high:.1%}", f"{f['accuracy'][0]:.1%}",
            f"{f['macro_f1'][0]:.1%}", f"{f['ece']:.3f}", f"{f['dev']:.1%}" if f.get("dev") else "",
            f"{f['cpu_minutes']:.1f}", f"{f['per_second']:.0f}" if f.get("per_second") else "",
        ])  # fmt: skip
    show(f"{name}: {len([t for t in test if t.label]):,} test turns, {len(train):,} to learn from", columns, rows)
    if "own" in made:
        classes = [[str(cell) for cell in row] for row in made["own"]["classes"]]
        show(f"{name}: own, by class", ["class", "F1", "precision", "recall", "turns"], classes)
    figure = {c: f["weighted_f1"][0] for c, f in made.items()}
    wanted = {"own": f"{name}_wf1", "linear": f"{name}_wf1_linear", "dialoguellm": f"{name}_wf1_dialoguellm"}
    return {key: 100 * figure[c] for c, key in wanted.items() if c in figure}


def splits(data: Dataset, quick: bool) -> tuple[list[Turn], list[Turn], list[Turn]]:
    """(train, dev, test); quick: every tenth dialogue, and M300 of test with what stands around it as context."""
    train, dev, test = (list(data[s]) for s in ("train", "dev", "test"))
    if quick:
        groups = set(list(dict.fromkeys(t.group for t in train))[::10])
        train = [t for t in train if t.group in groups]
        judged = set(random.Random(0).sample(range(len(test)), 300))
        test = [t if i in judged else _silent(t) for i, t in enumerate(test)]
    return train, dev, test


def _silent(turn: Turn) -> Turn:
    from dataclasses import replace

    return replace(turn, label="")


class Contenders:
    """Each gives its figures on test. Nothing is chosen there."""

    def __init__(self, train: list[Turn], dev: list[Turn], test: list[Turn], cpu_minutes: float):
        self.train, self.dev, self.test, self.cpu_minutes = train, dev, test, cpu_minutes
        self.labels = sorted({t.label for t in train if t.label})

    def majority(self) -> dict[str, Any]:
        """Always the most frequent label of train."""
        count = np.array([sum(t.label == name for t in self.train) for name in self.labels])
        p = np.tile(count / count.sum(), (len(self.test), 1))
        return self._judged(LabelScores(tuple(self.labels), np.log(p), np.log(p), p, p[:, 0]), 0.0)

    def linear(self) -> dict[str, Any]:
        """Logistic regression on sentence embeddings, five turns of past, the main speakers."""
        return self._tuned(labellers=("linear",))

    def linear_and_neighbours(self) -> dict[str, Any]:
        """With the nearest training turns: the cheap bar."""
        return self._tuned(labellers=("linear", "neighbours"))

    def zero_shot(self) -> dict[str, Any]:
        """The likelihood of the label's words, as they come."""
        return self._untuned("none", prior=False)

    def calibrated(self) -> dict[str, Any]:
        """The same, less its mean over the test turns, plus the log prior of train."""
        return self._untuned("batch", prior=True)

    def dialoguellm(self) -> dict[str, Any]:
        """The published recipe, for as many steps as the time allows."""
        small = self.train[:64]
        began = time.process_time()
        settings: dict[str, Any] = {"recipe": "dialoguellm", "batch_size": BATCH}
        dialogue(ia.load(MODEL), train=small, dev=self.dev[:2], max_steps=2, **settings)
        # Two steps with loading and a few answers: an upper bound of what a step takes is not needed, its rate is.
        loading = time.process_time()
        dialogue(ia.load(MODEL), train=small, dev=self.dev[:2], max_steps=1, **settings)
        one = (loading - began) - (time.process_time() - loading)
        steps = int(60 * self.cpu_minutes / max(one, 1e-3))
        most = round(PAPER["epochs"] * len(self.train) / BATCH)
        return self._tuned(max_steps=min(steps, most), **settings)

    def own(self) -> dict[str, Any]:
        """All labellers, online."""
        return self._tuned(**OWN)

    def own_offline(self) -> dict[str, Any]:
        """The linear model sees one later turn, too; the network does not."""
        return self._tuned(labellers=("linear", "neighbours"), future=1)

    def _tuned(self, **settings: Any) -> dict[str, Any]:
        began = time.process_time()
        model = dialogue(ia.load(MODEL), train=self.train, dev=self.dev, **settings)
        spent = time.process_time() - began
        facts = model.extras["adaptation.dialogue"]["facts"]
        out = self._judged(None, spent, lambda: label_scores(model, self.test))
        last = facts["dev"][next(reversed(facts["dev"]))]
        return out | {"dev": last["weighted_f1"], "dev_each": facts["dev"], "facts": _short(facts),
                      "mix": model.extras["adaptation.dialogue"].get("mix")}  # fmt: skip

    def _untuned(self, calibration: str, *, prior: bool) -> dict[str, Any]:
        model = ia.load(MODEL)
        task = LabelTask.from_records(self.train, template="{text} (feels", prior=prior)
        texts = [LabelledText(f"{t.speaker}: {t.text}", t.label, t.group) for t in self.test]
        return self._judged(None, 0.0, lambda: score(model, task, texts, calibration=calibration))

    def _judged(
        self, scores: LabelScores | None, spent: float, make: Callable[[], LabelScores] | None = None
    ) -> dict[str, Any]:
        began = time.process_time()
        if make is not None:
            scores = make()
        assert scores is not None
        taken = time.process_time() - began
        places = [i for i, t in enumerate(self.test) if t.label]
        labels = list(scores.labels)
        true = np.array([labels.index(self.test[i].label) for i in places])
        found = judge(
            labels, true, scores.probabilities[places], scores.raw[places], [self.test[i].group for i in places]
        )
        classes = [
            [c.label, f"{c.f1[0]:.1%}", f"{c.precision:.1%}", f"{c.recall:.1%}", f"{c.support:,}"]
            for c in found.classes
        ]
        return {
            "weighted_f1": found.weighted_f1, "accuracy": found.accuracy, "macro_f1": found.macro_f1, "ece": found.ece,
            "cpu_minutes": spent / 60, "per_second": len(self.test) / taken if taken > 0.1 else None,
            "classes": classes, "confusion": found.confusion,
        }  # fmt: skip


OWN: dict[str, Any] = {}
"""Settings of our own recipe that are not the defaults."""


def _short(facts: dict[str, Any]) -> dict[str, Any]:
    out = dict(facts)
    if "network" in out:
        losses = out["network"]["losses"]
        out["network"] = {**out["network"], "losses": [losses[0], losses[-1]], "steps": len(losses)}
    return out
