"""Choices of least predicted harm, exactly: where blocks are alike by trying all of them, where they differ in neurons
by a knapsack over the blocks (`searching.allocation`), for each number of blocks, heads and each width.

Blocks go in the order of the ranking; sets of blocks beside it are left to evolution."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from intarsia.compression.elastic.choices import Choice, Space
from intarsia.compression.elastic.costs import Costs
from intarsia.compression.elastic.harms import Harms
from intarsia.compression.elastic.supernet import Supernet
from intarsia.compression.searching.allocation import allocate
from intarsia.errors import BadInput
from intarsia.measure.scores import front

LEVELS = 6  # of the budget for which a knapsack is solved, from the budget to the full network


def depths(supernet: Supernet, space: Space, order: Sequence[int]) -> list[tuple[int, ...]]:
    """The sets of blocks along the ranking, the full one first."""
    count = supernet.full[0]
    return [tuple(sorted(set(range(count)) - set(order[:gone]))) for gone in range(count - space.fewest + 1)]


def even(supernet: Supernet, space: Space, order: Sequence[int]) -> list[Choice]:
    """All choices whose blocks are alike."""
    return [
        Choice(blocks, (neurons,) * len(blocks), heads, width)
        for blocks in depths(supernet, space, order) for neurons in space.neurons for heads in space.heads
        for width in space.widths
    ]  # fmt: skip


def uneven(supernet: Supernet, space: Space, harms: Harms, costs: Costs) -> list[Choice]:
    """The best choices whose blocks differ in neurons, for the first bound of the budget at a few levels."""
    name = costs.names[0]
    limit, full = costs.limits[name], costs(supernet.largest)[name]
    levels = np.linspace(min(limit, full), full, LEVELS)
    found = []
    for blocks in depths(supernet, space, harms.order):
        for heads in space.heads:
            for width in space.widths:
                found += _allocated(supernet, space, harms, costs, blocks, heads, width, levels.tolist())
    return list(dict.fromkeys(found))


def _allocated(
    supernet: Supernet, space: Space, harms: Harms, costs: Costs, blocks: tuple[int, ...], heads: int, width: int,
    levels: Sequence[float],
) -> list[Choice]:  # fmt: skip
    name, count = costs.names[0], len(blocks)
    # Blocks are alike, so one more neuron costs the same in each: a share of what it costs in all of them.
    every = [costs(Choice(blocks, (neurons,) * count, heads, width))[name] for neurons in space.neurons]
    rest, more = every[0], [(value - every[0]) / count for value in every]
    hurt = [[harms.neurons[b][n] for n in space.neurons] for b in blocks]
    out = []
    for level in levels:
        try:
            chosen = allocate(hurt, [more] * count, level - rest).chosen
        except BadInput:
            continue
        out.append(Choice(blocks, tuple(space.neurons[i] for i in chosen), heads, width))
    return out


def seeds(supernet: Supernet, space: Space, harms: Harms, costs: Costs, most: int) -> list[Choice]:
    """The choices to begin with: of the exact ones those that none dominates in harm and costs, the nearest to the
    budget first, and the uniform ones at equal steps."""
    some = even(supernet, space, harms.order)
    if space.uneven:
        some += uneven(supernet, space, harms, costs)
    best = [some[i] for i in front([[-harms(c), *(-costs(c)[n] for n in costs.names)] for c in some])]
    best.sort(key=lambda c: (costs.excess(c) > 0, harms(c)))
    whole = supernet.choice
    steps = np.linspace(0, len(space.neurons) - 1, min(4, len(space.neurons))).round().astype(int)
    plain = [whole(neurons=space.neurons[i]) for i in steps]
    return list(dict.fromkeys([*best[:most], *plain]))


def alone(supernet: Supernet, space: Space, harms: Harms, costs: Costs) -> dict[str, Choice]:
    """By part (`harms.PARTS`) the least harmful choice within the budget in which that part alone is cut, in all blocks
    alike; where that is not enough, the one that comes nearest."""
    whole = supernet.choice
    ways = {
        "blocks": [whole(blocks=blocks) for blocks in depths(supernet, space, harms.order)],
        "neurons": [whole(neurons=neurons) for neurons in space.neurons],
        "heads": [whole(heads=heads) for heads in space.heads],
        "width": [whole(width=width) for width in space.widths],
    }
    found = {}
    for part, every in ways.items():
        if some := [c for c in every if c != supernet.largest]:
            fitting = [c for c in some if costs.excess(c) <= 0]
            found[part] = min(fitting, key=harms) if fitting else min(some, key=costs.excess)
    return found


def within(choices: Sequence[Choice], harms: Harms, costs: Costs, most: int) -> list[Choice]:
    """The best by prediction: of those that keep the budget the least harmful, one of each form first; then those on
    the way to the full network, for the front."""
    every = list(dict.fromkeys(choices))
    fitting = sorted((c for c in every if costs.excess(c) <= 0), key=harms)
    first: dict[tuple[int, int, int], Choice] = {}
    for choice in fitting:
        first.setdefault((len(choice.blocks), choice.heads, choice.width), choice)
    taken = list(dict.fromkeys([*first.values(), *fitting]))[: max(1, most - most // 3)]
    name = costs.names[0]
    beyond = [c for c in every if costs.excess(c) > 0]
    beyond = [beyond[i] for i in front([[-harms(c), -costs(c)[name]] for c in beyond])]
    beyond.sort(key=lambda c: costs(c)[name])
    room = most - len(taken)
    picks = np.linspace(0, len(beyond) - 1, min(room, len(beyond))).round().astype(int) if beyond and room else []
    return list(dict.fromkeys([*taken, *(beyond[i] for i in picks)]))
