"""What one pass over the calibration text tells, for all that a search may try.

One forward and backward pass gives each layer's inputs and what the predictions hear of its outputs. From them come the
scales that are folded into the network (AWQ), each layer's harm on each grid, its codes (GPTQ), and nothing of it is
computed before it is asked for, or again when a search goes on. The order of blocks is a pass of its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from intarsia.compression.linears import Linear, heads, linears
from intarsia.compression.pruning.ranking import worth
from intarsia.compression.quantization.folding import Fold, folds
from intarsia.compression.quantization.gptq import gptq
from intarsia.compression.quantization.grids import ROW, Grid, from_grid, round_to, rounded
from intarsia.compression.quantization.scaling import awq
from intarsia.compression.searching.keeping import Kept
from intarsia.compression.searching.sensitivity import Sensitivity, sensitivity
from intarsia.compression.statistics import WINDOW, LayerStats, batches, collect, some_windows
from intarsia.progress import track

if TYPE_CHECKING:
    from intarsia.data import Text
    from intarsia.models import Model

ALPHAS = tuple(i / 5 for i in range(6))  # exponents that are tried: half as many as where nothing else is searched
SCALED = Grid(4, 32, True)  # the grid that scales are chosen for
EXACT = 4  # bits: finer grids have the harm of this one times the square of their step
RANKED = 256  # tokens that blocks are ranked on


class Evidence:
    """Of a model and a text.

    - model: as it was given. texts, windows: of calibration; windows of token ids."""

    def __init__(self, model: Model, texts: Sequence[Text], windows: Sequence[Sequence[int]], kept: Kept, seed: int):
        self.model, self.texts, self.windows, self.kept, self.seed = model, list(texts), windows, kept, seed
        self._codes: dict[tuple[str, Grid], tuple[Tensor, Tensor, Tensor | None]] = {}

    @cached_property
    def folded(self) -> Model:
        """The network with AWQ's scales folded into it: the same function, easier to round."""
        model = self.model.copy()
        layers = linears(model)
        found = folds(model, layers)
        facts = self.kept.once("scales", len(found), lambda: {"scales": self._choose(found)})
        if facts["scales"] is None or len(facts["scales"]) != len(found):  # pragma: no cover - a damaged file
            facts = {"scales": self._choose(found)}
        for fold, scale in zip(found, facts["scales"], strict=True):
            if scale is not None:
                fold.apply(torch.tensor(scale))
        self._folds = list(zip(found, facts["scales"], strict=True))
        return model

    @cached_property
    def layers(self) -> dict[str, Linear]:
        """The linear layers of the folded network, by name."""
        return {layer.name: layer for layer in linears(self.folded)}

    @cached_property
    def _heard(self) -> Sensitivity:
        """Of the network as it was given."""
        return sensitivity(self.model, linears(self.model), some_windows(self.windows), self.seed)

    def _choose(self, found: Sequence[Fold]) -> list[list[float] | None]:
        """The scale of each fold; None where no text reached its layers."""
        out: list[list[float] | None] = []
        stats = self._heard.stats
        for fold in track(list(found), "scaling inputs"):
            first = fold.consumers[0].name
            if first not in stats or not stats[first].count:
                out.append(None)
                continue
            scale, _ = awq(fold, stats[first], [_legal(layer) for layer in fold.consumers], ALPHAS)
            out.append([float(f"{v:.6g}") for v in scale.tolist()])
        return out

    @cached_property
    def heard(self) -> Sensitivity:
        """Of the folded network. No second pass: inputs that a scale divided have a moment divided by its squares, and
        outputs that it divided are heard as much louder."""
        _ = self.folded
        before = self._heard
        stats, gradient = dict(before.stats), dict(before.gradient)
        for fold, scale in self._folds:
            if scale is None:
                continue
            by = torch.tensor(scale)
            columns = by[fold.index]
            old = stats[fold.consumers[0].name]
            new = LayerStats(
                old.moment / columns[:, None] / columns, old.mean / columns, old.largest / columns, old.count,
                old.dropped,
            )  # fmt: skip
            stats |= {layer.name: new for layer in fold.consumers if layer.name in stats}
            if fold.rows is not None and fold.rows.name in gradient:
                gradient[fold.rows.name] = gradient[fold.rows.name] * by[:, None] * by
        return Sensitivity(gradient, stats, before.tokens)

    def harms(self, wanted: Mapping[str, Sequence[Grid]]) -> dict[str, list[float]]:
        """By layer, for each of its grids: KL in nats a token that the predictions are expected to move by."""
        key = {name: [str(grid) for grid in grids] for name, grids in wanted.items()}
        facts = self.kept.once("harms", key, lambda: {"harms": self._weigh(wanted)})
        return facts["harms"]

    def _weigh(self, wanted: Mapping[str, Sequence[Grid]]) -> dict[str, list[float]]:
        out = {}
        for name in track(list(wanted), "weighing bits"):
            out[name] = [self._harm(name, grid) for grid in wanted[name]]
        return out

    def _harm(self, name: str, grid: Grid) -> float:
        weight = self.layers[name].weight.float()
        if grid.bits <= EXACT or grid.group is None:
            return self.heard.of(name, self.rounded(name, grid) - weight)
        coarse = Grid(EXACT, grid.group, grid.symmetric)
        steps = [(g.middle - 1 if g.symmetric else 2**g.bits - 1) for g in (coarse, grid)]
        return self._harm(name, coarse) * (steps[0] / steps[1]) ** 2

    def rounded(self, name: str, grid: Grid) -> Tensor:
        """A layer's weight [out, in] on a grid, float32: by GPTQ, or the nearest points where 8 bits are as good."""
        if (name, grid) not in self._codes:
            weight = self.layers[name].weight.float()
            stats = self.heard.stats.get(name) if grid.bits < ROW.bits else None
            if stats is not None and stats.count:
                self._codes[name, grid] = gptq(weight, stats.moment, grid)
            else:
                self._codes[name, grid] = round_to(weight, grid)
        return from_grid(*self._codes[name, grid], grid, torch.float32)

    def table_harm(self, grid: Grid) -> float:
        """KL in nats a token that embedding and head on a grid cost, all else as it is."""

        @torch.inference_mode()
        def measure() -> dict[str, Any]:
            ids = torch.tensor([list(self.windows[0])[:RANKED]], device=self.model.device)
            small = self.folded.copy()
            round_table(small, grid, self.head_moment)
            before, after = (m.network(ids).logits[0].float().log_softmax(-1) for m in (self.folded, small))
            return {"kl": float((before.exp() * (before - after)).sum(-1).mean())}

        return self.kept.once("table", [str(grid), RANKED], measure)["kl"]

    @cached_property
    def head_moment(self) -> Tensor:
        """Second moment of what the output head reads, [width, width]."""
        head = head_of(self.folded)
        return collect(self.folded, [head], self.windows)[head.name].moment

    @cached_property
    def uses(self) -> tuple[Counter[int], Counter[int]]:
        """By token: how often the texts have it, and how many stretches do (of a text, `WINDOW` tokens at most)."""
        tokenizer: Any = self.model.tokenizer
        counts, stretches = Counter[int](), Counter[int]()
        for record in self.texts:
            ids = tokenizer(record.text, verbose=False)["input_ids"]
            counts.update(ids)
            for start in range(0, len(ids), WINDOW):
                stretches.update(set(ids[start : start + WINDOW]))
        return counts, stretches

    def missed(self, rows: int) -> float:
        """Share of a text's tokens that a vocabulary of `rows` tokens will lack: of each stretch, those that no other
        stretch has. Places that the used tokens leave go to the earliest others (`vocabulary.choosing`), which are
        there then."""
        counts, stretches = self.uses
        free = rows - len(counts)
        filled = -1
        while free > 0:
            filled += 1
            free -= filled not in counts
        return sum(n for i, n in counts.items() if stretches[i] == 1 and i > filled) / max(counts.total(), 1)

    @cached_property
    def order(self) -> list[dict[str, Any]]:
        """The blocks, the least needed first: `block`, and `divergence` of the predictions without it, in nats."""

        def rank() -> dict[str, Any]:
            text = batches(self.model, [list(self.windows[0])[:RANKED]])
            found = worth(self.model, self.model, text, divergence=True).divergence or []
            ranked = sorted(range(len(found)), key=found.__getitem__)
            return {"order": [{"block": b, "divergence": found[b]} for b in ranked]}

        return self.kept.once("blocks", RANKED, rank)["order"]


def head_of(model: Model) -> Linear:
    """The output head of a language model."""
    return heads(model)[0]


def round_table(model: Model, grid: Grid, moment: Tensor) -> None:
    """Put embedding and head on a grid, in place: the head by what it reads (GPTQ), an embedding that has a table of
    its own by the nearest points."""
    head, table = head_of(model), model.network.get_input_embeddings()
    if table.weight is not head.module.weight:
        weight = table.weight.detach()
        weight.copy_(rounded(weight.float(), grid).to(weight))
    head.set(from_grid(*gptq(head.weight.float(), moment, grid), grid, torch.float32))


def _legal(layer: Linear) -> Grid:
    """The grid that scales are chosen for, where its groups divide the rows; else one scale a row."""
    assert SCALED.group is not None
    return SCALED if layer.shape[1] % SCALED.group == 0 else Grid(SCALED.bits, None, True)
