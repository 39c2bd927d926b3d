"""Block after block: each is read and changed on what the blocks below it, changed already, give.

Only one block runs at a time, so a walk costs as much as a few forwards, however deep the network is.

Source: Frantar et al. 2023, GPTQ, arXiv 2210.17323, §3.3 (blocks one after the other)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from intarsia.compression.linears import Linear
from intarsia.compression.statistics import Collector, LayerStats, batches, real_rows
from intarsia.progress import track
from intarsia.sites import Batch, read, resume, watching

if TYPE_CHECKING:
    from intarsia.models import Model


class Walk:
    """A walk up the main tower of `model` with windows of token ids; whoever walks changes the network in place.

        walk = Walk(model, windows)
        for index in walk.blocks("pruning"):
            stats = walk.look(layers_of_the_block)      # of the block as it is now; any number of times
            ...                                         # change it

    - still: nobody changes this network, so that what a block gave while it was looked at needs no second run.
    - seen: statistics of all layers that were looked at, by name, as they were when last looked at."""

    def __init__(self, model: Model, windows: Sequence[Sequence[int]], *, still: bool = False):
        self.model, self.still = model, still
        self.batches: list[Batch] = batches(model, windows)
        self.states: list[Tensor | None] = [None] * len(self.batches)
        self._above: dict[int, Tensor] = {}
        self.index = 0
        self.seen: dict[str, LayerStats] = {}

    def blocks(self, task: str | None) -> Iterator[int]:
        """The numbers of the blocks, from the lowest; after each the states above it are made.

        - task: what the progress is called; None for a walk beside another, which shows it."""
        count = len(self.model.sites.blocks)
        for index in range(count) if task is None else track(range(count), task):
            self.index = index
            yield index
            if index + 1 < count:
                have, self._above = self._above, {}
                self.states = [have[n] if n in have else self._state(n) for n in range(len(self.batches))]

    def look(self, layers: Sequence[Linear]) -> dict[str, LayerStats]:
        """Statistics of the inputs of layers of this block, by name."""
        collector = Collector()
        with watching(self.model, {layer.name: layer.module for layer in layers}, collector.seen):
            for n, batch in enumerate(self.batches):
                collector.next(batch.mask)
                self._run(n)
        found = collector.stats()
        self.seen |= found
        return found

    def given(self, layers: Sequence[Linear]) -> Iterator[dict[str, Tensor]]:
        """What layers of this block are given, batch after batch: by name the rows of real tokens [tokens, in]; layers
        that read one tensor have the same rows object. Layers that did not run are missing."""
        modules = {layer.name: layer.module for layer in layers}
        for n, batch in enumerate(self.batches):
            found: dict[str, Tensor] = {}
            with watching(self.model, modules, lambda name, given, gave, found=found: found.update({name: given})):
                self._run(n)
            rows = {id(tensor): real_rows(tensor, batch.mask) for tensor in found.values()}
            yield {name: rows[id(tensor)] for name, tensor in found.items()}

    def _run(self, n: int) -> Tensor:
        """The state above this block, of one batch."""
        state = self._state(n)
        if self.still:
            self._above[n] = state
        return state

    def _state(self, n: int) -> Tensor:
        prefix = self.model.sites.main.prefix
        at = f"{prefix}layers.{self.index}.resid_post"
        state = self.states[n]
        with torch.no_grad():
            if state is None:
                return read(self.model, self.batches[n], at)[at]
            below = f"{prefix}layers.{self.index - 1}"
            return resume(self.model, self.batches[n], below, state=state, at=at)[at]
