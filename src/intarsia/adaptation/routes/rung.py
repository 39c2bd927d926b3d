"""What a rung of the ladder is: one way to specialise a model, learned from the bench and opened again from a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from intarsia.adaptation.routes.figures import log_softmax
from intarsia.errors import IntarsiaError
from intarsia.measure.labels import LabelTask
from intarsia.measure.likelihood import score

if TYPE_CHECKING:
    from intarsia.adaptation.routes.bench import Bench
    from intarsia.adaptation.routes.examples import Example
    from intarsia.adaptation.routes.setting import Setting
    from intarsia.models import Model
    from intarsia.models.saved import Saved


class OutOfTime(IntarsiaError):
    """A rung cannot do anything of use in the minutes it has."""


class Labeller(Protocol):
    """Labels examples. Each one's scores depend on it alone, not on those labelled with it."""

    def __call__(self, examples: Sequence[Example]) -> np.ndarray:
        """Log probabilities [example, label] float64."""


@dataclass
class Learned:
    """What a rung comes to.

    - saved: all of it, as it is kept. dev: scores of dev, where learning made them anyway.
    - facts: short figures for the table (steps, the k that was chosen)."""

    saved: Saved
    labeller: Labeller
    dev: np.ndarray | None = None
    facts: dict[str, Any] = field(default_factory=dict)


class Rung(Protocol):
    """One way to specialise a model.

    - access: what of the model it needs: `none`, `grey box` (probabilities, embeddings, or gradients with respect to
      the prompt) or `white box` (weights).
    - changes: the network answers other texts differently, too; teaches: what it does is worth distilling.
    - reads: the settings it depends on, beside those that all do."""

    name: str
    what: str
    access: str
    changes: bool
    teaches: bool
    reads: tuple[str, ...]

    def check(self, setting: Setting) -> None:
        """Raise `BadInput` or `MissingExtra` for settings that cannot be."""

    def possible(self, setting: Setting) -> None:
        """Raise `BadInput` where this network has not what the rung needs: the others are climbed without it."""

    def learn(self, bench: Bench) -> Learned:
        """Learn, in the minutes that the bench has left. Raises `OutOfTime` where they are too few for anything."""

    def open(self, setting: Setting, saved: Saved) -> Labeller:
        """The labeller of what was learned and kept."""


class Plain:
    """What most rungs have in common."""

    what = ""
    access = "grey box"
    changes = False
    teaches = True
    reads: tuple[str, ...] = ()

    def check(self, setting: Setting) -> None:
        """Nothing to check."""

    def possible(self, setting: Setting) -> None:
        """With every network."""


@dataclass
class Likelihood:
    """Labels by the likelihood of their words, plus a bias for each: calibrated once and for all."""

    model: Model
    task: LabelTask

    def __call__(self, examples: Sequence[Example]) -> np.ndarray:
        return log_softmax(self.raw(examples) + np.asarray(self.task.bias or 0.0))

    def raw(self, examples: Sequence[Example]) -> np.ndarray:
        """Without the bias."""
        return score(self.model, self.task, list(examples), calibration="none").raw


def biased(task: LabelTask, bias: np.ndarray | Sequence[float] | None) -> LabelTask:
    """A copy of a task that adds this bias and nothing else."""
    values = None if bias is None else [float(b) for b in bias]
    return LabelTask.parse(task.model_dump() | {"bias": values, "calibration": "none", "prior_weight": 0.0})
