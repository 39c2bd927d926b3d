"""A linear model of sentence embeddings, without the language model: the mark that every rung above has to beat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from intarsia.adaptation.dialogue.linear import Linear, choose
from intarsia.adaptation.routes.figures import value
from intarsia.adaptation.routes.rung import Learned, Plain
from intarsia.models.saved import Saved

if TYPE_CHECKING:
    from intarsia.adaptation.routes.bench import Bench
    from intarsia.adaptation.routes.examples import Example
    from intarsia.adaptation.routes.setting import Setting

PARTS = ("weight", "bias", "mean", "spread")


@dataclass
class Embedded:
    """Softmax over a linear map of what `Setting.features` gives."""

    linear: Linear
    setting: Setting

    def __call__(self, examples: Sequence[Example]) -> np.ndarray:
        return self.linear.scores(self.setting.features(examples)).astype(np.float64)


class OfEmbeddings(Plain):
    """Fitted to the labels; its strength and class weights are chosen on dev."""

    name = "linear"
    what = "softmax of sentence embeddings, no language model"
    access = "none"
    teaches = False
    reads = ("embedder", "minutes", "metric", "past")

    def learn(self, bench: Bench) -> Learned:
        some, mine, held = bench.featured()
        chosen = choose(
            mine, bench.y[: len(some)], len(bench.labels), (held, bench.y_dev),
            lambda scores, true: value(bench.config.metric, scores, true),
        )  # fmt: skip
        labeller = Embedded(chosen.linear, bench)
        facts = {"strength": chosen.strength, "class weight": chosen.exponent, "texts": len(some)}
        return Learned(to_saved(chosen.linear), labeller, chosen.linear.scores(held), facts)

    def open(self, setting: Setting, saved: Saved) -> Embedded:
        return Embedded(from_saved(saved), setting)


def to_saved(linear: Linear) -> Saved:
    """As a file holds it."""
    import torch

    return Saved({name: torch.from_numpy(getattr(linear, name)) for name in PARTS})


def from_saved(saved: Saved) -> Linear:
    """The inverse."""
    return Linear(*(saved.tensors[name].numpy() for name in PARTS))
