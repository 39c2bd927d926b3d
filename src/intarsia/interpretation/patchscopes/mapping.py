"""`StateMaps`: affine maps from the states of one model to those of another, fitted on text.

Source: Ghandeharioun et al. 2024, section 5.2 (their maps are plain least squares; here ridge, see `ridge`). The module
imports torch only when it works, so that the class can stand in the public face."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from intarsia.errors import BadInput
from intarsia.interpretation.fitted import Layout, facts_of
from intarsia.interpretation.patchscopes.map_states import MapStates

if TYPE_CHECKING:
    from torch import Tensor

    from intarsia.interpretation.patchscopes.prompts import Encoded
    from intarsia.models import Model

LAYOUT = Layout("state maps", "interpretation.map_states", "state-maps")
BATCH = 8


@dataclass
class StateMaps:
    """Maps x -> x A + b from `resid_post` of a source layer to that of a target layer.

    - pairs: (source layer, target layer) of each map; matrix [pair, width, width of the target], bias [pair, width of
      the target]: float32.
    - source, target: facts about the two networks (`fitted.facts_of`). `finding`: how well the maps do."""

    pairs: list[tuple[int, int]]
    matrix: Tensor
    bias: Tensor
    source: dict[str, Any]
    target: dict[str, Any]
    finding: MapStates | None = None

    def __call__(self, states: Tensor, layer: int, target_layer: int) -> Tensor:
        """States [row, width] of `layer` as states of the target's `target_layer`, in their own dtype."""
        if (layer, target_layer) not in self.pairs:
            raise BadInput(
                f"the state maps have no map from layer {layer} to layer {target_layer}: they have "
                f"{', '.join(f'{a} to {b}' for a, b in self.pairs[:4])}, ...: fit it with interpretation.map_states"
            )
        number = self.pairs.index((layer, target_layer))
        matrix, bias = self.matrix[number].to(states.device), self.bias[number].to(states.device)
        return (states.float() @ matrix + bias).to(states.dtype)

    def check(self, source: Model, target: Model) -> StateMaps:
        """Itself, or `BadInput` when the maps were fitted on other networks."""
        LAYOUT.check(self.source, source, "the model")
        LAYOUT.check(self.target, target, "the explainer")
        return self

    def save(self, path: str | Path, force: bool = False) -> Path:
        """Write the folder `path`, whole or not at all; returns it. Raises `BadInput` when there is something already
        and not `force`."""
        note = {"pairs": self.pairs, "source": self.source, "target": self.target}
        return LAYOUT.save(path, {"matrix": self.matrix, "bias": self.bias}, note, self.finding, force)

    @classmethod
    def load(cls, path: str | Path) -> StateMaps:
        """Read a folder that `save` wrote. Raises `BadInput` for anything else."""
        return LAYOUT.load(path, cls._made, MapStates)

    @classmethod
    def _made(cls, tensors: dict[str, Tensor], note: dict[str, Any], finding: MapStates | None) -> StateMaps:
        pairs = [(int(a), int(b)) for a, b in note["pairs"]]
        matrix, bias = tensors["matrix"], tensors["bias"]
        if matrix.dim() != 3 or len(matrix) != len(pairs) or bias.shape != matrix.shape[::2]:
            raise ValueError(f"matrices {list(matrix.shape)} and biases {list(bias.shape)} do not go together")
        return cls(pairs, matrix, bias, note["source"], note["target"], finding)

    def __str__(self) -> str:
        return str(self.finding) if self.finding is not None else f"{len(self.pairs)} state maps"


def aligned(a: Encoded, b: Encoded) -> list[tuple[int, int]]:
    """Indices of two tokenisations of a text after which the same characters have been read; never the first token."""
    last_a, last_b = ({end: t for t, end in enumerate(e.ends) if end} for e in (a, b))
    return [(t, last_b[end]) for end, t in last_a.items() if end in last_b and t > 0 and last_b[end] > 0]


def paired_texts(source: Model, target: Model, texts: Sequence[str], max_tokens: int) -> list[tuple[Encoded, Encoded]]:
    """Each text in the tokens of both models, cut where one of them has `max_tokens`."""
    from intarsia.interpretation.patchscopes.prompts import Encoded, encode

    def short(model: Model, text: str) -> Encoded:
        whole = encode(model, text, "text", cut=True)
        return Encoded(whole.ids[: max_tokens + 1], whole.text, whole.own, whole.ends[: max_tokens + 1])

    return [(short(source, text), short(target, text)) for text in texts]


def paired_states(
    source: Model,
    target: Model,
    pairs: Sequence[tuple[Encoded, Encoded]],
    from_layers: Sequence[int],
    to_layers: Sequence[int],
    task: str,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batch by batch: states [position, source layer, width] and [position, target layer, width of the target] of all
    positions where both have read the same characters."""
    import torch

    from intarsia.interpretation.patchscopes.operator import read_states
    from intarsia.progress import listening, track

    for start in track(range(0, len(pairs), BATCH), task):
        part = pairs[start : start + BATCH]
        places = [(n, t, u) for n, (a, b) in enumerate(part) for t, u in aligned(a, b)]
        if not places:
            continue
        with torch.no_grad(), listening(None):
            yield (
                read_states(source, [part[n][0] for n, _, _ in places], [t for _, t, _ in places], from_layers),
                read_states(target, [part[n][1] for n, _, _ in places], [u for _, _, u in places], to_layers),
            )


def fit_maps(
    source: Model,
    target: Model,
    pairs: Sequence[tuple[Encoded, Encoded]],
    layers: Sequence[tuple[int, int]],
    penalty: float,
) -> tuple[StateMaps, int]:
    """Maps for pairs of layers, by ridge on all positions where both models have read the same characters, and how many
    these were. One Gram matrix a source layer serves all its target layers."""
    import torch

    from intarsia.interpretation.ridge import Ridge

    from_layers, to_layers = sorted({a for a, _ in layers}), sorted({b for _, b in layers})
    goals = {a: [b for c, b in layers if c == a] for a in from_layers}
    sums = {a: Ridge() for a in from_layers}
    for x, y in paired_states(source, target, pairs, from_layers, to_layers, "fitting maps"):
        for n, a in enumerate(from_layers):
            wanted = y[:, [to_layers.index(b) for b in goals[a]]]
            sums[a].add(x[:, n], wanted.reshape(len(y), -1).to(x.device))
    rows = sums[from_layers[0]].rows
    width = target.sites.main.width
    maps: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}
    for a in from_layers:
        matrix, bias = sums[a].solve(penalty)
        for n, b in enumerate(goals[a]):
            part = slice(n * width, (n + 1) * width)
            maps[a, b] = matrix[:, part].float().cpu(), bias[part].float().cpu()
    order = list(maps)
    return StateMaps(
        order, torch.stack([maps[p][0] for p in order]), torch.stack([maps[p][1] for p in order]), facts_of(source),
        facts_of(target),
    ), rows  # fmt: skip
