"""Statistics that were computed once are kept, by text and model: a detector is calibrated, asked and judged on the
same texts many times.

    <cache>/detection/statistics.sqlite    key -> the statistics of one text; no text is stored, only its hash"""

from __future__ import annotations

import hashlib
import io
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from intarsia.detection.statistics.tokens import CONTEXT, FIELDS, WINDOW, TokenStatistics, token_statistics
from intarsia.models.cache import cache_dir, disk_errors
from intarsia.models.weights import weights_key

if TYPE_CHECKING:
    from intarsia.models import Model

FORMAT = "3"
AT_ONCE = 64  # texts between two writes: what a killed run loses
WIDE = {"rank": np.int64, "spans": np.int64, "prefixes": np.int64, "states": np.float32}  # all else is float64
KINDS = (np.float32, np.int32, np.float32, np.float32, np.float32)


class Kept:
    """Token statistics of one scoring model (and reference model), read from a file where they are there already.

    - path: default: in the cache; None is not kept at all."""

    def __init__(
        self, model: Model, reference: Model | None = None, *, path: Path | str | None = "", window: int = WINDOW,
        context: int = CONTEXT,
    ):  # fmt: skip
        self.model, self.reference, self.window, self.context = model, reference, window, context
        self.path = cache_dir() / "detection" / "statistics.sqlite" if path == "" else path and Path(path)
        keys = [FORMAT, *(weights_key(m) for m in (model, reference) if m is not None)]
        self._of = " ".join([*keys, str(window), str(context)])

    def __call__(self, texts: Sequence[str], most: int | None = None) -> list[TokenStatistics]:
        """As `token_statistics`, in the same order. A text whose whole is kept is not read again for its beginning."""
        different = list(dict.fromkeys(texts))
        found: dict[str, TokenStatistics] = {}
        with self._file() as file:
            if file is not None:
                for text in different:
                    if (kept := self._read(file, text, most)) is not None:
                        found[text] = kept
            rest = sorted((t for t in different if t not in found), key=len)
            for start in range(0, len(rest), AT_ONCE):
                some = rest[start : start + AT_ONCE]
                for text, made in zip(some, self._made(some, most), strict=True):
                    found[text] = made
                    if file is not None:
                        file.execute(
                            "insert or replace into kept values (?, ?)", (self._key(text, most), _packed(made))
                        )
                if file is not None:
                    file.commit()
        return [found[text] for text in texts]

    def _made(self, texts: Sequence[str], most: int | None) -> list[TokenStatistics]:
        return token_statistics(
            self.model, texts, reference=self.reference, most=most, window=self.window, context=self.context
        )

    def _key(self, text: str, most: int | None) -> bytes:
        return hashlib.blake2b(f"{self._of} {most} {text}".encode(), digest_size=16).digest()

    def _read(self, file: sqlite3.Connection, text: str, most: int | None) -> TokenStatistics | None:
        for length in dict.fromkeys((most, None)):
            row = file.execute("select value from kept where key = ?", (self._key(text, length),)).fetchone()
            if row is not None:
                return _unpacked(row[0]).part(slice(most))
        return None

    @contextmanager
    def _file(self) -> Iterator[sqlite3.Connection | None]:
        if self.path is None:
            yield None
            return
        with disk_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self.path, timeout=60)) as file:
                file.execute("create table if not exists kept (key blob primary key, value blob) without rowid")
                yield file


def _packed(of: TokenStatistics) -> bytes:
    out = io.BytesIO()
    values = {name: getattr(of, name).astype(kind) for name, kind in zip(FIELDS, KINDS, strict=True)}
    np.savez(out, spans=of.spans.astype(np.int32), prefixes=of.prefixes, states=of.states.astype(np.float16), **values)
    return out.getvalue()


def _unpacked(raw: bytes) -> TokenStatistics:
    with np.load(io.BytesIO(raw)) as values:
        made = {name: values[name].astype(WIDE.get(name, float)) for name in values.files}
    return TokenStatistics(**made)
