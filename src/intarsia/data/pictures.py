"""Pictures: find them in a folder, open them whatever they were saved as, and pass over those that cannot be read."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from intarsia.data.records import ImageText
from intarsia.errors import BadInput, MissingExtra, Note, first_line

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
GREY = 242
"""What shows through the transparent parts of a picture: a light grey (0.95), so that black and white both show."""


class Unreadable(BadInput):
    """One picture that cannot be read. Where there are several, it is passed over and counted."""


def open_picture(source: str | Path | bytes | Image) -> Image:
    """One picture as 8-bit RGB, upright.

    - source: a path, the bytes of a file, or a Pillow image.

    The camera's orientation is applied, transparent parts show a light grey, grey-scale, palette, CMYK and 16-bit
    pictures become RGB, and of an animation the first frame is taken. Raises `Unreadable` when there is no whole
    picture in it."""
    image = _pillow()
    from PIL import ImageOps

    name = str(source) if isinstance(source, str | Path) else "the picture"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if isinstance(source, image.Image):
                picture = source
            else:
                picture = image.open(io.BytesIO(source) if isinstance(source, bytes) else source)
            picture.load()
            return _rgb(ImageOps.exif_transpose(picture))
    except FileNotFoundError:
        raise Unreadable(f"{name}: no such picture") from None
    except IsADirectoryError:
        raise Unreadable(f"{name}: is a folder, a picture is wanted") from None
    except image.DecompressionBombError:
        # A small file can claim a size that no memory holds.
        raise Unreadable(f"{name}: too many pixels, over {2 * image.MAX_IMAGE_PIXELS:,}: make it smaller") from None
    except Exception as error:  # decoders raise whatever they like at broken data
        raise Unreadable(f"{name}: not a picture that can be read ({_reason(error)}): replace it") from error


def _reason(error: Exception) -> str:
    return "unknown format" if type(error).__name__ == "UnidentifiedImageError" else first_line(error, 80)


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError:
        raise MissingExtra("reading pictures", "vision") from None
    return Image


def _rgb(picture: Image) -> Image:
    image = _pillow()
    if picture.mode in ("I;16", "I;16L", "I;16B", "I;16N", "I"):
        # Pillow would cut these off at 255. Whole numbers of 16 bits, whatever the mode says.
        high = max(picture.getextrema()[1], 0)
        scale = 1 / 257 if high > 255 else 1.0
        return picture.convert("F").point(lambda value: value * scale).convert("L").convert("RGB")
    if picture.mode == "F":
        low, high = picture.getextrema()
        shift, stretch = (low, 255 / (high - low)) if high > low else (0.0, 0.0)
        return picture.point(lambda value: (value - shift) * stretch).convert("L").convert("RGB")
    if picture.mode in ("RGBA", "LA", "La", "RGBa", "PA") or "transparency" in picture.info:
        over = picture.convert("RGBA")
        under = image.new("RGBA", over.size, (GREY, GREY, GREY, 255))
        return image.alpha_composite(under, over).convert("RGB")
    return picture.convert("RGB")


def pictures_in(folder: str | Path) -> list[ImageText]:
    """The pictures of a folder and the folders in it, in the order of their paths, by suffix; hidden ones left out.

    Where every picture lies in one of two or more folders directly inside, that folder's name is its label, as in
    `cats/1.jpg`, `dogs/1.jpg`. Raises `BadInput` when there are none."""
    folder = Path(folder)
    found = sorted(
        (path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and not _hidden(path, folder)),
        key=lambda path: [_natural(part) for part in path.relative_to(folder).parts],
    )
    files = [path for path in found if path.is_file()]
    if not files:
        raise BadInput(f"{folder}: no pictures in it; known: {', '.join(SUFFIXES)}")
    parents = [path.relative_to(folder).parts[:-1] for path in files]
    labelled = all(len(parts) == 1 for parts in parents) and len(set(parents)) > 1
    return [
        ImageText(str(path), label=parts[0] if labelled else None) for path, parts in zip(files, parents, strict=True)
    ]


def holds_pictures(folder: Path) -> bool:
    """Whether a folder, or one in it, holds a file with a picture's suffix."""
    return any(path.suffix.lower() in SUFFIXES and not _hidden(path, folder) for path in folder.rglob("*"))


def _hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in path.relative_to(folder).parts)


def _natural(name: str) -> list[tuple[int, int, str]]:
    """So that 2.png stands before 10.png."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part.casefold()) for part in re.split(r"(\d+)", name)]


@dataclass
class Gallery:
    """Pictures that could be read, one by one, and those that could not.

    - records: the records as given.
    - skipped: the reason for each picture that was passed over, by its place in `records`."""

    records: list[Any]
    skipped: dict[int, str] = field(default_factory=dict)

    def __iter__(self) -> Iterator[tuple[int, Any, Image]]:
        """(place, record, picture) of each readable one, in order. Only one is held at a time."""
        for place, record in enumerate(self.records):
            if place in self.skipped:
                continue
            try:
                picture = open_picture(source_of(record))
            except Unreadable as error:
                self.skipped[place] = str(error)
                continue
            yield place, record, picture

    def tell(self) -> None:
        """Say in one note how many were passed over and which; raises `BadInput` when not one could be read."""
        if not self.skipped:
            return
        first = next(iter(self.skipped.values()))
        if len(self.skipped) == len(self.records):
            raise BadInput(f"none of {len(self.records)} pictures can be read; the first: {first}")
        count = f"{len(self.skipped)} of {len(self.records)} pictures"
        warnings.warn(f"{count} cannot be read and were left out; the first: {first}", Note, stacklevel=3)


def source_of(record: Any) -> Any:
    """Where a record's picture lies: its `image`, or the record itself when it is a path, bytes or a Pillow image."""
    if (image := getattr(record, "image", None)) is not None:
        return image
    if isinstance(record, str | Path | bytes) or hasattr(record, "getextrema"):
        return record
    raise BadInput(
        f"a picture is wanted, given a {type(record).__name__}: give a folder of pictures, paths, or records "
        "with `image` (ImageText, ImageQuestion)"
    )


def gallery(records: Iterable[Any]) -> Gallery:
    """Records with `image`, paths, bytes or Pillow images as a `Gallery`. Raises `BadInput` for anything else."""
    listed = [records] if isinstance(records, str | Path | bytes) else list(records)
    if not listed:
        raise BadInput("no pictures given: give a folder of pictures, or a file with a column 'image'")
    for record in listed:
        source_of(record)
    return Gallery(listed)
