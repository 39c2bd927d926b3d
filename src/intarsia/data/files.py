"""Files as readers want them: on the disk, packed, or inside an archive; and folders of such files."""

from __future__ import annotations

import gzip
import io
import lzma
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from intarsia.errors import BadInput, did_you_mean, first_line

PACKED = (".gz", ".xz")
ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".zip")
LARGEST = 4 * 2**30
"""The most bytes that an archive's files may have unpacked: they are held in memory."""

BROKEN = (EOFError, OSError, zlib.error, lzma.LZMAError)
"""What reading a packed file raises when it is cut off or damaged."""


def must_exist(path: Path) -> None:
    """Raises `BadInput` with the names nearest to it where there is no such file or folder."""
    if not path.exists():
        near = did_you_mean(path.name, [p.name for p in path.parent.iterdir()]) if path.parent.is_dir() else ""
        raise BadInput(f"{path}: no such file{near}")


def natural(name: str) -> tuple[list[str | int], str]:
    """A key to sort names by, so that 2 stands before 10 and 2024-02 before 2024-10."""
    # Texts and numbers take turns, so that a text is never compared with a number.
    parts = re.split(r"(\d+)", name.casefold())
    return [int(part) if place % 2 else part for place, part in enumerate(parts)], name


def split_name(name: str) -> tuple[str, str, str]:
    """Stem, format and packing of a file's name: `a.b.TSV.gz` is `a.b`, `.tsv`, `.gz`."""
    path, packing = PurePosixPath(name), ""
    if path.suffix.lower() in PACKED:
        path, packing = path.with_suffix(""), path.suffix.lower()
    return path.stem, path.suffix.lower(), packing


def unpacked(path: Path) -> bytes:
    """The bytes of a file, unpacked where its name ends in one of `PACKED`. Raises `BadInput` where that fails."""
    opened = {".gz": gzip.open, ".xz": lzma.open}.get(split_name(path.name)[2], Path.open)
    try:
        with opened(path, "rb") as file:
            return file.read()
    except BROKEN as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise BadInput(f"{path}: cannot be read: {reason}") from None


@dataclass(frozen=True)
class Source:
    """A file that can be opened again and again.

    - label: what messages call it. name: its own name, with suffixes. size: in bytes, as it lies there.
    - raw: opens its bytes as they lie there."""

    label: str
    name: str
    size: int
    raw: Callable[[], BinaryIO]

    @property
    def stem(self) -> str:
        return split_name(self.name)[0]

    @property
    def suffix(self) -> str:
        """The suffix that says the format, in lower case: `.tsv` of `a.TSV.gz`."""
        return split_name(self.name)[1]

    @contextmanager
    def stream(self) -> Iterator[io.BufferedReader]:
        """Its unpacked bytes, without a byte order mark. Raises `BadInput` for UTF-16, one of `BROKEN` for damage."""
        with ExitStack() as stack:
            file = stack.enter_context(self.raw())
            match split_name(self.name)[2]:
                case ".gz":
                    file = stack.enter_context(gzip.open(file))
                case ".xz":
                    file = stack.enter_context(lzma.open(file))
            reader = io.BufferedReader(file)  # type: ignore[type-var]
            start = reader.peek(3)[:3]
            if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
                # Refused here and not line by line: half of its lines would pass for UTF-8.
                raise BadInput(f"{self.label}: line 1: UTF-16, wanted UTF-8; convert it: iconv -f utf-16 -t utf-8")
            if start == b"\xef\xbb\xbf":
                reader.read(3)
            yield reader


@dataclass
class Folder:
    """The files and folders in a folder, by their names, wherever it lies. `label` is what messages call it."""

    label: str
    name: str
    files: dict[str, Source] = field(default_factory=dict)
    folders: dict[str, Folder] = field(default_factory=dict)


def source_on_disk(path: Path) -> Source:
    return Source(str(path), path.name, path.stat().st_size, lambda: path.open("rb"))


def folder_on_disk(path: Path, wanted: Callable[[str], bool], depth: int = 2) -> Folder:
    """A folder and the folders in it, `depth` levels down: all files whose name is `wanted` and not hidden."""
    found = Folder(str(path), path.resolve().name)
    try:
        inside = list(path.iterdir())
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {first_line(error)}") from None
    for inner in inside:
        if _hidden(inner.name):
            continue
        if inner.is_dir():
            if depth:
                found.folders[inner.name] = folder_on_disk(inner, wanted, depth - 1)
        elif wanted(inner.name) and inner.is_file():
            found.files[inner.name] = source_on_disk(inner)
    return found


def is_archive(path: Path) -> bool:
    return path.name.lower().endswith(ARCHIVES)


def folder_in_archive(path: Path, wanted: Callable[[str], bool]) -> Folder:
    """What an archive holds, read into memory: all files whose name is `wanted` and not hidden.

    Nothing is written to the disk, links and devices are passed over. Raises `BadInput` for a name that leads out of
    the archive, for more than `LARGEST` bytes, for a password, and for a damaged archive."""
    name = next(path.name[: -len(end)] for end in sorted(ARCHIVES, key=len, reverse=True) if _ends(path, end))
    root, total = Folder(str(path), name), 0
    members = _zip_members if _ends(path, ".zip") else _tar_members
    try:
        for member, size, data in members(path):
            place = PurePosixPath(member)
            if place.is_absolute() or ".." in place.parts:
                raise BadInput(f"{path}: holds the name '{member}', which leads out of it")
            if any(_hidden(part) for part in place.parts) or not wanted(place.name):
                continue
            # What a member says of its size is the most that it gives, so this is known before it is unpacked.
            if (total := total + size) > LARGEST:
                raise BadInput(f"{path}: over {LARGEST >> 20} MiB of files; unpack it and give the folder")
            here = root
            for part in place.parts[:-1]:
                here = here.folders.setdefault(part, Folder(f"{here.label.rstrip('/')}/{part}", part))
            content = data()
            here.files[place.name] = Source(
                f"{path}: {place}", place.name, len(content), lambda content=content: io.BytesIO(content)
            )
    except (*BROKEN, tarfile.TarError, zipfile.BadZipFile, NotImplementedError) as error:
        raise BadInput(f"{path}: not a readable archive: {first_line(error)}") from None
    return root


def _tar_members(path: Path) -> Iterator[tuple[str, int, Callable[[], bytes]]]:
    # In the order of the archive: going back in a packed one means to unpack it again from its start.
    with tarfile.open(path) as archive:
        for member in archive:
            if member.isreg():
                yield member.name, member.size, lambda member=member: archive.extractfile(member).read()


def _zip_members(path: Path) -> Iterator[tuple[str, int, Callable[[], bytes]]]:
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if member.is_dir() or stat.S_ISLNK(member.external_attr >> 16):
                continue
            if member.flag_bits & 1:
                raise BadInput(f"{path}: '{member.filename}' needs a password; unpack it and give the folder")
            yield member.filename, member.file_size, lambda member=member: archive.read(member)


def _hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _ends(path: Path, suffix: str) -> bool:
    return path.name.lower().endswith(suffix)
