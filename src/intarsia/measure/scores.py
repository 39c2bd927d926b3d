"""Quality and cost in one number: what low-power competitions and surveys rank by. Plain arithmetic, on what
`measure.quality` and `measure.cost` found.

Sources: Goel et al. 2020, arXiv 2003.11066, guidelines (quality beside memory, operations and energy together, since
parameters and operations do not tell energy); LPIRC: Alyamkin et al. 2019, arXiv 1904.07714, §2; DAC-SDC: the contest's
rules of 2022; hypervolume: Zitzler and Thiele 1999."""

from __future__ import annotations

import math
from collections.abc import Sequence

from intarsia.errors import BadInput

WATTS = 4.0  # of one busy core, where nothing measures it: codecarbon's fallback
JOULES_A_BYTE = 1.6e-10  # of memory that is read: 20 pJ a bit
FLOOR = 0.1  # of the DAC-SDC score: what a net below the wanted quality keeps


def estimated_joules(seconds: float, size: float) -> float:
    """An estimate for machines without a meter: a core's power while it works (`seconds` of processor time), and
    `size` bytes of weights read once. For ratios, not for bills."""
    return seconds * WATTS + size * JOULES_A_BYTE


def per_resource(
    quality: float, *, parameters: float | None = None, size: float | None = None, macs: float | None = None,
    joules: float | None = None,
) -> dict[str, float]:  # fmt: skip
    """Quality for each million parameters (`per_mparam`), MB (`per_mb`), billion multiply-accumulates (`per_gmac`) and
    joule (`per_joule`): of those that are given. Raises `BadInput` for a resource that is not positive."""
    given = {
        "per_mparam": (parameters, 1e6), "per_mb": (size, 1e6), "per_gmac": (macs, 1e9), "per_joule": (joules, 1.0),
    }  # fmt: skip
    return {
        name: quality / (_positive(value, name) / unit) for name, (value, unit) in given.items() if value is not None
    }


def lpirc(quality: float, joules: float) -> float:
    """Quality (mean average precision, or accuracy) over energy in watt-hours, within the contest's time limit, which
    is the caller's to keep."""
    return quality / (_positive(joules, "joules") / 3600)


def dac_sdc(
    quality: float, joules: float, rate: float, *, least_quality: float = 0.7, least_rate: float = 30.0
) -> float:
    """100 / log2(energy) * max(relu(1 - 5 relu(q_min - q)), .1) * relu(1 - relu(1 - fps / fps_min)).

    - quality: intersection over union, or accuracy. joules: of the whole run; over 1. rate: inputs a second.

    A template for budgets: below the wanted quality the score falls five times as fast, below the wanted rate to
    nothing. Raises `BadInput` for an energy of 1 J or less, of which the logarithm says nothing."""
    if joules <= 1:
        raise BadInput(f"the score wants the energy of a whole run, over 1 J; given: {joules}")
    short = max(0.0, least_quality - quality)
    slow = max(0.0, 1 - rate / least_rate)
    return 100 / math.log2(joules) * max(max(0.0, 1 - 5 * short), FLOOR) * max(0.0, 1 - slow)


def balanced(quality: float, size: float, seconds: float) -> float:
    """Geometric mean of quality, 1 / sqrt(size) and 1 / sqrt(seconds), each given as its ratio to the base's: 1 for the
    base, and higher is better."""
    given = (_positive(value, name) for value, name in ((quality, "quality"), (size, "size"), (seconds, "seconds")))
    quality, size, seconds = given
    return (quality / math.sqrt(size) / math.sqrt(seconds)) ** (1 / 3)


def dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether one is as good in everything and better in something. Higher is better in every place."""
    return all(a >= b for a, b in zip(one, other, strict=True)) and list(one) != list(other)


def front(points: Sequence[Sequence[float]]) -> list[int]:
    """Numbers of the points that no other one dominates; of equal points the first counts."""
    out = []
    for i, one in enumerate(points):
        same = any(list(other) == list(one) for other in points[:i])
        if not same and not any(dominates(other, one) for other in points):
            out.append(i)
    return out


def hypervolume(points: Sequence[Sequence[float]], reference: Sequence[float]) -> float:
    """Volume of what lies between a reference and some point that is better in everything: a number for a whole front,
    to compare searches by. Higher is better in every place; points that are no better than the reference somewhere
    count nothing. Exact, by slices: for the few points and two to four places of a front."""
    inside = [tuple(p) for p in points if all(a > b for a, b in zip(p, reference, strict=True))]
    return _volume([inside[i] for i in front(inside)], tuple(reference))


def _volume(points: list[tuple[float, ...]], reference: tuple[float, ...]) -> float:
    if not points:
        return 0.0
    if len(reference) == 1:
        return max(p[0] for p in points) - reference[0]
    total, below = 0.0, reference[-1]
    for height in sorted({p[-1] for p in points}):
        slice_ = [p[:-1] for p in points if p[-1] >= height]
        total += (height - below) * _volume(slice_, reference[:-1])
        below = height
    return total


def _positive(value: float, name: str) -> float:
    if not value > 0:
        raise BadInput(f"{name}: a positive number is wanted (given: {value})")
    return value
