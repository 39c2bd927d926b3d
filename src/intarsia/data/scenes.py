"""Where scenes of a film change, told from small pictures of its frames as they come by; and which frames to show.

Two pictures differ by how much the colours they hold differ and by how much each place of them does. A hard cut is a
difference from one picture to the next that stands out from those around it. A gradual change (a dissolve, a fade) is
where the pictures before and those after it differ far more than either do among themselves. What stands out is judged
against the neighbourhood, so that a shaking camera or a fast movement is no cut; and where all is soon as it was before
(a flash) there is none either.

Zhang, Kankanhalli and Smoliar 1993 for histograms and places, and Cooper and Foote 2001 for comparing all pictures
before with all after; the measure and the thresholds are our own."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

RATE = 10.0
"""Pictures a second that are to be compared; the numbers below are pictures at that rate."""
WIDTH, HEIGHT = 64, 36
"""The size of the small pictures."""
LEVELS = 8
HARD, HARD_RATIO, AROUND = 0.33, 2.5, 6
"""A cut: the least difference (0: the same, 1: nothing in common), how often it is the median around it, and how many
pictures on each side that is taken over."""
BRIEF = 2
"""Pictures that a flash lasts at most."""
SOFT, SOFT_RATIO, SIDES, GAPS = 0.36, 5.0, 4, (3, 6)
"""A gradual change: the least difference across it, how often it is that from picture to picture on either side, how
many pictures make a side, and how many are left out between its middle and a side."""
REACH = 2 * (SIDES + max(GAPS))
SHORTEST = 0.4
"""Seconds that a scene lasts at least."""


@dataclass(frozen=True)
class Scene:
    """A stretch of a clip without a cut, in seconds from the clip's beginning."""

    start: float
    end: float

    @property
    def seconds(self) -> float:
        return self.end - self.start


@dataclass(frozen=True)
class _Sight:
    """What is kept of a picture: its colours [LEVELS ** 3], summing to 1, and its places [3, HEIGHT / 2, WIDTH / 2]."""

    colours: np.ndarray
    places: np.ndarray


