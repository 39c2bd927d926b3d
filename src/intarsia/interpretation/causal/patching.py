"""The computation behind `interpretation.activation_patching`, and the cell maps that causal tracing shares."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from intarsia.errors import BadInput
from intarsia.interpretation import states
from intarsia.interpretation.causal.activation_patching import ActivationPatching, ActivationPatchingConfig
from intarsia.interpretation.causal.cells import Write, base_run, run_cells, site
from intarsia.interpretation.causal.contrast import Contrast, contrast
from intarsia.interpretation.causal.controls import Controls
from intarsia.interpretation.causal.findings import MEANING, EffectMap
from intarsia.interpretation.wording import percent, visible
from intarsia.measure import provenance
from intarsia.sites import Activations

if TYPE_CHECKING:
    from intarsia.models import Model

WHO = "interpretation.activation_patching"


def patch(model: Model, config: ActivationPatchingConfig, seed: int) -> ActivationPatching:
    """Patch every cell; see `interpretation.activation_patching`."""
    check_kinds(model, config.kinds, WHO)
    made = contrast(
        model, WHO, config.prompt, config.corrupt, answer=config.answer, foil=config.foil, metric=config.metric
    )
    positions = checked_positions(config.positions, made.length, WHO)
    layers = states.spaced(states.layer_count(model), config.stride)
    clean, corrupt = (base_run(model, ids, config.kinds) for ids in (made.clean, made.corrupt))
    restoring = config.direction == "restore"
    source, base = (clean, corrupt) if restoring else (corrupt, clean)
    ends = (made.corrupt_value, made.clean_value) if restoring else (made.clean_value, made.corrupt_value)
    controls = Controls(model, source, config.kinds, config.control_prompt, seed) if config.controls else None
    maps, identical = [], 0
    for kind in config.kinds:
        cells = Cells(model, source, base, kind, layers, positions)
        identical += cells.identical
        task = f"patching {MEANING[kind]}"
        shares = cells.effects(lambda values: made.effect(values, *ends), made, config.batch_size, task)
        found = EffectMap(
            site=kind,
            row_names=[f"layer {i}" for i in layers],
            column_names=cells.names(made),
            columns_are="head" if kind == "z" else "token",
            effect=shares.mean(-1).tolist(),
        )
        for which in config.controls:
            other = cells.control(controls, which)  # type: ignore[arg-type]
            task = f"patching {MEANING[kind]}, control"
            shares = other.effects(lambda values: made.effect(values, *ends), made, config.batch_size, task)
            found.controls[which] = shares.mean(-1).tolist()
        maps.append(with_control(found))
    finding = ActivationPatching(
        title=f"Which states of {model.identity.source} carry the answer",
        technique=WHO,
        contrast=made.told(),
        maps=maps,
        direction=config.direction,
        identical=identical,
        provenance=provenance(seed=seed, settings=config.model_dump()),
    )
    return finding.model_copy(update={"summary": summarise(finding)})


class Cells:
    """One write a cell, for every layer and position of one kind of site (for heads: layer and head, all positions)."""

    def __init__(
        self,
        model: Model,
        source: Activations,
        base: Activations,
        kind: str,
        layers: Sequence[int],
        positions: Sequence[int],
        writes: Callable[[int, int], list[Write]] | None = None,
    ):
        self.model, self.source, self.base, self.kind = model, source, base, kind
        self.layers, self.positions = list(layers), list(positions)
        self.columns = list(range(source[site(model, layers[0], "z")].shape[2])) if kind == "z" else self.positions
        self.writes = writes or self.write
        self.cells = [(layer, column) for layer in self.layers for column in self.columns]
        # Before the first token that differs both runs have the same state: writing it changes nothing.
        self.moved = [i for i, (layer, column) in enumerate(self.cells) if self._differs(self.writes(layer, column))]
        self.identical = len(self.cells) - len(self.moved)

    def write(self, layer: int, column: int) -> list[Write]:
        """The right state of one cell."""
        state = self.source[site(self.model, layer, self.kind)][0]
        if self.kind == "z":
            return [Write("z", layer, tuple(self.positions), state[self.positions, column], column)]
        return [Write(self.kind, layer, (column,), state[[column]])]

    def _differs(self, writes: list[Write]) -> bool:
        for w in writes:
            there = self.base[site(self.model, w.layer, w.kind)][:, list(w.positions)]
            there = there if w.head is None else there[:, :, w.head]
            if not bool((there == w.value).all()):
                return True
        return False

    def control(self, controls: Controls, which: str) -> Cells:
        """The same cells with control states."""

        def writes(layer: int, column: int) -> list[Write]:
            right = self.writes(layer, column)
            return [
                Write(w.kind, w.layer, w.positions, controls.state(which, w.layer, w.kind, w.positions, w.head), w.head)
                for w in right
            ]

        other = Cells(self.model, self.source, self.base, self.kind, self.layers, self.positions, writes)
        # A control counts at the same cells as the state it stands for.
        other.moved, other.identical = self.moved, self.identical
        return other

    def effects(self, effect: Callable[[Tensor], Tensor], made: Contrast, batch_size: int, task: str) -> Tensor:
        """[layer, column, base row]: the effect of every cell; exactly 0 where nothing is written."""
        seeds = self.base.batch.size
        out = torch.zeros(len(self.cells), seeds, dtype=torch.float64)
        if self.moved:
            chosen = [self.writes(*self.cells[i]) for i in self.moved]
            values = run_cells(
                self.model, self.base, chosen, made.scored, batch_size=batch_size, keep=made.keep, task=task
            )
            out[self.moved] = effect(values)
        return out.reshape(len(self.layers), len(self.columns), seeds)

    def names(self, made: Contrast) -> list[str]:
        """What the columns are called."""
        if self.kind == "z":
            return [str(head) for head in self.columns]
        tokens = made.tokens()
        return [tokens[p] for p in self.positions]


def with_control(found: EffectMap) -> EffectMap:
    """The map with the mean of its controls."""
    if not found.controls:
        return found
    mean = torch.tensor(list(found.controls.values()), dtype=torch.float64).mean(0).tolist()
    return found.model_copy(update={"control": mean})


def check_kinds(model: Model, kinds: Sequence[str], who: str) -> None:
    """Raise `BadInput` where a kind of site is not there in every block, with the network's own reason."""
    for kind in kinds:
        for layer in range(len(model.sites.blocks)):
            model.sites.expand(site(model, layer, kind))
    if len(set(kinds)) < len(kinds):
        raise BadInput(f"{who}: kinds names a site twice: {', '.join(kinds)}")


