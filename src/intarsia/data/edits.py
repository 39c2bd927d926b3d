"""Which edit of a fact a row is: columns of our own, those of CounterFact (Meng et al. 2022) and of files like it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from typing import Any

from intarsia.data.columns import find, need, text_of, type_name, value_of
from intarsia.data.records import FactEdit
from intarsia.errors import BadInput

PROMPT = ("prompt",)
SUBJECT = ("subject",)
TARGET = ("target", "target_new")
OLD = ("old", "target_true", "ground_truth")
PARAPHRASES = ("paraphrases", "paraphrase_prompts", "rephrase_prompt")
NEIGHBOURS = ("neighbours", "neighbors", "neighborhood_prompts", "locality_prompt")
ANSWERS = ("neighbour_targets", "neighbour_target", "locality_ground_truth")
CONSEQUENCES = ("consequences",)
REWRITE = "requested_rewrite"  # CounterFact keeps the fact itself in an object of this name


def holds_edit(row: Mapping[str, Any]) -> bool:
    """Whether a row is a fact to write: a subject, a target, and a prompt that names the subject."""
    row = _flat(row)
    if not all(find(list(row), names) for names in (PROMPT, SUBJECT, TARGET)):
        return False
    prompt, subject = value_of(row, PROMPT), value_of(row, SUBJECT)
    if not isinstance(prompt, str) or not isinstance(subject, str) or not subject.strip():
        return False
    return "{}" in prompt or "{subject}" in prompt or subject in prompt


def to_edit(row: Mapping[str, Any], where: str, group: str | None = None) -> FactEdit:
    """The row as an edit. Raises `BadInput` (beginning with `where`) for a missing column or a value of wrong type."""
    rewrite = REWRITE in row
    row = _flat(row)
    subject, old = text_of(row, SUBJECT, where), value_of(row, OLD)
    if not isinstance(old, str | None):
        raise BadInput(f"{where}: '{find(list(row), OLD)}' must be a text, is {type_name(old)}")
    neighbours = _texts(row, NEIGHBOURS, where)
    answers = _texts(row, ANSWERS, where)
    if rewrite and old and not answers:
        answers = (old,)  # CounterFact's neighbours have the same answer as the fact had
    if len(answers) == 1:
        answers = answers * len(neighbours)
    return FactEdit(
        text_of(row, PROMPT, where), text_of(row, TARGET, where), group, subject=subject, old=old or "",
        paraphrases=_texts(row, PARAPHRASES, where), neighbours=neighbours, neighbour_targets=answers,
        consequences=_pairs(row, where),
    )  # fmt: skip


def _flat(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """CounterFact's nested fact beside the rest, its `{"str": ...}` as texts."""
    inner = row.get(REWRITE)
    if not isinstance(inner, Mapping):
        return row
    plain = {key: value.get("str") if isinstance(value, Mapping) else value for key, value in inner.items()}
    return {**{key: value for key, value in row.items() if key != REWRITE}, **plain}


def _texts(row: Mapping[str, Any], names: tuple[str, ...], where: str) -> tuple[str, ...]:
    """A list of texts, or one; a cell of a table may hold the list as JSON."""
    value = value_of(row, names)
    if value in (None, "", []):
        return ()
    if isinstance(value, str) and value.lstrip().startswith("["):
        with contextlib.suppress(ValueError):  # a text that begins with a bracket
            value = json.loads(value)
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, list) or not all(isinstance(part, str) for part in value):
        raise BadInput(f"{where}: '{find(list(row), names)}' must be a text or a list of texts, is {type_name(value)}")
    return tuple(value)


def _pairs(row: Mapping[str, Any], where: str) -> tuple[tuple[str, str], ...]:
    if value_of(row, CONSEQUENCES) in (None, "", []):
        return ()
    column, value = need(row, CONSEQUENCES, where)
    pairs = value if isinstance(value, list) else [None]
    if not all(isinstance(p, list) and len(p) == 2 and all(isinstance(part, str) for part in p) for p in pairs):
        raise BadInput(f"{where}: '{column}' must be a list of [prompt, answer], is {type_name(value)}")
    return tuple((prompt, answer) for prompt, answer in pairs)
