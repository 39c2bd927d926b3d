"""`SessionRunner`: an engine that a model was exported for, as a `Runner`."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch

from intarsia.errors import BadInput
from intarsia.models.runtime.session import Session, Step
from intarsia.prompting.base.errors import BackendError
from intarsia.prompting.base.local.answer import common
from intarsia.prompting.base.local.runner import Work
from intarsia.prompting.base.token_tree import TokenTree

SPARE = 8  # rows that are kept, when they have ended, for prompts that begin alike


class SessionRunner:
    """Rows over a session. Those that ended stay until their places are needed, and are gone on from.

    - rows: that are worked on at once."""

    def __init__(self, session: Session, rows: int):
        self.session = session
        self.rows = 1 if session.rows == 1 else rows
        self.vocabulary, self.context_length, self.most = session.vocabulary, session.context_length, session.places
        self._free = list(range(session.rows))
        self._ids: dict[int, list[int]] = {}  # what each row holds
        self._needs: dict[int, int] = {}  # places that rows under way may come to need
        self._ended: OrderedDict[int, None] = OrderedDict()  # the least recently used first

    @property
    def bytes(self) -> int:
        return 0  # the engine does not say

    def open(self, ids: Sequence[int], room: int, adapter: str | None = None) -> tuple[int, int]:
        source, shared = -1, 0
        for row, held in self._ids.items():
            if (both := common(ids, held)) > shared:
                source, shared = row, both
        shared = min(shared, max(len(ids) - 1, 0))
        if source >= 0 and source in self._ended and (self.session.rows == 1 or not self._free):
            row = source  # nowhere to copy to: go on from there, and forget the rest
            del self._ended[row]
            self.session.cut(row, shared)
        else:
            row = self._empty_row(keep=source)
            if shared and source != row:
                self.session.copy(source, row, shared)
                if source in self._ended:
                    self._ended.move_to_end(source)
        self._ids[row], self._needs[row] = list(ids[:shared]), len(ids) + room
        self._make_room()
        return row, shared

    def run(self, work: Sequence[Work]) -> torch.Tensor:
        for one in work:
            held = self._ids[one.row]
            self._ids[one.row] = [*held[: one.start], *one.ids]
        found = self.session.read([Step(one.row, one.ids, one.start) for one in work])
        return torch.cat([torch.from_numpy(rows) for rows in found])

    def branch(self, work: Sequence[Work], trees: Sequence[TokenTree]) -> list[torch.Tensor]:
        """An engine of this kind has no trees: each way from the prompt to an end is a row of its own for a moment."""
        first = self.run(work)
        out = [first.new_empty((1 + len(tree), first.shape[1])) for tree in trees]
        for number, logits in enumerate(first):
            out[number][0] = logits
        todo = [(number, path) for number, tree in enumerate(trees) for path in tree.paths]
        at_once = 1 if self.session.rows == 1 else max(1, len(self._free) + len(self._ended))
        for start in range(0, len(todo), at_once):
            self._read_paths(work, trees, todo[start : start + at_once], out)
        return out

    def _read_paths(
        self, work: Sequence[Work], trees: Sequence[TokenTree], paths: Sequence[tuple[int, list[int]]],
        out: Sequence[torch.Tensor],
    ) -> None:  # fmt: skip
        """Logits after each token of some paths, each of the tree of this number, into `out`."""
        rows, steps = [], []
        try:
            for number, path in paths:
                row, end = work[number].row, work[number].start + len(work[number].ids)
                if self.session.rows > 1:
                    row = self._empty_row(keep=-1)
                    rows.append(row)
                    self._ids[row], self._needs[row] = [], end + len(path)
                    self._make_room()
                    self.session.copy(work[number].row, row, end)
                steps.append(Step(row, [trees[number].tokens[i] for i in path], end))  # type: ignore[misc]
            for (number, path), found in zip(paths, self.session.read(steps, every=True), strict=True):
                out[number][1:][path] = torch.from_numpy(found)
        finally:
            for row in rows:
                del self._needs[row]
                self._forget(row)
            if self.session.rows == 1:
                self.session.cut(work[0].row, work[0].start + len(work[0].ids))

    def keep(self, row: int, ids: Sequence[int]) -> None:
        """Nothing to do: a row that ends is kept as it is."""

    def close(self, row: int) -> None:
        self._needs.pop(row, None)
        if self._ids.get(row):
            self._ended[row] = None
        else:
            self._forget(row)

    def reset(self) -> None:
        for row in list(self._ids):
            self._forget(row)
        self._needs.clear()

    def _empty_row(self, keep: int) -> int:
        if not self._free:
            if not (others := [row for row in self._ended if row != keep]):
                raise BackendError("all rows of the engine are in use: try again in a moment", retryable=True)
            self._forget(others[0])
        return self._free.pop()

    def _make_room(self) -> None:
        """Forget ended rows until what is under way fits. Places that rows share are counted for each."""
        while self._ended and self._used() > self.session.places:
            self._forget(next(iter(self._ended)))

    def _used(self) -> int:
        return sum(self._needs.values()) + sum(len(self._ids[row]) for row in self._ended)

    def _forget(self, row: int) -> None:
        self.session.cut(row, 0)
        self._ids.pop(row, None)
        self._ended.pop(row, None)
        self._free.append(row)


def check_session(runtime: Any) -> None:
    """Raise `BadInput` for an engine, or its class, that cannot be asked step by step."""
    if not hasattr(runtime, "session"):
        name, why = getattr(runtime, "name", type(runtime).__name__), getattr(runtime, "no_session", "")
        raise BadInput(
            f"the engine {name} cannot be asked step by step{f' ({why})' if why else ''}: open the model itself, or "
            "its gguf, onnx-genai or openvino export"
        )
