"""What a budget takes, by arithmetic: said before anything is computed, refused where nothing allowed reaches it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from intarsia.compression.searching.anatomy import Anatomy, Matrix
from intarsia.compression.searching.budgets import Budget
from intarsia.compression.searching.stores import GROUP, Store
from intarsia.errors import BadInput

MARGIN = 0.005  # of a file's bytes: what its header may be off


@dataclass(frozen=True)
class Limits:
    """How far the families that are allowed may go.

    - rows: the vocabularies that could be trimmed to, the largest first. table_bits: of the vocabulary, at least.
      blocks: most that may go. neurons: largest share that may go."""

    rows: tuple[int, ...] = ()
    table_bits: int = 8
    blocks: int = 0
    neurons: float = 0.0


def reachable(shape: Anatomy, limits: Limits) -> Anatomy:
    """The smallest network that the limits allow."""
    if limits.rows:
        shape = shape.with_rows(limits.rows[-1])
    shape = replace(shape, table_bits=limits.table_bits)
    if limits.blocks:
        shape = shape.without_blocks(range(shape.blocks - limits.blocks, shape.blocks))
    if limits.neurons:
        shape = narrower(shape, limits.neurons)
    return shape


def narrower(shape: Anatomy, share: float, multiple: int = 32) -> Anatomy:
    """With a share of the neurons of every MLP gone, as `compression.narrow` counts them."""

    def left(count: int) -> int:
        return min(count, max(1, round((1 - share) * count / multiple)) * multiple)

    def change(matrix: Matrix) -> Matrix:
        if matrix.block is None:
            return matrix
        if matrix.role in ("gate", "up"):
            return replace(matrix, rows=left(matrix.rows))
        return replace(matrix, width=left(matrix.width)) if matrix.role == "down" else matrix

    return shape.changed(change)


def feasible(
    budget: Budget, shape: Anatomy, stores: Sequence[Store], limits: Limits, base: Mapping[str, float]
) -> list[str]:
    """What there is to say of the budget before the search, a line each: nothing where bits alone keep it.

    - base: the model's own values of relative metrics that need no measuring (`bytes`, `params`).

    Raises `BadInput` where nothing that the limits allow reaches the budget, with what would."""
    said = []
    if (bound := budget.most_bytes) is not None:
        most = bound.limit(base["bytes"])
        if min(store.smallest(shape) for store in stores) > most:
            line = f"{bound.text}: {_bytes_line(shape, stores, most)}"
            low, store = min(((s.smallest(reachable(shape, limits)), s) for s in stores), key=lambda pair: pair[0])
            if low * (1 - MARGIN) > most:
                raise BadInput(f"{line}; what is allowed here reaches {_mb(low)} ({store.name})")
            said.append(line)
    for bound in budget.of("params"):
        most = bound.limit(base["params"])
        if shape.parameters > most:
            line = f"{bound.text}: {_params_line(shape, most)}"
            low = reachable(shape, limits).parameters
            if low > most:
                raise BadInput(f"{line}; what is allowed here reaches {_millions(low)}")
            said.append(line)
    return said


def _bytes_line(shape: Anatomy, stores: Sequence[Store], most: float) -> str:
    best = min(stores, key=lambda store: store.smallest(shape))
    body = sum(min(best.costs(m)) for m in shape.matrices)
    alone = (
        f"bits alone reach {_mb(best.smallest(shape))} ({best.name}: {_millions(shape.body)} weights of the body in "
        f"{8 * body / shape.body:.2f} bits are {_mb(body)}, {_millions(shape.vocabulary)} of the vocabulary in "
        f"{8 * best.table(shape) / shape.vocabulary:.2f} bits {_mb(best.table(shape))})"
    )
    given = (_smaller_table(shape, stores, most), _fewer_rows(shape, stores, most), _fewer_blocks(shape, stores, most))
    ways = [way for way in given if way]
    return f"{alone}; it takes {' or '.join(ways)}" if ways else f"{alone}; no vocabulary and no depth makes it fit"


def _fewer_rows(shape: Anatomy, stores: Sequence[Store], most: float) -> str | None:
    """The largest vocabulary, in thirds of what there is, with which some bits fit."""
    for share in (3, 6, 12, 24):
        small = shape.with_rows(shape.rows // share)
        for store in stores:
            if store.smallest(small) <= most:
                bits = 8 * (most - store.fixed(small)) / shape.body
                return f"a vocabulary of {small.rows:,} tokens and {bits:.1f} bits a weight at most ({store.name})"
    return None


def _smaller_table(shape: Anatomy, stores: Sequence[Store], most: float) -> str | None:
    """Whether the vocabulary in 4 bits is enough."""
    small = replace(shape, table_bits=4)
    fits = [store.name for store in stores if shape.width % GROUP == 0 and store.smallest(small) <= most]
    return f"the vocabulary in 4 bits ({fits[0]})" if fits else None


def _fewer_blocks(shape: Anatomy, stores: Sequence[Store], most: float) -> str | None:
    """How many blocks fewer, in the fewest bits."""
    found = []
    for store in stores:
        for count in range(1, shape.blocks):
            if store.smallest(shape.without_blocks(range(shape.blocks - count, shape.blocks))) <= most:
                found.append((count, store.name))
                break
    return f"{min(found)[0]} of {shape.blocks} blocks fewer ({min(found)[1]})" if found else None


def _params_line(shape: Anatomy, most: float) -> str:
    alone = (
        f"the model has {_millions(shape.parameters)} parameters (body {_millions(shape.body)}, vocabulary "
        f"{_millions(shape.vocabulary)}, norms {_millions(shape.norms)}), and bits change none"
    )
    over = shape.parameters - most
    ways = []
    if (rows := math.floor(shape.rows - over / (shape.width * shape.tables))) > 0:
        ways.append(f"a vocabulary of {rows:,} tokens")
    each = shape.body / max(shape.blocks, 1)
    if (count := math.ceil(over / each)) < shape.blocks:
        ways.append(f"{count} of {shape.blocks} blocks fewer")
    return f"{alone}; it takes {' or '.join(ways)}" if ways else alone


def _mb(count: float) -> str:
    return f"{count / 1e6:,.1f} MB" if count >= 1e6 else f"{count / 1e3:,.1f} kB"


def _millions(count: float) -> str:
    return f"{count / 1e6:,.1f} M" if count >= 1e5 else f"{count / 1e3:,.1f} k"
