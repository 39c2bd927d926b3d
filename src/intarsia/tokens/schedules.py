"""How many rows each block removes, so that a share of the tower's multiply-accumulates is kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from intarsia.errors import BadInput, did_you_mean
from intarsia.tokens.macs import TowerShape, kept_share

FLOOR = 2
"""Free rows that are left at least: one to merge into, one to tell it from. On fewer a step costs what it saves."""

SCHEDULES: dict[str, Callable[[int, int], float]] = {
    "constant": lambda layer, layers: 1.0,
    "decreasing": lambda layer, layers: 1.0 - layer / layers,
    # Falls to 2 % over the depth of the tower: half of all rows go in the first sixth of it.
    "front": lambda layer, layers: math.exp(-4 * layer / layers),
}
"""Shares of the removed rows, by block index and number of blocks."""


def removal(
    shape: TowerShape,
    keep: float,
    schedule: str | Sequence[int] = "constant",
    *,
    blocked: int = 1,
    every: int = 1,
    floor: int = FLOOR,
) -> tuple[int, ...]:
    """Rows that each block removes, so that the tower keeps the share of its multiply-accumulates closest to `keep`.

    - keep: above 0 and at most 1; 1 removes nothing.
    - schedule: `constant` (the same in each block), `decreasing` (linearly fewer), `front` (most in the first) or the
      list itself: then `keep` is not looked at, and only what is possible is checked.
    - blocked: rows that are never merged (class token, cross token).
    - every: only blocks 0, `every`, 2 * `every`... remove rows.
    - floor: free rows that are left.

    A block removes at most half of its free rows. Raises `BadInput` where `keep` is outside its range, or smaller than
    the schedule can reach."""
    if not isinstance(schedule, str):
        return _listed(shape, schedule, blocked)
    if schedule not in SCHEDULES:
        hint = did_you_mean(schedule, SCHEDULES)
        raise BadInput(f"unknown schedule '{schedule}'{hint}; known: {', '.join(SCHEDULES)}")
    weights = [SCHEDULES[schedule](layer, shape.layers) for layer in range(shape.layers)]
    return _scaled(shape, keep, weights, f"the schedule '{schedule}'", blocked, every, floor)


def _scaled(
    shape: TowerShape, keep: float, weights: Sequence[float], what: str, blocked: int, every: int, floor: int
) -> tuple[int, ...]:
    """Rows in proportion to `weights`, as many as `keep` takes."""
    _check_keep(keep)
    if every < 1:
        raise BadInput(f"every is {every}: give 1 for every block, 2 for every second, and so on")
    if keep == 1:
        return (0,) * shape.layers
    weights = [weight if layer % every == 0 else 0.0 for layer, weight in enumerate(weights)]
    top = max(weights, default=0.0)
    if top <= 0:
        raise BadInput(f"{what} removes nothing in any block: give one that does")
    weights = [weight / top for weight in weights]

    def given(scale: float) -> tuple[int, ...]:
        # What is left over by rounding goes on to the next block, so that small scales count, too.
        removed, rows, owed = [], shape.tokens, 0.0
        for weight in weights:
            owed += scale * weight
            r = _possible(math.floor(owed + 0.5) if weight else 0, rows, blocked, floor)
            removed.append(r)
            # What a block could not take is not added to later ones.
            owed = min(owed - r, 0.5)
            rows -= r
        return tuple(removed)

    low, high = 0.0, float(shape.tokens) / min(weight for weight in weights if weight > 0)
    least = kept_share(shape, given(high))
    best = given(0.0)
    for _ in range(60):
        middle = (low + high) / 2
        candidate = given(middle)
        share = kept_share(shape, candidate)
        if abs(share - keep) < abs(kept_share(shape, best) - keep):
            best = candidate
        low, high = (middle, high) if share > keep else (low, middle)
    if least > keep and kept_share(shape, best) > keep + 0.005:
        raise BadInput(
            f"keep is {keep:g}, but {what} leaves at least {least:.3g} of the work ({shape.tokens} rows, {blocked} of "
            "them protected; a block merges at most half): give more"
        )
    return best


def _listed(shape: TowerShape, given: Sequence[int], blocked: int) -> tuple[int, ...]:
    if len(given) != shape.layers:
        raise BadInput(f"the list of removed rows has {len(given)} entries, the tower has {shape.layers} blocks")
    rows = shape.tokens
    for layer, r in enumerate(given):
        most = max((rows - blocked) // 2, 0)
        if not 0 <= r <= most:
            raise BadInput(f"block {layer} is to remove {r} of {rows} rows: it can remove 0 to {most}")
        rows -= r
    return tuple(int(r) for r in given)


def _possible(wish: int, rows: int, blocked: int, floor: int) -> int:
    free = rows - blocked
    return max(min(wish, free // 2, free - floor), 0)


def _check_keep(keep: float) -> None:
    if not 0 < keep <= 1:
        raise BadInput(f"keep is {keep:g}: give the share to keep, above 0 and at most 1 (0.5: about half)")
