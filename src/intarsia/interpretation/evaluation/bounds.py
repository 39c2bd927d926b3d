"""Between which values AOPC can lie on one text: what no order of tokens goes beyond, found by beam search.

Raw AOPC says as much about the model as about the explanation: a model that leans on one word gives high values to
everybody. Normalised by its bounds, it compares across texts and models.

Source: Edin et al. 2024, "Normalized AOPC", sections 4 and 5 (bounds by beam search)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from intarsia.interpretation.evaluation import removal

if TYPE_CHECKING:
    from intarsia.interpretation.explained import Explained

Bounds = tuple[float, float]


def aopc_bounds(
    explained: Explained, fractions: Sequence[float] = removal.FRACTIONS, width: int = 2
) -> tuple[Bounds, Bounds]:
    """(lowest, highest) AOPC of comprehensiveness and of sufficiency over all orders, as far as a beam of `width`
    orders finds them (exact when `width` is at least the number of sets of tokens of any size)."""
    whole = float(removal.probability(explained))
    counts = removal.sizes(len(explained.features), fractions)

    def comprehensiveness(chosen: Tensor) -> Tensor:
        return whole - removal.probability(explained, ~chosen)

    def sufficiency(chosen: Tensor) -> Tensor:
        return whole - removal.probability(explained, chosen)

    found = [_extremes(gain, len(explained.features), counts, width) for gain in (comprehensiveness, sufficiency)]
    return found[0], found[1]


def normalised(value: float, bounds: Bounds) -> float:
    """(value - lowest) / (highest - lowest): 0 and 1 are the ends that the search found. Not clipped: a value outside
    says that the search missed a better order. NaN when there is nothing between the ends."""
    low, high = bounds
    return (value - low) / (high - low) if high - low > 1e-12 else float("nan")


def _extremes(gain: Callable[[Tensor], Tensor], features: int, counts: Sequence[int], width: int) -> Bounds:
    low = -beam(lambda chosen: -gain(chosen), features, counts, width)
    return low, beam(gain, features, counts, width)


def beam(gain: Callable[[Tensor], Tensor], features: int, counts: Sequence[int], width: int) -> float:
    """The highest mean of gain(first n of an order) over n in `counts` (n may occur twice), over orders of `features`.

    gain: sets [n, feature] bool -> [n]. An order is judged by what it has gained and by its present gain held on."""
    times = Counter(counts)
    held = [(torch.zeros(features, dtype=torch.bool), 0.0)]
    for size in range(1, max(counts) + 1):
        grown: dict[bytes, tuple[Tensor, float]] = {}
        for chosen, sum_before in held:
            for feature in (~chosen).nonzero()[:, 0]:
                new = chosen.clone()
                new[feature] = True
                key = new.numpy().tobytes()
                # The same set by another way: only the better way there matters.
                if key not in grown or grown[key][1] < sum_before:
                    grown[key] = (new, sum_before)
        candidates = list(grown.values())
        gains = gain(torch.stack([chosen for chosen, _ in candidates])).tolist()
        ahead = sum(n for count, n in times.items() if count > size)
        scored = [
            (total + now * times[size] + now * ahead, total + now * times[size], chosen)
            for (chosen, total), now in zip(candidates, gains, strict=True)
        ]
        scored.sort(key=lambda item: -item[0])
        held = [(chosen, total) for _, total, chosen in scored[:width]]
    return max(total for _, total in held) / len(counts)
