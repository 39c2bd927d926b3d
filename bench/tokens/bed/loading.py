"""`load`: a trained model with all that is needed to train it on and to judge it."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from bench.tokens.bed.asked import blind_accuracy, fidelity
from intarsia.models import Model, wrap

KINDS = ("dual", "blip", "llava")


@dataclass(frozen=True)
class Bed:
    """One of the three, trained.

    - kind: `dual`, `blip` or `llava`.
    - model: the dense model, in eval mode. Each call of `load` gives a fresh one."""

    kind: str
    model: Model
    _module: ModuleType

    @property
    def key(self) -> str:
        """The name of its weights, which says how they were made."""
        return self._module.weights_path().stem

    @property
    def test(self) -> Any:
        """The test set: keyword arguments of the forward for `dual`, else `bench.tokens.bed.asked.Asked`."""
        return self._module.test_set()

    def batches(self, seed: int, size: int) -> Iterator[dict[str, Tensor]]:
        """Training batches without end, keyword arguments of the network's forward; the same for the same seed."""
        return self._module.batches(seed, size)

    def task_loss(self, network: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        """What the dense model was trained to make small, of one batch."""
        return self._module.task_loss(network, batch)

    def evaluate(self, network: nn.Module, split: str = "test", size: int | None = None) -> dict[str, Any]:
        """How good a network is: `accuracy` (R@1, or open questions answered), `standard_error`, `right` [n] bool for
        paired comparisons, `embedding` [n, width] for `fidelity`, and more by kind. The network must be in eval mode.

        - split: `test` or `unseen`.
        - size: a smaller test set."""
        return self._module.evaluate(network, split, size)

    def blind(self, split: str = "test") -> float:
        """`accuracy` of one who cannot see: chance for `dual`, the most common answer to each question else."""
        if self.kind == "dual":
            return 1 / self._module.TEST_SIZE
        return blind_accuracy(self._module.test_set(split).asked)["accuracy"]


def load(kind: str, say: Callable[[str], None] = print) -> Bed:
    """The bed of a kind, trained before or now. Raises `ValueError` for another kind, `BadInput` without the data."""
    if kind not in KINDS:
        raise ValueError(f"'{kind}': give one of {', '.join(KINDS)}")
    from bench.tokens.bed.words import tokenizer

    module = importlib.import_module(f"bench.tokens.bed.{kind}")
    return Bed(kind, wrap(module.train(say), tokenizer(), name=f"bed-{kind}"), module)


__all__ = ["KINDS", "Bed", "fidelity", "load"]
