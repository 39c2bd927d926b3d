"""How long an answer takes, from a table that is measured once: a block of every shape, and the rest of the network.

    seconds(choice) = rest(width) + sum over blocks of block(neurons, heads, width)

A block's time is the difference between networks of a few blocks and of one, over the blocks they differ by; between
measured numbers of neurons it is taken as linear. Whether the table holds here is tried on whole networks drawn at
random."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import numpy as np

from intarsia.compression.elastic.choices import Choice, Space
from intarsia.compression.elastic.supernet import Supernet
from intarsia.measure.speed import Lap, torch_lap
from intarsia.progress import track

if TYPE_CHECKING:
    from intarsia.models import Model

FEW = 5  # blocks of the networks that blocks are timed in
ANCHORS = 3  # numbers of neurons that are timed
TRIALS = 3  # whole networks that the table is tried on
HOLDS = 0.15  # largest error of a table that holds


class Timing:
    """- prompt_tokens, new_tokens: of the answer. repeats: rounds; the quickest counts, for others were disturbed."""

    def __init__(self, supernet: Supernet, space: Space, prompt_tokens: int, new_tokens: int, repeats: int):
        self.supernet, self.space = supernet, space
        self.tokens, self.repeats = (prompt_tokens, new_tokens), repeats
        values = space.neurons
        numbers = np.linspace(0, len(values) - 1, min(ANCHORS, len(values))).round().astype(int)
        self.anchors = sorted({values[i] for i in numbers})
        self._blocks: dict[tuple[int, int, int], float] = {}
        self._rest: dict[int, float] = {}

    def measure(self) -> None:
        """Fill the table."""
        shapes = [(h, w) for h in self.space.heads for w in self.space.widths]
        for heads, width in track(shapes, "timing blocks"):
            for neurons in self.anchors:
                self._block(neurons, heads, width)

    def seconds(self, choice: Choice) -> float:
        """Of one answer."""
        total = self._rest_of(choice.width)
        for neurons in choice.neurons:
            times = [self._block(n, choice.heads, choice.width) for n in self.anchors]
            total += float(np.interp(neurons, self.anchors, times))
        return total

    def tried(self, seed: int) -> float:
        """The largest error of the table on whole networks, as a share of what they take."""
        chance, worst = random.Random(seed), 0.0
        for _ in range(TRIALS):
            choice = self.space.drawn(self.supernet.full[0], chance)
            real = self.clock(self.supernet.slice(choice))
            worst = max(worst, abs(self.seconds(choice) - real) / real)
        return worst

    def clock(self, model: Model) -> float:
        """Seconds that one network takes for an answer."""
        lap = torch_lap(model, *self.tokens)
        lap()
        return min(self.answer(lap()) for _ in range(self.repeats))

    def answer(self, lap: Lap) -> float:
        """Seconds of one round."""
        return self.tokens[0] / lap.prefill + (self.tokens[1] / lap.decode if lap.decode else 0.0)

    def _network(self, count: int, neurons: int, heads: int, width: int) -> float:
        choice = self.supernet.choice(blocks=range(count), neurons=neurons, heads=heads, width=width)
        return self.clock(self.supernet.slice(choice))

    def _block(self, neurons: int, heads: int, width: int) -> float:
        shape = neurons, heads, width
        if shape not in self._blocks:
            count = min(FEW, self.supernet.full[0])
            one, few = (self._network(n, *shape) for n in (1, count))
            self._blocks[shape] = max(few - one, 0.0) / max(count - 1, 1)
        return self._blocks[shape]

    def _rest_of(self, width: int) -> float:
        if width not in self._rest:
            neurons, heads = self.anchors[-1], self.space.heads[-1]
            block = self._block(neurons, heads, width)
            self._rest[width] = max(self._network(1, neurons, heads, width) - block, 0.0)
        return self._rest[width]
