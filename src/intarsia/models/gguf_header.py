"""The header of a GGUF file (version 2 and 3, little endian): its fields, and how long the file has to be.

The `gguf` package reads the same, but takes seconds for a vocabulary; a header is needed to say in an instant whether a
file is whole."""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

from intarsia.errors import BadInput, MissingExtra

# Value types of the format: its number -> struct letter. 8 is a string, 9 an array.
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9


@dataclass(frozen=True)
class Header:
    """`fields`: scalars and texts by key (arrays as their length). `tensors`: names. `size`: bytes of a whole file."""

    fields: dict[str, Any]
    tensors: tuple[str, ...]
    size: int


class _Tensor(NamedTuple):
    """kind: its type, as ggml counts them. offset: of its data, from the end of the header."""

    name: str
    shape: tuple[int, ...]
    kind: int
    offset: int


def tensor_types(file: Path) -> frozenset[int]:
    """The types of the tensors of `file`, as ggml counts them (0: F32, 1: F16, 2: Q4_0 ...). Raises `BadInput` when it
    is no GGUF file, or its header is damaged."""
    return frozenset(tensor.kind for tensor in _scan(file)[1])


def read_header(file: Path) -> Header:
    """Read the header of `file` and check that the file is whole.

    Raises `BadInput` when it is no GGUF file, of an unknown version, cut off or damaged; `MissingExtra` without the
    `gguf` package (its table of tensor types gives the sizes)."""
    try:
        from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
    except ImportError:
        raise MissingExtra("reading GGUF files", "gguf") from None
    size = file.stat().st_size
    fields, tensors, start = _scan(file)
    wanted = start
    for tensor in tensors:
        try:
            per_block, block_bytes = GGML_QUANT_SIZES[GGMLQuantizationType(tensor.kind)]
        except (ValueError, KeyError) as error:
            raise _damaged(file, size) from error
        wanted = max(wanted, start + tensor.offset + prod(tensor.shape) // per_block * block_bytes)
    if not tensors:
        raise BadInput(f"{file} holds no weights: perhaps only a vocabulary")
    if size < wanted:
        raise BadInput(f"{file} is cut off: {wanted:,} bytes wanted, {size:,} found. Copy or download it again")
    return Header(fields, tuple(tensor.name for tensor in tensors), wanted)


def _scan(file: Path) -> tuple[dict[str, Any], list[_Tensor], int]:
    """Fields, tensors, and where the data of the tensors begins."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        if stream.read(4) != b"GGUF":
            raise BadInput(f"{file} is no GGUF file: it should begin with the letters GGUF")
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as blob:
            reader = _Reader(blob)
            try:
                (version,) = reader.scalars("I")
                if version not in (2, 3):
                    raise BadInput(f"{file} is GGUF version {version}: versions 2 and 3 are read")
                count, keys = reader.scalars("QQ")
                fields = {reader.text(): reader.value(*reader.scalars("I")) for _ in range(keys)}
                tensors = []
                for _ in range(count):
                    name = reader.text()
                    (dims,) = reader.scalars("I")
                    tensors.append(_Tensor(name, reader.scalars("Q" * dims), *reader.scalars("IQ")))
            except (struct.error, ValueError, KeyError, OverflowError, MemoryError, RecursionError) as error:
                raise _damaged(file, size) from error
            align = fields.get("general.alignment", 32)
            return fields, tensors, -(-reader.at // align) * align


def _damaged(file: Path, size: int) -> BadInput:
    return BadInput(f"{file} is cut off or damaged in its header ({size:,} bytes): get it again")


class _Reader:
    """Reads values one after the other, from behind the magic letters."""

    def __init__(self, blob: mmap.mmap):
        self.blob, self.at = blob, 4

    def scalars(self, letters: str) -> tuple:
        layout = struct.Struct("<" + letters)
        values = layout.unpack_from(self.blob, self.at)
        self.at += layout.size
        return values

    def _skip(self, count: int) -> int:
        start, self.at = self.at, self.at + count
        if self.at > len(self.blob):
            raise ValueError("a value reaches over the end of the file")
        return start

    def text(self) -> str:
        (length,) = self.scalars("Q")
        start = self._skip(length)
        return self.blob[start : self.at].decode("utf-8", "replace")

    def _skip_texts(self, count: int) -> None:
        # Vocabularies and merges, 100,000 at a time: nothing is made of them.
        blob, at, last = self.blob, self.at, len(self.blob) - 8
        for _ in range(count):
            if at > last:
                raise ValueError("a value reaches over the end of the file")
            at += 8 + int.from_bytes(blob[at : at + 8], "little")
        self.at = at
        self._skip(0)

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.text()
        if kind != _ARRAY:
            return self.scalars(_SCALARS[kind])[0]
        inner, count = self.scalars("IQ")
        if inner in _SCALARS:
            self._skip(count * struct.calcsize("<" + _SCALARS[inner]))
        elif inner == _STRING:
            self._skip_texts(count)
        else:
            for _ in range(count):
                self.value(inner)
        return count
