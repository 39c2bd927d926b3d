"""The frames of a film file with their times, read over what is broken; and a frame as an upright picture."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from intarsia.data.pictures import Unreadable, open_picture
from intarsia.errors import MissingExtra, first_line

if TYPE_CHECKING:
    import numpy as np
    from av import VideoFrame
    from PIL.Image import Image

NEAR = 2.0
"""A stretch that begins within so many seconds of the file's beginning is reached by reading on, others by a jump."""


@dataclass
class Film:
    """The whole frames of a file from `start` to `until`, in seconds; and what comes to light while they are read.

    - sound: whether there is a sound track. pixel: width of a pixel over its height. end: when the last frame ends.
    - declared: how long the file says it is, None where it does not.
    - damaged: what stopped or hindered the decoder. broken: frames and packets that were left out."""

    path: Path
    start: float = 0.0
    until: float | None = None
    sound: bool = False
    pixel: float = 1.0
    end: float = 0.0
    declared: float | None = None
    damaged: str = ""
    broken: int = 0

    def __iter__(self) -> Iterator[tuple[VideoFrame, float]]:
        """(frame, time), times rising. Raises `Unreadable` for what is no film, `MissingExtra` without PyAV."""
        for jump in (True, False) if self.start > NEAR else (False,):
            with _opened(self.path) as container:
                self.sound = bool(container.streams.audio)
                # Pictures of an album's cover are no film.
                streams = [s for s in container.streams.video if "attached_pic" not in str(s.disposition.name)]
                if not streams:
                    return
                stream = max(streams, key=lambda s: s.codec_context.width * s.codec_context.height)
                stream.thread_type = "AUTO"
                self.declared, self.pixel = _declared(container, stream, self.sound), _pixel(stream)
                zero = float(stream.start_time * stream.time_base) if stream.start_time else 0.0
                gap = 1 / float(stream.guessed_rate or stream.average_rate or 25)
                if jump and not _jump(container, self.start + zero):
                    continue
                frames = self._decoded(container, stream)
                first = next(frames, None)
                if jump and (first is None or first.time is None or first.time - zero > self.start):
                    continue  # nobody knows where that led to: from the beginning, then
                if first is not None:
                    yield from self._whole(chain([first], frames), zero, gap)
                return

    def _whole(self, frames: Iterator[VideoFrame], zero: float, gap: float) -> Iterator[tuple[VideoFrame, float]]:
        """The frames of the stretch that are not broken, with their times.

        - zero: what the file calls its beginning. gap: seconds from frame to frame where the file does not say."""
        last: float | None = None
        for frame in frames:
            time = frame.time - zero if frame.time is not None else 0.0 if last is None else last + gap
            if last is not None and time <= last:
                time = last + gap / 2  # a file whose times go back
            if self.until is not None and time >= self.until:
                self.end = self.until
                return
            length = float(frame.duration * frame.time_base) if frame.duration and frame.time_base else gap
            last, self.end = time, time + length
            if frame.is_corrupt:
                self.broken += 1
            elif time >= self.start:
                yield frame, time

    def _decoded(self, container: Any, stream: Any) -> Iterator[VideoFrame]:
        """Over broken packets, until the file ends or breaks off."""
        from av.error import EOFError as Ended
        from av.error import FFmpegError

        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets, None)
            except (FFmpegError, OSError) as error:
                self.damaged = reason(error)
                return
            if packet is None:
                return
            try:
                yield from packet.decode()
            except Ended:
                return
            except (FFmpegError, OSError) as error:
                self.damaged, self.broken = reason(error), self.broken + 1

    def nothing(self) -> str:
        """Why there was not one frame."""
        if self.damaged or self.broken:
            return f"not one whole frame in it ({self.damaged or 'all are broken'}): replace it"
        if self.start or self.until is not None:
            return f"no frame from {self.start:g} s to {'its end' if self.until is None else f'{self.until:g} s'}"
        return "sound without pictures, a film is wanted" if self.sound else "holds no film"

    def trouble(self) -> str:
        """What is wrong with a film of which something could be read; empty when nothing is."""
        if self.until is None and self.declared is not None and self.end < 0.9 * self.declared - 0.2:
            return f"breaks off at {self.end:.1f} of {self.declared:.1f} s"
        return f"{self.broken} broken frames were left out" if self.broken else ""


def _jump(container: Any, time: float) -> bool:
    """To a second before a time; False for a file that does not allow it."""
    from av.error import FFmpegError

    try:
        container.seek(int((time - 1) * 1_000_000), backward=True)
    except (FFmpegError, OSError):
        return False
    return True


def _declared(container: Any, stream: Any, sound: bool) -> float | None:
    if stream.duration:
        return float(stream.duration * stream.time_base)
    # The length of the whole file may be that of its sound.
    return container.duration / 1_000_000 if container.duration and not sound else None


def _pixel(stream: Any) -> float:
    ratio = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio
    return float(ratio) if ratio and 0.1 < ratio < 10 else 1.0


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        import av
    except ImportError:
        raise MissingExtra("reading clips", "video") from None
    if not path.exists():
        raise Unreadable(f"{path}: no such clip")
    if not path.is_file():
        raise Unreadable(f"{path}: is a folder, a clip is wanted")
    if path.stat().st_size == 0:
        raise Unreadable(f"{path}: the file is empty")
    try:
        # A playlist in a clip's clothes could name addresses to fetch from: files only.
        container = av.open(str(path.absolute()), metadata_errors="ignore", options={"protocol_whitelist": "file"})
    except (av.FFmpegError, OSError, ValueError) as error:
        raise Unreadable(f"{path}: not a clip that can be read ({reason(error)}): replace it") from error
    with container:
        yield container


def reason(error: Exception) -> str:
    """What FFmpeg says, in a few words and without the path."""
    return str(getattr(error, "strerror", None) or first_line(error, 80))


def picture(frame: VideoFrame, pixel: float = 1.0, side: int | None = None) -> Image:
    """A frame as 8-bit RGB: turned and mirrored as the file asks for, its pixels square.

    - pixel: width of its pixels over their height. side: the longest side it may have; larger ones are made smaller.

    Transparent parts show a light grey."""
    from PIL import Image

    width, height = frame.width * max(pixel, 1.0), frame.height / min(pixel, 1.0)
    shrink = min(1.0, (side or max(width, height)) / max(width, height))
    size = max(1, round(width * shrink)), max(1, round(height * shrink))
    clear = any(component.is_alpha for component in frame.format.components)
    plain = frame.reformat(width=size[0], height=size[1], format="rgba" if clear else "rgb24", interpolation="AREA")
    return open_picture(Image.fromarray(upright(plain.to_ndarray(), _matrix(frame))))


def _matrix(frame: VideoFrame) -> tuple[int, int, int, int]:
    """How the file wants its frames turned: (a, b, c, d) of x' = a x + c y, y' = b x + d y."""
    for entry in frame.side_data:
        if entry.type.name == "DISPLAYMATRIX":
            a, b, _, c, d, *_ = struct.unpack("=9i", bytes(entry))
            return a, b, c, d
    return 1, 0, 0, 1


def upright(values: np.ndarray, matrix: tuple[int, int, int, int]) -> np.ndarray:
    """[height, width, colour] under the map x' = a x + c y, y' = b x + d y, to the nearest quarter turn."""
    import numpy as np

    a, b, c, d = matrix
    if abs(b) > abs(a):
        values, across, down = values.transpose(1, 0, 2), c, b
    else:
        across, down = a, d
    if across < 0:
        values = values[:, ::-1]
    return np.ascontiguousarray(values[::-1] if down < 0 else values)