def checked_positions(positions: Sequence[int], length: int, who: str) -> list[int]:
    """Positions counted from 0, in order; all where none is given. Raises `BadInput` outside the prompt."""
    for p in positions:
        if not -length <= p < length:
            raise BadInput(f"{who}: position {p} is outside the prompt, which has {length} tokens")
    return sorted({p % length for p in positions}) if positions else list(range(length))


def strongest_sentence(found: EffectMap) -> str:
    """The strongest cell of a map, and what a control does there."""
    row, column = found.ranked()[0]
    where = f"{found.row_names[row]}, {found.columns_are} '{visible(found.column_names[column])}'"
    text = f"{where}: {found.effect[row][column]:.0%} of the difference"
    if found.control is not None:
        text += f" ({found.control[row][column]:.0%} with control states)"
    return text


def summarise(finding: ActivationPatching) -> str:
    """The strongest cells, and how much any state does."""
    verb = "brings back" if finding.direction == "restore" else "takes away"
    parts = [f"{MEANING[m.site]} at {strongest_sentence(m)}" for m in finding.maps]
    text = f"What {verb} most: {'; '.join(parts)}."
    controlled = [m for m in finding.maps if m.control is not None]
    if controlled:
        pairs = [
            (abs(e), abs(c))
            for m in controlled
            for a, b in zip(m.effect, m.control or [], strict=True)
            for e, c in zip(a, b, strict=True)
            if e or c
        ]
        hollow = sum(c >= e for e, c in pairs) / len(pairs) if pairs else 0.0
        text += f" In {percent(hollow)} of the cells that differ a control does as much: trust those least."
    return text + f" The metric is {finding.contrast.clean:.2f} clean and {finding.contrast.corrupted:.2f} corrupt."
