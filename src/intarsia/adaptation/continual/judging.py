"""`Judge`: the score of a task's rows, computed again only where it can have changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from torch import Tensor

from intarsia.adaptation.continual.reading import Reader, Weigh, by_row
from intarsia.adaptation.continual.rows import Row
from intarsia.adaptation.continual.stream import Task

How = Literal["exact", "match", "rouge"]
WORDS = 5  # mean words of an answer from which a task is judged by what is written
DIGITS = 3  # weights that agree so far give the same answers


def how_to_judge(task: Task, judge: str) -> How:
    """By exact match, or by ROUGE-L where answers are sentences."""
    if judge != "auto":
        return judge  # type: ignore[return-value]
    lengths = [len(example.target.split()) for example in task.test or task.train]
    return "rouge" if sum(lengths) / len(lengths) > WORDS else "exact"


class Judge:
    """- most: longest answer in tokens. remembers: whether blocks stay as they are once learned: then a row's score can
    only change with its weights, and is looked up where these are the same."""

    def __init__(self, reader: Reader, most: int, remembers: bool):
        self.reader, self.most, self.remembers = reader, most, remembers
        self._known: dict[tuple, float] = {}

    def forget(self) -> None:
        """A block that was learned changes: nothing that is known counts any more."""
        self._known.clear()

    def score(
        self, rows: Sequence[Row], how: How, serve: Callable[[Sequence[Row]], Tensor | None], task: str = ""
    ) -> float | None:
        """Mean score in percent; None for no rows."""
        if not rows:
            return None
        weights = serve(rows)
        keys = [self._key(row, how, None if weights is None else weights[i]) for i, row in enumerate(rows)]
        open_ = [i for i, key in enumerate(keys) if not self.remembers or key not in self._known]

        todo = [rows[i] for i in open_]
        if todo:
            fresh = dict(zip(open_, self._judged(todo, how, by_row(rows, weights), task), strict=True))
        else:
            fresh = {}
        scores = [fresh[i] if i in fresh else self._known[key] for i, key in enumerate(keys)]
        if self.remembers:
            self._known |= dict(zip(keys, scores, strict=True))
        return 100 * sum(scores) / len(scores)

    def _judged(self, rows: Sequence[Row], how: How, weigh: Weigh, task: str) -> list[float]:
        if how == "exact":
            return self.reader.exact(rows, weigh, task)
        judge = self.reader.match if how == "match" else self.reader.rouge
        return judge(rows, weigh, self.most, task)

    def _key(self, row: Row, how: How, weights: Tensor | None) -> tuple:
        used: tuple = ()
        if weights is not None:
            flat = weights.reshape(-1, weights.shape[-1])
            used = tuple(
                (layer, block, round(w, DIGITS))
                for layer, line in enumerate(flat.tolist())
                for block, w in enumerate(line)
                if round(w, DIGITS)
            )
        return row.prompt, row.answer, row.targets, how, used
