"""What a choice is expected to cost, in nats of the next token's divergence, without trying it.

    harm = s_1 depth(blocks that went) + sum over blocks [s_2 neurons_b(n) + s_3 heads_b(h)] + s_4 width(w)

Neurons and heads: the change of `down` or `o` that a cut and its refit make, in the Fisher metric
(`searching.sensitivity`). Blocks: measured, one left out after the other, the least needed first, each ranking made
anew; of other sets of blocks the sum of what each costs alone, and no less than the best known set of that size.
Widths: each measured on the text. The scales s are 1 until a network in which one part alone is cut was made and
measured (`learn`): what a refit makes good on the text it was fitted to it does not on another, so predictions for
neurons and heads are too low, on little text by far more than a factor of ten, and those for blocks are not. Sums tell
choices apart; they are too low where much goes at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from intarsia.compression.elastic.choices import Choice, Space
from intarsia.compression.elastic.refitting import refit_readers
from intarsia.compression.elastic.supernet import Supernet
from intarsia.compression.pruning.dropping import shorter
from intarsia.compression.pruning.ranking import divergence, worth
from intarsia.compression.refitting import refit
from intarsia.compression.searching.sensitivity import sensitivity
from intarsia.compression.statistics import batches, some_windows
from intarsia.progress import track
from intarsia.sites import Batch

if TYPE_CHECKING:
    from intarsia.models import Model


PARTS = ("blocks", "neurons", "heads", "width")
MOST = 100.0  # a scale is no larger, and no smaller than its inverse


class Harms:
    """- order: blocks, the first to go first; depth: after none, one, ... of them went. single: of each block alone.
    - neurons, heads: of each block, by the number that is left. widths: by the width. scales: by part."""

    def __init__(
        self, supernet: Supernet, space: Space, windows: Sequence[Sequence[int]], *, rank_tokens: int, ridge: float,
        refits: bool = True, seed: int = 0,
    ):  # fmt: skip
        self.supernet, self.space = supernet, space
        text = batches(supernet.base, _first(windows, rank_tokens))
        self.single, self.order, self.depth = _depths(supernet, space, text)
        self.neurons, self.heads = _parts(supernet, space, windows, ridge, refits, seed)
        self.widths = _widths(supernet, space, text, ridge, refits)
        self.scales = dict.fromkeys(PARTS, 1.0)

    def __call__(self, choice: Choice) -> float:
        """Nats a token."""
        gone = set(range(self.supernet.full[0])) - set(choice.blocks)
        depth = self.depth[len(gone)]
        if gone != set(self.order[: len(gone)]):
            depth = max(depth, sum(self.single[b] for b in gone))
        neurons = sum(self.neurons[b][count] for b, count in zip(choice.blocks, choice.neurons, strict=True))
        heads = sum(self.heads[b][choice.heads] for b in choice.blocks)
        parts = (depth, neurons, heads, self.widths[choice.width])
        return sum(self.scales[name] * value for name, value in zip(PARTS, parts, strict=True))

    def learn(self, part: str, choice: Choice, measured: float) -> None:
        """From a choice in which this part alone is cut."""
        predicted = self(choice) / self.scales[part]
        if predicted > 0:
            self.scales[part] = min(max(measured / predicted, 1 / MOST), MOST)


def _first(windows: Sequence[Sequence[int]], tokens: int) -> list[list[int]]:
    """The first tokens of windows."""
    out: list[list[int]] = []
    for window in windows:
        if tokens < 2:
            break
        out.append(list(window[:tokens]))
        tokens -= len(out[-1])
    return out


def _depths(supernet: Supernet, space: Space, text: Sequence[Batch]) -> tuple[list[float], list[int], list[float]]:
    count = supernet.full[0]
    if space.fewest == count:
        return [0.0] * count, [], [0.0]
    model = supernet.form(supernet.largest).model
    left, order, steps = list(range(count)), list[int](), [0.0]
    found = worth(model, supernet.base, text, divergence=True).divergence
    assert found is not None
    single = [max(v, 0.0) for v in found]
    while len(left) > space.fewest:
        lowest = min(range(len(left)), key=found.__getitem__)
        steps.append(max(found[lowest], steps[-1]))
        order.append(left.pop(lowest))
        if len(left) > space.fewest:
            found = worth(shorter(model, left), supernet.base, text, divergence=True).divergence
            assert found is not None
    return single, order, steps


def _parts(
    supernet: Supernet, space: Space, windows: Sequence[Sequence[int]], ridge: float, refits: bool, seed: int
) -> tuple[list[dict[int, float]], list[dict[int, float]]]:
    form = supernet.form(supernet.largest)
    blocks = form.blocks
    neurons: list[dict[int, float]] = [{blocks[0].mlp.size: 0.0} for _ in blocks]
    heads: list[dict[int, float]] = [{blocks[0].attention.size: 0.0} for _ in blocks]
    if len(space.neurons) == len(space.heads) == 1:
        return neurons, heads
    layers = [layer for block in blocks for layer in block.last]
    # A few windows tell how much is heard; what is fed in is known from all of them.
    heard = replace(sensitivity(form.model, layers, some_windows(windows), seed), stats=supernet.stats)
    for block, mine, other in track(list(zip(blocks, neurons, heads, strict=True)), "predicting harms"):
        for part, layer, values, found in (
            (block.mlp, block.mlp.down, space.neurons, mine), (block.attention, block.attention.out, space.heads, other)
        ):  # fmt: skip
            moment, weight = supernet.stats[layer.name].moment, layer.weight.float()
            for count in values:
                if count == part.size:
                    continue
                kept = part.columns(torch.arange(count)).to(weight.device)
                change = -weight
                change[:, kept] = (refit(weight, moment, kept, ridge) if refits else weight[:, kept]) - weight[:, kept]
                found[count] = heard.of(layer.name, change)
    return neurons, heads


def _widths(
    supernet: Supernet, space: Space, text: Sequence[Batch], ridge: float, refits: bool
) -> dict[int, float]:  # fmt: skip
    found = {supernet.full[3]: 0.0}
    for width in space.widths:
        if width not in found:
            small = sliced_width(supernet, width, ridge if refits else None)
            found[width] = max(divergence(small, supernet.base, text), 0.0)
    return found


def sliced_width(supernet: Supernet, width: int, ridge: float | None) -> Model:
    """The network with all its parts and a narrower stream. ridge: of the refit; None: not refitted."""
    choice = supernet.choice(width=width)
    small = supernet.slice(choice)
    if ridge is not None:
        refit_readers(supernet, choice, small, ridge)
    return small
