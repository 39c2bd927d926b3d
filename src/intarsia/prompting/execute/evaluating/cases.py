"""The records of an evaluation set: what a prompt is given, and the answer that is wanted."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from intarsia.data.columns import GROUP, LABEL, TARGET, find
from intarsia.data.readers import rows
from intarsia.errors import BadInput, did_you_mean
from intarsia.prompting.tracing import hash_of, pack

if TYPE_CHECKING:
    from intarsia.prompting.execute.prompt import Prompt

MOST_LABELS = 20  # gold values that are scored as labels without being asked for
LONGEST_LABEL = 40


@dataclass(frozen=True)
class Case:
    """One record. where: file and line, for messages; key: hash of the record; gold: None where it has none."""

    where: str
    key: str
    row: Mapping[str, Any]
    inputs: Mapping[str, Any]
    gold: str | None
    group: str | None = None


def read_set(path: str | Path, limit: int | None = None, seed: int = 0) -> list[tuple[str, dict[str, Any]]]:
    """Rows of a set, each with its place; `limit` of them drawn by `seed`, in their order.

    Raises `BadInput` for an empty set and what cannot be read."""
    path = Path(path).expanduser()
    if path.is_file() and path.stat().st_size == 0:
        raise BadInput(f"{path}: the set is empty")
    found = list(rows(path))
    if not found:
        raise BadInput(f"{path}: the set is empty")
    if limit is not None and limit < len(found):
        if limit < 1:
            raise BadInput(f"limit is {limit}: give at least 1")
        found = [found[i] for i in sorted(random.Random(seed).sample(range(len(found)), limit))]
    return found


def cases_of(
    prompt: Prompt, given: Iterable[tuple[str, Mapping[str, Any]]], gold: str | None = None, *, needed: bool = True
) -> list[Case]:
    """The cases of a prompt: columns named like its inputs, and the wanted answer.

    - gold: the column of the answer; default: one called answer, target, label or alike that is no input.
    - needed: whether a metric compares with the answer.

    Raises `BadInput` with the place for an input that is missing or of the wrong type, and for a missing answer."""
    out = []
    for where, row in given:
        inputs = {name: row[name] for name in prompt.inputs if name in row}
        for name, spec in prompt.inputs.items():
            if name not in row and spec.required:
                hint = did_you_mean(name, row)
                raise BadInput(
                    f"{where}: no column '{name}', which {prompt.name} takes{hint}; present: {', '.join(row)}"
                )
        try:
            prompt.check(**inputs)
        except BadInput as error:
            raise BadInput(f"{where}: {error}") from None
        out.append(Case(where, key_of(row), row, inputs, _gold(where, row, inputs, gold, needed), _group(row)))
    return out


def key_of(row: Mapping[str, Any]) -> str:
    """Hash of a record: equal for equal columns, in any order."""
    return hash_of(pack(dict(row)))


def _gold(where: str, row: Mapping[str, Any], inputs: Mapping[str, Any], gold: str | None, needed: bool) -> str | None:
    column = gold
    if column is None:
        column = find([name for name in row if name not in inputs], ("gold", *TARGET[::-1], *LABEL))
    elif column not in row:
        raise BadInput(f"{where}: no column '{column}' (--gold){did_you_mean(column, row)}; present: {', '.join(row)}")
    value = None if column is None else row[column]
    if value is None or value == "":
        if needed:
            said = f"its '{column}' is empty" if column is not None else "it has no answer: name the column by --gold"
            raise BadInput(f"{where}: {said}; every record needs the answer that is wanted")
        return None
    return text_of(value)


def text_of(value: Any) -> str:
    """A wanted value as text; what is no text as JSON, in one form."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)


def _group(row: Mapping[str, Any]) -> str | None:
    column = find(row, GROUP)
    return None if column is None or row[column] is None else str(row[column])


def labels_of(cases: Sequence[Case], given: Sequence[str] | None = None) -> list[str]:
    """Labels that answers are scored among: those given, else the gold values where they are few and short; else none.

    Raises `BadInput` for a gold value that is not among those given, and for labels given twice or fewer than two."""
    if given is not None:
        if len(given) < 2 or len(set(given)) < len(given):
            raise BadInput(f"labels: {', '.join(given) or 'none'}: give two or more, each once")
        for case in cases:
            if case.gold is not None and case.gold not in given:
                raise BadInput(
                    f"{case.where}: '{case.gold}' is not among the labels{did_you_mean(case.gold, given)}; "
                    f"they are {', '.join(given)}"
                )
        return list(given)
    values = sorted({case.gold for case in cases if case.gold is not None})
    few = 2 <= len(values) <= min(MOST_LABELS, len(cases) / 2)
    return values if few and all(len(v) <= LONGEST_LABEL and "\n" not in v for v in values) else []
