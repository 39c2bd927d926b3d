"""`Concept`: a direction and an eraser for every layer of one model; saved as a folder that knows which model it is of.

The module imports torch only when it works, so that the class can stand in the public face."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from intarsia.errors import BadInput
from intarsia.interpretation.concepts.concept import LearnConcept
from intarsia.interpretation.fitted import Layout

if TYPE_CHECKING:
    from torch import Tensor

    from intarsia.interpretation.erasure import Eraser
    from intarsia.models import Model

LAYOUT = Layout("concept directions", "interpretation.concept", "concept")
NAMES = ("direction", "gap", "middle", "read", "write", "mean")


@dataclass
class Concept:
    """What tells positive from negative texts in the stream after each block (`resid_post`), float32.

    - direction [layer, width]: of length one, from negative to positive.
    - gap [layer]: distance between the means of the two sets along it. middle [layer]: where halfway between them lies.
    - read, write, mean [layer, width]: the LEACE eraser x - ((x - mean) . read) write.
    - method, at: how it was learnt. model: facts about the network. finding: how well it tells held-out texts apart."""

    direction: Tensor
    gap: Tensor
    middle: Tensor
    read: Tensor
    write: Tensor
    mean: Tensor
    method: str
    at: str
    model: dict[str, Any]
    finding: LearnConcept | None = None

    @property
    def best_layer(self) -> int:
        """The layer where the direction tells held-out texts apart best; the middle one, when that is not known."""
        return self.finding.best.layer if self.finding is not None else len(self.direction) // 2

    def score(self, states: Tensor, layer: int) -> Tensor:
        """[...] for states [..., width] of a layer: -1 where negative texts lie on average, +1 where positive ones."""
        self._check_layer(layer)
        along = states.float() @ self.direction[layer].to(states.device)
        return 2 * (along - float(self.middle[layer])) / max(float(self.gap[layer]), 1e-12)

    def vector(self, layer: int) -> Tensor:
        """[width] the direction as long as the gap: what takes an average negative text to the positive ones."""
        self._check_layer(layer)
        return self.direction[layer] * self.gap[layer]

    def eraser(self, layer: int) -> Eraser:
        """The LEACE eraser of a layer."""
        from intarsia.interpretation.erasure import Eraser

        self._check_layer(layer)
        return Eraser(self.read[layer][:, None], self.write[layer][None], self.mean[layer])

    def _check_layer(self, layer: int) -> None:
        if not 0 <= layer < len(self.direction):
            raise BadInput(f"the concept has layers 0 to {len(self.direction) - 1}, asked for {layer}")

    def check(self, model: Model) -> Concept:
        """Itself, or `BadInput` when it was learnt on another network."""
        LAYOUT.check(self.model, model)
        return self

    def save(self, path: str | Path, force: bool = False) -> Path:
        """Write the folder `path`, whole or not at all; returns it.

        Raises `BadInput` when there is something already and not `force`."""
        note = {"method": self.method, "at": self.at, "model": self.model}
        return LAYOUT.save(path, {name: getattr(self, name) for name in NAMES}, note, self.finding, force)

    @classmethod
    def load(cls, path: str | Path) -> Concept:
        """Read a folder that `save` wrote. Raises `BadInput` for anything else."""
        return LAYOUT.load(path, cls._made, LearnConcept)

    @classmethod
    def _made(cls, tensors: dict[str, Tensor], note: dict[str, Any], finding: LearnConcept | None) -> Concept:
        if tensors["direction"].dim() != 2 or tensors["read"].shape != tensors["direction"].shape:
            raise ValueError(f"the direction must be [layer, width], is {list(tensors['direction'].shape)}")
        columns = {name: tensors[name] for name in NAMES}
        return cls(**columns, method=note["method"], at=note["at"], model=note["model"], finding=finding)

    def __str__(self) -> str:
        return str(self.finding) if self.finding is not None else f"a concept of {self.model['source']} ({self.method})"
