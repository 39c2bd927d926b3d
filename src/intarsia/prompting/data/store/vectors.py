"""The vectors of a store: rows of float16, each of length one, appended to a file that readers map.

A row is there once the table `vectors` names its place: rows behind the noted end are what a stop left, and are cut
off by the next writer. A row that no entry names any more is dead until the file is written anew, under another name,
so that those who read the old one go on."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from intarsia.errors import IntarsiaError, is_disk_full

Array = np.ndarray[Any, Any]
IN_MEMORY = 1 << 29
"""Bytes of float32 that a reader holds at most: it turns a larger file from float16 block by block at each search."""
BLOCK = 8192


def file_of(folder: Path, generation: int) -> Path:
    """The file with the vectors, as of a generation."""
    return folder / ("vectors.f16" if generation == 0 else f"vectors.{generation}.f16")


def append(file: Path, rows: Array, place: int) -> None:
    """Write rows from a place on, and wait until they are on the disk. What stood behind that place is cut off."""
    data = np.ascontiguousarray(rows, dtype="<f2")
    try:
        with file.open("r+b" if file.exists() else "w+b") as out:
            cut(file, place, data.shape[1])
            out.seek(place * data.shape[1] * 2)
            out.write(data.tobytes())
            out.flush()
            os.fsync(out.fileno())
    except OSError as error:
        if is_disk_full(error):
            raise IntarsiaError(f"{file}: the disk is full: what was added before this is kept") from None
        raise


def cut(file: Path, rows: int, width: int) -> None:
    """Cut off what lies behind so many rows."""
    if file.exists() and file.stat().st_size > rows * width * 2:
        os.truncate(file, rows * width * 2)


class Matrix:
    """The rows of a file as they are now: in memory as float32 where they fit, else mapped."""

    def __init__(self, file: Path, rows: int, width: int):
        self.rows, self.width = rows, width
        self._rows: Array = np.zeros((0, width), np.float32)
        if rows:
            if file.stat().st_size < rows * width * 2:
                raise IntarsiaError(f"{file}: vectors are missing: make them anew with `intarsia store reembed`")
            self._rows = np.memmap(file, "<f2", "r", shape=(rows, width))
            if rows * width * 4 <= IN_MEMORY:
                self._rows = np.asarray(self._rows, np.float32)

    @staticmethod
    def of(rows: Array) -> Matrix:
        """Rows that are in memory, [row, width]."""
        made = Matrix(Path(), 0, rows.shape[1])
        made.rows, made._rows = len(rows), rows
        return made

    def take(self, places: Array) -> Array:
        """[place, width] float32."""
        return np.asarray(self._rows[places], np.float32)

    def nearest(self, queries: Array, live: Array, k: int) -> list[tuple[Array, Array]]:
        """(places, cosines) of the k rows nearest to each query [query, width], best first, among live places (sorted).

        Exact, in one pass over the file for all queries."""
        best: list[tuple[Array, Array]] = [(np.zeros(0, np.int64), np.zeros(0, np.float32)) for _ in queries]
        every = len(live) == self.rows
        for start in range(0, len(live), BLOCK):
            places = live[start : start + BLOCK]
            rows = self._rows[start : start + BLOCK] if every else self._rows[places]
            scores = queries @ np.asarray(rows, np.float32).T
            for i, row in enumerate(scores):
                some = np.argpartition(-row, k - 1)[:k] if len(row) > k else np.arange(len(row))
                both = np.concatenate([best[i][0], places[some]]), np.concatenate([best[i][1], row[some]])
                order = np.lexsort((both[0], -both[1]))[:k]
                best[i] = both[0][order], both[1][order]
        return best
