"""Made clips for tests: any codec, rotation, times and sound, out of arrays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

FORMATS = {
    "h264.mp4": ("libx264", "yuv420p", {"crf": "18", "preset": "ultrafast"}),
    "h264.mov": ("libx264", "yuv444p", {"crf": "18", "preset": "ultrafast"}),
    "mpeg4.avi": ("mpeg4", "yuv420p", {"b": "2000000"}),
    "mpeg4.mkv": ("mpeg4", "yuv420p", {"b": "2000000"}),
    "mjpeg.avi": ("mjpeg", "yuvj420p", {"qmin": "2", "qmax": "5"}),
    "vp9.webm": ("libvpx-vp9", "yuv420p", {"crf": "20", "b": "0", "deadline": "realtime", "cpu-used": "8"}),
    "h264.mpg.m2ts": ("libx264", "yuv420p", {"crf": "18", "preset": "ultrafast"}),
    "ffv1.mkv": ("ffv1", "yuv444p", {}),
    "loop.gif": ("gif", "rgb8", {}),
}
"""Containers and codecs by the name of a file: (codec, pixel format, options)."""


def film(
    path: Path, pictures: Iterable[np.ndarray], *, rate: int = 10, kind: str | None = None,
    times: Sequence[float] | None = None, rotation: int = 0, mirrored: bool = False, sound: float = 0.0,
    pixel: Fraction | None = None, options: dict[str, str] | None = None, **container: Any,
) -> Path:  # fmt: skip
    """Write pictures [height, width, 3] as a clip.

    - kind: a name of `FORMATS`; by default the file's own, or H.264. times: of each picture, in seconds.
    - rotation: degrees counter-clockwise that a player is to turn it by, mirrored after it. sound: seconds of a tone.
    - options: of the codec. container: further arguments of `av.open`."""
    codec, pixels, given = FORMATS.get(kind or path.name, FORMATS["h264.mp4"])
    pictures = list(pictures)
    with av.open(str(path), "w", **container) as out:
        stream = out.add_stream(codec, rate=rate, options={**given, **(options or {})})
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = pixels
        if pixel is not None:
            stream.codec_context.sample_aspect_ratio = pixel
        if rotation or mirrored:
            stream.set_display_rotation(rotation, hflip=mirrored)
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        voice = out.add_stream("aac", rate=16000) if sound else None
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = round(times[number] * 1000), Fraction(1, 1000)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
        if voice is not None:
            tone = np.sin(np.arange(int(sound * 16000)) * 0.2).astype(np.float32)[None]
            heard = av.AudioFrame.from_ndarray(tone, format="fltp", layout="mono")
            heard.sample_rate = 16000
            out.mux(voice.encode(heard))
            out.mux(voice.encode())
    return path


def scenery(seed: int, height: int = 48, width: int = 64, dots: int = 9) -> np.ndarray:
    """A picture of large soft shapes over a colour: no two seeds are alike."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (dots * 2 // 3, dots, 3), dtype=np.uint8))
    return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))


def scenes(lengths: Sequence[int], seed: int = 0, **size: int) -> list[np.ndarray]:
    """Still scenes one after the other, of so many frames each."""
    return [scenery(seed + i, **size) for i, length in enumerate(lengths) for _ in range(length)]


def quarters(height: int = 48, width: int = 64) -> np.ndarray:
    """Red above left, green above right, blue below left, white below right."""
    out = np.zeros((height, width, 3), np.uint8)
    top, left = height // 2, width // 2
    out[:top, :left, 0] = out[:top, left:, 1] = out[top:, :left, 2] = 255
    out[top:, left:] = 255
    return out
