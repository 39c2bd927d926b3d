"""Turns by dialogue, and their labels from another of their columns."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from intarsia.data.columns import folded
from intarsia.data.records import LabelledText, Turn
from intarsia.errors import BadInput, Note, did_you_mean

L = TypeVar("L", bound=LabelledText)


def dialogues(turns: Sequence[Turn]) -> dict[str, list[Turn]]:
    """The turns of each dialogue by its name: dialogues in order of first appearance, turns by their number.

    Raises `BadInput` for a record that is no turn of a dialogue, or a number that is there twice in one: names of
    dialogues often count anew in each split, so splits are grouped one by one."""
    found: dict[str, dict[int, Turn]] = defaultdict(dict)
    for i, turn in enumerate(turns, 1):
        if not isinstance(turn, Turn) or not turn.group:
            raise BadInput(
                f"record {i} is a {type(turn).__name__} without a dialogue; wanted: turns (dialogue, turn, text)"
            )
        if turn.number in found[turn.group]:
            raise BadInput(
                f"the turn {turn.number} of dialogue '{turn.group}' is there twice; group the splits of a set one by "
                "one, or name its dialogues apart"
            )
        found[turn.group][turn.number] = turn
    return {name: [turn for _, turn in sorted(members.items())] for name, members in found.items()}


def labelled(records: Sequence[L], where: str = "the data") -> list[L]:
    """The records to learn from or to judge by: those with a label. A turn without one is context, and a `Note` says
    how many there are. Everything that takes labels takes them from here.

    Raises `BadInput` when there are records, but none has a label."""
    kept = [record for record in records if not isinstance(record, Turn) or record.label]
    if len(kept) < len(records):
        if not kept:
            raise BadInput(
                f"{where}: none of the {len(records):,} turns has a label; name the column: label or emotion"
            )
        warnings.warn(
            f"{where}: {len(records) - len(kept):,} of {len(records):,} turns have no label; they are context only",
            Note,
            stacklevel=3,
        )
    return kept


def relabelled(turns: Sequence[Turn], name: str) -> list[Turn]:
    """The turns with the labels of another column (`emotion`, `sentiment`, `intent`); where a turn's column is empty
    or missing, the turn is context.

    Raises `BadInput` that lists the columns when no turn has this one."""
    wanted = folded(name)
    if other := next((record for record in turns if not isinstance(record, Turn)), None):
        raise BadInput(f"labels of the column '{name}' are for turns of dialogues; given: {type(other).__name__}")
    columns = list(dict.fromkeys(column for turn in turns for column, _ in turn.fields))
    if wanted not in columns:
        raise BadInput(
            f"no column '{name}' to take labels from{did_you_mean(wanted, columns, n=1)}; "
            f"there are: {', '.join(columns) or 'none'}"
        )
    return [replace(turn, label=dict(turn.fields).get(wanted, "").strip()) for turn in turns]
