"""How a method learns: the figures that a paper gives in its section on hyper-parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from intarsia.errors import BadInput, did_you_mean

Loss = Literal["margin", "self-adversarial", "softmax"]
Optimiser = Literal["adam", "adagrad"]
LOSSES: tuple[Loss, ...] = ("margin", "self-adversarial", "softmax")
SHARED = ("scorer", "width", "learning_rate", "batch_size", "epochs", "patience")


def given_in(config: Any) -> dict[str, Any]:
    """The settings that a technique's config may have fields of, by name; None for what it leaves to the method."""
    return {name: getattr(config, name, None) for name in SHARED}


@dataclass(frozen=True)
class Settings:
    """The defaults are LKGE's (Cui et al. 2023, official code), whose baselines share them.

    - loss: see `objectives/`. negatives: corrupted facts for each fact; margin: of the margin losses.
    - batch_size: facts in both directions (softmax: questions); None: as suits the number of facts.
    - learning_rate, n3: None: the scorer's own.
    - optimiser: adam, begun afresh with every snapshot; or adagrad, whose sums of squared gradients go on with the
      rows, so that what was learned long moves little, what is new fast.
    - epochs: at most. Every `validate_every` epochs held-out facts are ranked; an MRR that is higher, rounded to
      four decimals, is kept and takes `forgive` off a counter, any other adds 1, and learning stops at `patience`, but
      not before epoch `least_epochs`. The best epoch counts.
    - validate_on: how many held-out questions are ranked (None: all); validate_all: those of all snapshots so far, in
      place of the snapshot's own.
    - candidates: a softmax is over this many entities at most, drawn anew for each batch.
    - options: what only the method itself knows, by name."""

    scorer: str = "transe"
    width: int = 200
    loss: Loss = "margin"
    optimiser: Optimiser = "adam"
    learning_rate: float | None = 1e-4
    batch_size: int | None = 2048
    epochs: int = 200
    patience: int = 3
    forgive: int = 5
    least_epochs: int = 0
    validate_every: int = 1
    validate_on: int | None = None
    validate_all: bool = False
    negatives: int = 10
    margin: float = 8.0
    n3: float | None = None
    candidates: int = 1 << 15
    options: Mapping[str, float] = field(default_factory=dict)

    def with_(self, **given: Any) -> Settings:
        """Some of them changed; what is None stays as it is."""
        return replace(self, **{name: value for name, value in given.items() if value is not None})

    def option(self, name: str) -> float:
        """An option's value."""
        return self.options[name]

    def tuned(self, given: Mapping[str, float], method: str) -> Settings:
        """With some of the method's own options changed; `BadInput` for one that it does not have."""
        for name in given:
            if name not in self.options:
                known = f"; it has: {', '.join(self.options)}" if self.options else "; it has none"
                raise BadInput(f"the method '{method}' has no option '{name}'{did_you_mean(name, self.options)}{known}")
        return replace(self, options={**self.options, **given})
