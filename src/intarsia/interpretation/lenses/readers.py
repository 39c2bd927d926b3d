"""Readers: one protocol for all lenses, states [n, width] of layer l -> log-probabilities [n, vocabulary]."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from intarsia.errors import BadInput
from intarsia.interpretation import divergence, states
from intarsia.interpretation.lenses import presets
from intarsia.interpretation.lenses.maps import LensMaps

if TYPE_CHECKING:
    from intarsia.models import Model

BUDGET = 200_000_000  # bytes of logits that a reader may hold at a time


class Reader(Protocol):
    """A lens.

    - name: its method. ahead: how many positions later the prediction is that it reads; 0 is the next token."""

    name: str
    ahead: int

    def over(self, stream: Sequence[Tensor], layers: Sequence[int]) -> Iterator[Tensor]:
        """For each of `layers` in turn, log-probabilities [n, vocabulary] (float32) of its states [n, width]."""
        ...

    def __call__(self, hidden: Tensor, layer: int) -> Tensor:
        """The same for one layer."""
        ...


class LogitLens:
    """Final norm and head on the state as it is (nostalgebraist 2020), after fitted maps when there are any.

    With maps: log softmax(head(norm(h A + b))), the affine (Din et al. 2023), tuned (Belrose et al. 2023) or linear
    future lens (Pal et al. 2023)."""

    def __init__(self, model: Model, maps: LensMaps | None = None):
        self.model, self.maps = model, maps.check(model) if maps is not None else None
        self.name = maps.method if maps is not None else "logit"
        self.ahead = maps.ahead if maps is not None else 0

    def __call__(self, hidden: Tensor, layer: int) -> Tensor:
        hidden = hidden if self.maps is None else self.maps(hidden, layer)
        return divergence.log_probabilities(states.logits(self.model, hidden))

    def over(self, stream: Sequence[Tensor], layers: Sequence[int]) -> Iterator[Tensor]:
        return (self(hidden, layer) for hidden, layer in zip(stream, layers, strict=True))


class PromptLens:
    """The blocks above the layer read the state at one position of a fixed prompt: token identity, or the sink lens.

    All layers run together, each row through just the blocks above its own. Source: Ghandeharioun et al. 2024."""

    ahead = 0

    def __init__(self, model: Model, name: str):
        if not presets.can_operate(model):
            raise BadInput(
                f"the {name} lens patches states into a prompt and reads the next token, and "
                f"{type(model.network).__name__} is no causal language model: use method logit, or fitted maps"
            )
        self.model, self.name, self.preset = model, name, presets.PRESETS[name]

    def __call__(self, hidden: Tensor, layer: int) -> Tensor:
        return next(self.over([hidden], [layer]))

    def over(self, stream: Sequence[Tensor], layers: Sequence[int]) -> Iterator[Tensor]:
        read = presets.operate(self.model, self.preset, stream, layers)
        return (divergence.log_probabilities(read[:, i]) for i in range(len(layers)))


class Ensemble:
    """The mean of several lenses' log-probabilities, renormalised; its ranking is that of their sum.

    Lenses that were trained and lenses that were not make different mistakes, and the mean makes fewer."""

    def __init__(self, readers: Sequence[Reader]):
        if len({reader.ahead for reader in readers}) != 1:
            raise BadInput("an ensemble wants lenses that read the same position")
        self.readers, self.name, self.ahead = list(readers), "ensemble", readers[0].ahead

    def __call__(self, hidden: Tensor, layer: int) -> Tensor:
        return combine([reader(hidden, layer) for reader in self.readers])

    def over(self, stream: Sequence[Tensor], layers: Sequence[int]) -> Iterator[Tensor]:
        parts = [reader.over(stream, layers) for reader in self.readers]
        return (combine(list(row)) for row in zip(*parts, strict=True))


def combine(parts: Sequence[Tensor]) -> Tensor:
    """Renormalised mean of log-probabilities [n, vocabulary]."""
    return torch.log_softmax(torch.stack(list(parts)).mean(0), dim=-1)


def reader(model: Model, method: str, maps: LensMaps | None = None) -> Reader:
    """The lens called `method`.

    - maps: fitted maps, for `affine`, `tuned`, `future` and the trained half of `ensemble`.

    Raises `BadInput` when maps are missing, of another kind or of another model."""
    wanted = {"affine": ("affine",), "tuned": ("tuned",), "future": ("future",), "ensemble": ("affine", "tuned")}
    if method in wanted:
        kinds = wanted[method]
        if maps is None:
            raise BadInput(
                f"the {method} lens needs fitted maps: make them with interpretation.fit_lens (--method {kinds[0]}), "
                "and give their folder as lens (--lens)"
            )
        if maps.method not in kinds:
            raise BadInput(f"the {method} lens wants maps fitted as {' or '.join(kinds)}, was given {maps.method}")
        mapped = LogitLens(model, maps)
        return Ensemble([mapped, PromptLens(model, "sink")]) if method == "ensemble" else mapped
    if maps is not None:
        raise BadInput(f"the {method} lens uses no fitted maps: leave lens out, or give method {maps.method}")
    return LogitLens(model) if method == "logit" else PromptLens(model, method)


def chunk_size(model: Model, layers: int, method: str) -> int:
    """Positions to read at a time: lenses that read all layers together hold the logits of all of them."""
    vocabulary = model.network.get_output_embeddings().weight.shape[0]
    together = layers if method in ("identity", "sink", "ensemble") else 1
    return max(1, min(128, BUDGET // (4 * vocabulary * together)))
