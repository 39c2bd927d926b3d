"""`LensMaps`: fitted affine maps, one a layer, that take a layer's states to where the final norm and head can read
them; saved as a folder that knows which model it belongs to.

The module imports torch only when it works, so that the class can stand in the public face."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from intarsia.errors import BadInput
from intarsia.interpretation.fitted import Layout, named
from intarsia.interpretation.lenses.fit import FitLens

if TYPE_CHECKING:
    from torch import Tensor

    from intarsia.models import Model

LAYOUT = Layout("lens maps", "interpretation.fit_lens", "maps")


@dataclass
class LensMaps:
    """Maps x -> x A + b of every layer's `resid_post`, for the lens `method`.

    - method: `affine` (ridge onto the final state), `tuned` (trained on KL), `future` (ridge onto a later position).
    - matrix [layer, width, width], bias [layer, width]: float32.
    - ahead: how many positions later the final state is that the maps lead to; 0 is the same position.
    - model: facts about the network they were fitted on (`facts_of`). `finding`: how well they do."""

    method: str
    matrix: Tensor
    bias: Tensor
    model: dict[str, Any]
    ahead: int = 0
    finding: FitLens | None = None

    def __call__(self, states: Tensor, layer: int) -> Tensor:
        """States [n, width] of `layer` through its map, in their own dtype; computed in float32 at least."""
        import torch

        if not 0 <= layer < len(self.matrix):
            raise BadInput(f"the lens maps have layers 0 to {len(self.matrix) - 1}, asked for {layer}")
        wide = states.to(torch.promote_types(states.dtype, torch.float32))
        return (wide @ self.matrix[layer].to(wide) + self.bias[layer].to(wide)).to(states.dtype)

    def check(self, model: Model) -> LensMaps:
        """Itself, or `BadInput` when the maps were fitted on another network."""
        LAYOUT.check(self.model, model)
        return self

    def save(self, path: str | Path, force: bool = False) -> Path:
        """Write the folder `path` (`maps.safetensors`, `maps.json`), whole or not at all; returns it.

        Raises `BadInput` when there is something already and not `force`."""
        note = {"method": self.method, "ahead": self.ahead, "model": self.model}
        return LAYOUT.save(path, {"matrix": self.matrix, "bias": self.bias}, note, self.finding, force)

    @classmethod
    def load(cls, path: str | Path) -> LensMaps:
        """Read a folder that `save` wrote. Raises `BadInput` for anything else."""
        return LAYOUT.load(path, cls._made, FitLens)

    @classmethod
    def _made(cls, tensors: dict[str, Tensor], note: dict[str, Any], finding: FitLens | None) -> LensMaps:
        matrix, bias = tensors["matrix"], tensors["bias"]
        if matrix.dim() != 3 or bias.shape != matrix.shape[::2]:
            raise ValueError(f"matrices {list(matrix.shape)} and biases {list(bias.shape)} do not go together")
        return cls(note["method"], matrix, bias, note["model"], note["ahead"], finding)

    def __str__(self) -> str:
        return str(self.finding) if self.finding is not None else f"{self.method} lens maps of {named(self.model)}"
