"""Compositions as models: a draft for a first look, whose codes come from the bank; and the model itself, rounded block
after block."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from intarsia.compression import QuantizeConfig
from intarsia.compression.linears import Linear, linears, tables_and_heads
from intarsia.compression.quantization.calibrated import calibrated
from intarsia.compression.quantization.grids import ROW, Grid, from_grid, legal_group, round_to, rounded
from intarsia.compression.quantization.rounding import heads_of, plan_for, put_codes
from intarsia.compression.searching.families import FAMILIES, Cut
from intarsia.compression.searching.knowing import Evidence, head_of, round_table
from intarsia.compression.searching.stores import GROUP, SMALLEST, STORES
from intarsia.compression.statistics import windows_of

if TYPE_CHECKING:
    from intarsia.compression.searching.composing import Composition
    from intarsia.models import Model

NAME = "compression.fit"
WINDOW = 256  # tokens of a row that a cut network learns from


class Workshop:
    """Builds what is asked for. learned: tokens that a cut network learns from."""

    def __init__(self, evidence: Evidence, learned: int):
        self.evidence, self.learned = evidence, learned
        self._last: dict[tuple[tuple[Cut, ...], bool], Model] = {}
        self._table: tuple[Any, Tensor] | None = None

    def network(self, cuts: tuple[Cut, ...], recovered: bool = False) -> Model:
        """The folded network with cuts done to it, its weights not rounded. The last two are kept at hand."""
        key = cuts, recovered
        if not cuts:
            return self.evidence.folded
        if key not in self._last:
            if recovered:
                made = self._recovered(cuts)
            else:
                (name, value), before = cuts[-1], cuts[:-1]
                made = FAMILIES[name].apply(self.network(before), value, self.evidence)
            while len(self._last) > 1:
                self._last.pop(next(iter(self._last)))
            self._last[key] = made
        return self._last[key]

    def _recovered(self, cuts: tuple[Cut, ...]) -> Model:
        """What is left has learned from the whole network (of the same vocabulary)."""
        from intarsia.compression.distillation.technique import distil

        same = tuple(cut for cut in cuts if not FAMILIES[cut[0]].hurts)
        student = self.network(cuts)
        return distil(
            student, teacher=self.network(same), train=self.evidence.texts, tokens=self.learned, batch_size=2,
            window=min(WINDOW, student.context_length or WINDOW), seed=self.evidence.seed,
        )  # fmt: skip

    def origin(self, cuts: Sequence[Cut], layer: Linear) -> tuple[str, bool]:
        """What a layer of the cut network was called in the whole one, and whether it has the weights it had."""
        name, kept = layer.name, True
        for family, value in reversed(cuts):
            name = FAMILIES[family].origin(value, self.evidence, name)
            kept = kept and FAMILIES[family].keeps(layer.role)
        return name, kept

    def grids(self, one: Composition, model: Model) -> dict[str, Grid]:
        """Of the layers of the cut network, by their names there."""
        out = {}
        for layer in linears(model):
            name, _ = self.origin(one.cuts, layer)
            if name in one.grids:
                out[layer.name] = _fitting(one.grids[name], layer.shape[1])
        return out

    def draft(self, one: Composition) -> Model:
        """The composition as it is judged at first: each layer that has its own weights still gets the codes that the
        whole network's would have, others the nearest points; embedding and head 8 bits."""
        whole = self.network(one.cuts, one.recovered)
        model = whole.copy()
        grids = self.grids(one, model)
        for layer in linears(model):
            if (grid := grids.get(layer.name)) is None:
                continue
            name, kept = self.origin(one.cuts, layer)
            if kept and not one.recovered:
                layer.set(self.evidence.rounded(name, grid).to(layer.weight))
            else:
                layer.set(rounded(layer.weight, grid).to(layer.weight))
        network = model.network
        if (grid := _table_grid(one)) is not None:
            self._draft_table(one, grid, model)
            return model
        done: set[int] = set()
        for module in (network.get_input_embeddings(), network.get_output_embeddings()):
            if module is not None and id(module.weight) not in done:
                done.add(id(module.weight))
                weight = module.weight.detach()
                weight.copy_(from_grid(*round_to(weight.float(), ROW), ROW, weight.dtype))  # type: ignore[operator]
        return model

    def _draft_table(self, one: Composition, grid: Grid, model: Model) -> None:
        """The vocabulary on its grid. What the head reads is what it read in the whole network, and only a smaller
        vocabulary (or a network that learned) has another table: the last one is kept at hand."""
        head, table = head_of(model), model.network.get_input_embeddings()
        key = grid, tuple(cut for cut in one.cuts if cut[0] == "vocabulary"), one.cuts if one.recovered else ()
        if self._table is not None and self._table[0] == key and table.weight is head.module.weight:
            head.set(self._table[1])
            return
        round_table(model, grid, self.evidence.head_moment)
        self._table = key, head.weight.clone()

    def build(self, one: Composition) -> Model:
        """The composition itself: each block is rounded on what the rounded ones below it give, and the vocabulary, if
        it has a grid of its own, at last (GPTQ)."""
        whole = self.network(one.cuts, one.recovered)
        model = whole.copy()
        plan, _ = plan_for(model.network, QuantizeConfig(bits=8, kernel="reference"))
        grids = self.grids(one, model)
        layers = [layer for layer in linears(model) if layer.name in grids]
        count = sum(map(len, self.evidence.windows))
        windows = windows_of(model, [record.text for record in self.evidence.texts], count)
        heads = {}
        if (table := _table_grid(one)) is not None:
            heads = heads_of(model, plan)
            edges = set.union(*tables_and_heads(model.network))
            named = [n for names in plan.modules.values() for n in names if model.network.get_submodule(n) in edges]
            grids |= dict.fromkeys([*named, *(head.name for head in heads.values())], table)
        codes = calibrated(model, layers, grids, windows, scale=False, heads=list(heads.values())).codes
        for owner, head in heads.items():
            codes[owner] = codes.pop(head.name)
        by_grid: dict[str, list[str]] = {}
        for grid, names in plan.modules.items():
            for name in names:
                by_grid.setdefault(str(grids[name]) if name in grids else grid, []).append(name)
        plan.modules = by_grid
        put_codes(model.network, plan, codes)
        return model.with_network(model.network, technique=NAME, config={"composition": one.name, **one.facts})


def _table_grid(one: Composition) -> Grid | None:
    """The vocabulary's own grid; None where it has 8 bits."""
    if not any(name == "table_bits" for name, _ in one.cuts):
        return None
    return Grid(4, GROUP, STORES[one.store].table_symmetric)


def can_learn() -> bool:
    """Whether what distillation needs is installed."""
    return importlib.util.find_spec("peft") is not None


def _fitting(grid: Grid, width: int) -> Grid:
    """The grid, with a group that divides rows of `width`."""
    if grid.group is None or width % grid.group == 0:
        return grid
    group = legal_group(width, grid.group)
    return ROW if group < SMALLEST else Grid(grid.bits, group, grid.symmetric)
