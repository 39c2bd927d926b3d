"""Clips: find them in a folder, and look through one: where its scenes are, and the frames that show what is in it.

A clip is read twice: once through small pictures to find its scenes, once for the chosen frames. What is held in memory
does not grow with its length, save two numbers a frame. Sound is left alone."""

from __future__ import annotations

import re
from bisect import bisect_left
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from intarsia.data.pictures import Unreadable
from intarsia.data.records import Turn
from intarsia.errors import BadInput

if TYPE_CHECKING:
    from PIL.Image import Image

    from intarsia.data.scenes import Scene

SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".m2ts", ".mts", ".wmv", ".flv", ".3gp", ".ogv",
)  # fmt: skip
"""How the files of a folder end that are taken for clips. One that is named may end otherwise (`.gif`)."""
FRAMES, SIDE = 6, 768


@dataclass(frozen=True)
class Clip:
    """What was seen of a clip, or of a stretch of it.

    - path: its file. seconds: how long it is.
    - scenes: stretches without a cut. times: of the chosen frames, in seconds from the beginning of the file.
    - pictures: the chosen frames, upright, in RGB, with square pixels.
    - sound: whether it has a sound track, which nobody listened to.
    - trouble: what is wrong with it, where what is left could be read; else empty."""

    path: str
    seconds: float
    scenes: list[Scene]
    times: list[float]
    pictures: list[Image]
    sound: bool = False
    trouble: str = ""


def clips_in(folder: str | Path) -> list[Turn]:
    """The clips of a folder and the folders in it, in the order of their paths, by suffix; hidden ones left out.

    Each is a turn without words, with its path as `clip`. Raises `BadInput` when there are none."""
    folder = Path(folder)
    found = [path for path in folder.rglob("*") if _is_clip(path, folder) and path.is_file()]
    if not found:
        raise BadInput(f"{folder}: no clips in it; known: {', '.join(SUFFIXES)}")
    found.sort(key=lambda path: [_natural(part) for part in path.relative_to(folder).parts])
    return [Turn("", "", clip=str(path)) for path in found]


def holds_clips(folder: Path) -> bool:
    """Whether a folder, or one in it, holds a file with a clip's suffix."""
    return any(_is_clip(path, folder) for path in folder.rglob("*"))


def _is_clip(path: Path, folder: Path) -> bool:
    parts = path.relative_to(folder).parts
    return path.suffix.lower() in SUFFIXES and not any(p.startswith(".") or p == "__MACOSX" for p in parts)


def _natural(name: str) -> list[tuple[int, int, str]]:
    """So that 2.mp4 stands before 10.mp4."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part.casefold()) for part in re.split(r"(\d+)", name)]


def open_clip(
    path: str | Path, *, frames: int = FRAMES, side: int = SIDE, start: float | None = None, end: float | None = None
) -> Clip:
    """Look through a clip: where its scenes are, and some of its frames, spread over them.

    - frames: at most so many; a clip of fewer frames gives what it has (`intarsia.data.scenes.moments`).
    - side: the longest side of a frame in pixels; larger ones are made smaller.
    - start, end: look at this stretch of the file alone, in seconds.

    Whatever PyAV reads: also with frames of unequal length, or broken off in the middle (then `trouble` says so). The
    rotation or mirroring that the file asks for is applied. Raises `Unreadable` when there is no picture in it,
    `BadInput` for settings that make no sense, and `MissingExtra` without PyAV."""
    from intarsia.data.film import Film, picture
    from intarsia.data.scenes import HEIGHT, RATE, WIDTH, SceneFinder, moments

    _check(frames, side, start, end)
    path, finder, times = Path(path), SceneFinder(), []
    film = Film(path, start or 0.0, end)
    for frame, time in film:
        times.append(time)
        # Half a thousandth off: times are rounded, and 10 a second of 30 must be every third.
        if not finder.times or time - finder.times[-1] >= 1 / RATE - 5e-4:
            small = frame.reformat(width=WIDTH, height=HEIGHT, format="yuv444p", interpolation="AREA")
            finder.see(time, small.to_ndarray(format="yuv444p"))
    if not times:
        raise Unreadable(f"{path}: {film.nothing()}")
    scenes = finder.scenes(film.end)
    wanted = {_nearest(times, scene, moment) for scene, moment in moments(scenes, frames)}
    found: dict[int, Image] = {}
    for number, (frame, _) in enumerate(Film(path, start or 0.0, end)):
        if number in wanted:
            found[number] = picture(frame, film.pixel, side)
            if len(found) == len(wanted):
                break
    return Clip(
        str(path), film.end - times[0], scenes, [times[i] for i in found], list(found.values()), film.sound,
        film.trouble(),
    )  # fmt: skip


def _check(frames: int, side: int, start: float | None, end: float | None) -> None:
    for name, value, least in (("frames", frames, 1), ("side", side, 16)):
        if value < least:
            raise BadInput(f"{name}: at least {least} wanted, given: {value}")
    if (start is not None and not start >= 0) or (end is not None and not end > (start or 0)):
        raise BadInput(f"a stretch of a clip wants 0 <= start < end, in seconds; given: {start} to {end}")


def _nearest(times: list[float], scene: Scene, moment: float) -> int:
    """The frame nearest to a moment; of the frames in its scene, where it has any."""
    first, stop = bisect_left(times, scene.start), bisect_left(times, scene.end)
    first, stop = (first, stop) if first < stop else (0, len(times))
    at = bisect_left(times, moment, first, stop)
    return min((i for i in (at - 1, at) if first <= i < stop), key=lambda i: abs(times[i] - moment))
