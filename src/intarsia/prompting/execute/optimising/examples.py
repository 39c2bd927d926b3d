"""Labelled examples for a prompt: its inputs, and the answer that is wanted."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from intarsia.data import LabelledText
from intarsia.data.columns import GROUP, LABEL, TARGET, value_of
from intarsia.data.readers import rows
from intarsia.data.splits import split
from intarsia.errors import BadInput, did_you_mean
from intarsia.prompting.execute.evaluating import metrics
from intarsia.prompting.execute.prompt import Prompt

SHARES = {"train": 0.3, "dev": 0.35, "test": 0.35}
Metric = Callable[[str, str], float]
Value = Callable[[str, str, Mapping[str, Any]], float]
"""Of an answer, the wanted one, and the row: 0 to 1."""


@dataclass(frozen=True)
class Example(LabelledText):
    """- text: its inputs as JSON. label: the answer that is wanted. group: what is kept in one split.
    - inputs: by name. row: as it was read."""

    inputs: Mapping[str, Any] = field(default_factory=dict, compare=False)
    row: Mapping[str, Any] = field(default_factory=dict, compare=False)


def examples_of(prompt: Prompt, records: Iterable[Mapping[str, Any]], shots: str = "") -> list[Example]:
    """Examples out of rows: the columns named like the prompt's inputs, and one called label, answer, target or alike.

    - shots: the input that takes demonstrations: no column is asked for it.

    Raises `BadInput` with the number of the row."""
    names = [name for name in prompt.inputs if name != shots]
    out = []
    for number, row in enumerate(records, 1):
        inputs = {name: row[name] for name in names if name in row}
        rest = {name: value for name, value in row.items() if name not in names}
        answer = value_of(rest, (*TARGET[::-1], *LABEL))
        if answer is None or isinstance(answer, list | dict):
            raise BadInput(f"row {number}: has no answer; name a column `answer`, `target` or `label`, as a text")
        group = value_of(rest, GROUP)
        try:
            prompt.check(**inputs)
        except BadInput as error:
            raise BadInput(f"row {number}: {error}{did_you_mean(names[0], row) if names else ''}") from None
        text = json.dumps(inputs, ensure_ascii=False, sort_keys=True, default=str)
        out.append(Example(text, str(answer), None if group is None else str(group), (), inputs, dict(row)))
    return out


def read_examples(prompt: Prompt, path: str | Path, shots: str = "") -> list[Example]:
    """Examples out of a file that `intarsia.data` reads rows of (JSONL, JSON, CSV, TSV, Parquet)."""
    return examples_of(prompt, (row for _, row in rows(Path(path).expanduser())), shots)


def divided(examples: Sequence[Example], seed: int) -> dict[str, list[Example]]:
    """Train, dev and test: groups whole, classes alike where there are no groups. Raises `BadInput` for too few."""
    grouped = len({one.group for one in examples if one.group is not None}) > 1
    alike = not grouped and len({one.label for one in examples}) <= len(examples) // 6
    parts = split(list(examples), SHARES, by="label" if alike else "group", seed=seed)
    if short := [name for name in SHARES if len(parts.get(name, ())) < 2]:
        raise BadInput(
            f"{len(examples)} examples leave too few for {' and '.join(short)}: give a dozen or more, of several groups"
        )
    return parts


def metric_of(metric: str | Metric) -> Value:
    """What a metric makes of one answer.

    - metric: a function of the answer and the wanted one, or a name of evaluation's (`accuracy`, `exact`, `contains`,
      `rouge`, `regex:...`, `python:module:function`).

    Raises `BadInput` for a name that is none, and for figures that single answers have no part in (F1 of classes)."""
    if callable(metric):
        return lambda answer, wanted, row: float(metric(answer, wanted))
    found = metrics.metric_of(metric)
    if metric == "accuracy":
        return lambda answer, wanted, row: float(metrics.as_class(answer, [wanted]) == wanted)
    if found.each is None:
        raise BadInput(f"{metric}: says nothing of a single answer, which is what decides here: take accuracy")
    return found.each
