"""Where scenes of a film change, told from small pictures of its frames as they come by; and which frames to show.

Two pictures differ by how much the colours they hold differ and by how much each place of them does. A hard cut is a
difference that stands out from those around it; a gradual change (a dissolve, a fade) is a difference over a second
that does. What stands out is judged against the neighbourhood, so that a shaking camera or a fast movement is no cut,
and where all is soon as it was before (a flash) there is none either."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

WIDTH, HEIGHT = 64, 36
"""The size of the small pictures."""
LEVELS = 8
FLOOR = 0.15
"""Differences below are never a change of scene, on a scale from 0 (the same) to 1."""
RATIO = 3.0
"""How often the median of its neighbourhood a difference must be."""
AROUND = 6
"""Neighbours on each side that a hard cut is judged against."""
SLOW = 1.0
"""Seconds over which gradual changes are looked for."""
BRIEF = 0.25
"""Seconds that a flash lasts at most."""
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

    Holds the last second of small pictures, and a few numbers for each one seen, whatever the length of the clip."""

    times: list[float] = field(default_factory=list)
    _fast: list[float] = field(default_factory=list)  # difference to the picture before
    _slow: list[float] = field(default_factory=list)  # difference over the last SLOW seconds
    _since: list[int] = field(default_factory=list)  # the picture that `_slow` compares with
    _all: list[np.ndarray | None] = field(default_factory=list)  # to each picture from `_since` on, where much changed
    _last: deque[tuple[int, _Sight]] = field(default_factory=deque)

    def see(self, time: float, picture: np.ndarray) -> None:
        """The next small picture [3, HEIGHT, WIDTH], of `time` seconds."""
        sight, number = _sight(picture), len(self.times)
        while len(self._last) > 1 and time - self.times[self._last[1][0]] >= SLOW:
            self._last.popleft()
        since = self._last[0][0] if self._last else number
        self.times.append(time)
        self._since.append(since)
        self._fast.append(_apart(self._last[-1][1], sight) if self._last else 0.0)
        self._slow.append(_apart(self._last[0][1], sight) if self._last else 0.0)
        busy = max(self._fast[since:]) >= FLOOR
        self._all.append(np.array([_apart(one, sight) for _, one in self._last], np.float32) if busy else None)
        self._last.append((number, sight))

    def scenes(self, end: float) -> list[Scene]:
        """All scenes in order, the last one until `end`; together they are the whole clip."""
        if not self.times:
            return []
        high = self._high()
        cuts: list[float] = []
        for _, time in sorted([*self._sudden(high), *self._gradual(high)], reverse=True):
            if all(abs(time - other) >= SHORTEST for other in (self.times[0], *cuts, end)):
                cuts.append(time)
        edges = [self.times[0], *sorted(cuts), max(end, self.times[-1])]
        return [Scene(start, stop) for start, stop in pairwise(edges)]

    def _high(self) -> np.ndarray:
        """[picture] whether its difference to the one before stands out."""
        fast = np.array(self._fast)
        out = np.zeros(len(fast), dtype=bool)
        for i in np.flatnonzero(fast >= FLOOR):
            around = np.r_[fast[max(1, i - AROUND) : i], fast[i + 1 : i + 1 + AROUND]]
            out[i] = fast[i] >= RATIO * (float(np.median(around)) if len(around) else 0.0)
        return out

    def _sudden(self, high: np.ndarray) -> list[tuple[float, float]]:
        """(strength, time) of hard cuts and quick dissolves: what stands out, unless all is as before at its end."""
        runs: list[list[int]] = []
        for i in np.flatnonzero(high):
            # A flash goes and comes; a dissolve goes on for some pictures: each is one change.
            if runs and self.times[i] - self.times[runs[-1][-1]] <= BRIEF and runs[-1][0] > self._since[i]:
                runs[-1].append(int(i))
            else:
                runs.append([int(i)])
        out = []
        for run in runs:
            first, last = run[0], run[-1]
            differences = self._all[last]
            assert differences is not None  # much changed here
            apart = float(differences[first - 1 - self._since[last]])
            strength = max(self._fast[i] for i in run)
            if apart >= max(FLOOR, strength / 2):
                out.append((strength, (self.times[first] + self.times[last]) / 2))
        return out

    def _gradual(self, high: np.ndarray) -> list[tuple[float, float]]:
        """(strength, time) of slow changes: the largest difference over a second in which nothing stands out, where it
        stands out from the seconds around."""
        slow, times, sofar = np.array(self._slow), np.array(self.times), np.cumsum(high)
        clean = sofar == sofar[self._since]
        out = []
        for i in np.flatnonzero(clean & (slow >= 2 * FLOOR)):
            low, stop = np.searchsorted(times, (times[i] - 3 * SLOW, times[i] + 3 * SLOW))
            part, away = slice(low, stop), np.abs(times[low:stop] - times[i])
            near, far = slow[part][clean[part] & (away <= SLOW)], slow[part][clean[part] & (away > SLOW)]
            usual = float(np.median(far)) if len(far) > 1 else 0.0
            if slow[i] >= near.max() and slow[i] >= RATIO * usual:
                out.append((float(slow[i]), float(times[self._since[i]] + times[i]) / 2))
        return out


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