def _sight(picture: np.ndarray) -> _Sight:
    """From [3, HEIGHT, WIDTH] of brightness and two colour differences, 0 to 255."""
    values = picture.astype(np.float32)
    # A colour between two levels counts for both by its distance: noise must not throw it from one into the other.
    at = values.reshape(3, -1) * ((LEVELS - 1) / 255)
    low = np.minimum(at.astype(np.int64), LEVELS - 2)
    share = at - low
    colours = np.zeros(LEVELS**3)
    for corner in range(8):
        up = np.array([corner >> 2 & 1, corner >> 1 & 1, corner & 1])[:, None]
        y, u, v = low + up
        weight = np.where(up == 1, share, 1 - share).prod(axis=0)
        colours += np.bincount((y * LEVELS + u) * LEVELS + v, weight, LEVELS**3)
    places = values.reshape(3, HEIGHT // 2, 2, WIDTH // 2, 2).mean(axis=(2, 4))
    return _Sight(colours / colours.sum(), places / 255)


def difference(one: np.ndarray, other: np.ndarray) -> float:
    """How much two small pictures [3, HEIGHT, WIDTH] (brightness, two colour differences) differ, from 0 to 1.

    The mean of the share of colours that they do not have in common (1 minus the intersection of their histograms) and
    of the distance of their places, which is full at a quarter of the scale."""
    return _apart(_sight(one), _sight(other))


def _apart(one: _Sight, other: _Sight) -> float:
    colours = 1 - np.minimum(one.colours, other.colours).sum()
    places = min(1.0, 4 * float(np.abs(one.places - other.places).sum(axis=0).mean()))
    return float(colours + places) / 2


@dataclass
class SceneFinder:
    """Takes small pictures in the order of their times; `scenes` then says where the scenes are.

    Holds the last REACH small pictures, and as many numbers for each one seen, whatever the length of the clip."""

    times: list[float] = field(default_factory=list)
    _back: list[np.ndarray] = field(default_factory=list)  # of each picture: differences to the one before it, and on
    _last: deque[_Sight] = field(default_factory=lambda: deque(maxlen=REACH))  # the latest first

    def see(self, time: float, picture: np.ndarray) -> None:
        """The next small picture [3, HEIGHT, WIDTH], of `time` seconds."""
        sight = _sight(picture)
        self.times.append(time)
        self._back.append(np.array([_apart(earlier, sight) for earlier in self._last], np.float32))
        self._last.appendleft(sight)

    def scenes(self, end: float) -> list[Scene]:
        """All scenes in order, the last one until `end`; together they are the whole clip."""
        if not self.times:
            return []
        edges, cuts = [self.times[0], end], self._sudden()
        for found in (cuts, self._gradual(cuts)):
            # The strongest first: a weaker one within a scene's least length is the same change seen again.
            for _, first, last, width in sorted(found, reverse=True):
                time = (self.times[first] + self.times[last]) / 2
                if all(abs(time - other) >= max(SHORTEST, width) for other in edges):
                    edges.append(time)
        edges = [*sorted(edges[:1] + edges[2:]), max(end, self.times[-1])]
        return [Scene(start, stop) for start, stop in pairwise(edges)]

    def _apart(self, before: int, after: int) -> float:
        return float(self._back[after][after - before - 1])

    def _sudden(self) -> list[tuple[float, int, int, float]]:
        """(strength, first and last picture that changes, seconds it is alone) of what stands out from picture to
        picture, unless all is as before at its end."""
        steps = self._steps()
        runs: list[list[int]] = []
        for i in np.flatnonzero(steps >= HARD):
            around = np.r_[steps[max(1, i - AROUND) : i], steps[i + 1 : i + 1 + AROUND]]
            if steps[i] < HARD_RATIO * (float(np.median(around)) if len(around) else 0.0):
                continue
            # A flash goes and comes: both are one change, which is none where nothing came of it.
            if runs and i - runs[-1][-1] <= BRIEF and i - runs[-1][0] < REACH - 1:
                runs[-1].append(int(i))
            else:
                runs.append([int(i)])
        strengths = [max(float(steps[i]) for i in run) for run in runs]
        return [
            (strength, run[0], run[-1], 0.0)
            for strength, run in zip(strengths, runs, strict=True)
            if self._apart(run[0] - 1, run[-1]) >= max(HARD, strength / 2)
        ]

    def _gradual(self, cuts: list[tuple[float, int, int, float]]) -> list[tuple[float, int, int, float]]:
        """The same of what changes over several pictures, where no hard cut is near."""
        steps, count = self._steps(), len(self.times)
        sofar = np.cumsum(np.bincount([first for _, first, _, _ in cuts], minlength=count))
        out = []
        for gap in GAPS:
            for i in range(gap + 3, count - gap - 2):
                before, after = range(max(0, i - gap - SIDES), i - gap), range(i + gap, min(count, i + gap + SIDES))
                if sofar[after[-1]] != sofar[before[0]]:
                    continue
                usual = max(steps[side[1] : side[-1] + 1].mean() for side in (before, after))
                if SOFT_RATIO * usual > 1 or self._apart(before[-1], after[0]) < SOFT / 2:
                    continue  # no need to compare them all
                across = float(np.median([self._apart(one, other) for one in before for other in after]))
                if across >= max(SOFT, SOFT_RATIO * usual):
                    out.append((across - SOFT_RATIO * usual, i - 1, i, (SIDES + gap) / RATE))
        return out

    def _steps(self) -> np.ndarray:
        """[picture] the difference to the one before it."""
        return np.array([back[0] if len(back) else 0.0 for back in self._back])


def moments(scenes: Sequence[Scene], count: int) -> list[tuple[Scene, float]]:
    """`count` moments spread over the clip, in order, each with its scene: the middles of equal parts of scenes.

    With no more scenes than moments every scene has one, and the rest go to the longest stretches; with more, those
    scenes are taken that the middles of `count` equal parts of the clip lie in."""
    scenes = [s for s in scenes if s.seconds > 0] or list(scenes[:1])
    if not scenes or count < 1:
        return []
    shares = [0] * len(scenes)
    if len(scenes) <= count:
        shares = [1] * len(scenes)
        for _ in range(count - len(scenes)):
            shares[max(range(len(scenes)), key=lambda i: scenes[i].seconds / (shares[i] + 1))] += 1
    else:
        first, whole = scenes[0].start, scenes[-1].end - scenes[0].start
        for part in range(count):
            middle = first + whole * (part + 0.5) / count
            shares[next((i for i, s in enumerate(scenes) if middle < s.end), len(scenes) - 1)] += 1
    return [
        (scene, scene.start + scene.seconds * (part + 0.5) / share)
        for scene, share in zip(scenes, shares, strict=True)
        for part in range(share)
    ]
