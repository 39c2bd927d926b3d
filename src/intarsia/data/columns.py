"""Cells of a row by the usual names of their columns, and the errors where one is missing or of the wrong type."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from intarsia.errors import BadInput, did_you_mean

TEXT = ("text", "utterance", "sentence", "content", "document", "body")
LABEL = ("label", "emotion", "class", "category", "sentiment", "topic")
MESSAGES = ("messages", "conversations", "conversation", "dialogue")
PROMPT = ("prompt", "instruction", "question", "source")
TARGET = ("target", "completion", "response", "output", "answer")
RATIONALE = ("rationale", "rationales", "evidence")
TASK = ("task", "task_name")
TARGETS = ("outputs", "targets", "answers", "references")
IMAGE = ("image", "file_name", "image_path", "picture", "path")
CAPTION = ("text", "caption", "sentence", "title", "description")
QUESTION = ("question",)
ANSWER = ("answer", "label", "target")
GROUP = ("group", "dialogue_id", "conversation_id", "scene_id", "document_id", "module")


class UnknownForm(BadInput):
    """A file or folder that can be read, but holds no records of any known kind (it may hold facts)."""


def folded(name: str) -> str:
    return name.strip().casefold().replace(" ", "_")


def find(columns: Iterable[str], names: tuple[str, ...]) -> str | None:
    """The column that stands under the first of `names` there is one for."""
    return _find(tuple(columns), names)


@lru_cache(4096)  # the rows of a table have the same columns
def _find(columns: tuple[str, ...], names: tuple[str, ...]) -> str | None:
    known = {folded(column): column for column in reversed(columns)}
    return next((known[name] for name in names if name in known), None)


def value_of(row: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    column = find(row, names)
    return None if column is None else row[column]


def need(row: Mapping[str, Any], names: tuple[str, ...], where: str) -> tuple[str, Any]:
    column = find(row, names)
    if column is None:
        hint = did_you_mean(names[0], row, n=1)
        raise BadInput(f"{where}: no column '{names[0]}'; present: {', '.join(row) or 'none'}{hint}")
    return column, row[column]


def text_of(row: Mapping[str, Any], names: tuple[str, ...], where: str, *, may_be_empty: bool = False) -> str:
    column, value = need(row, names, where)
    if not isinstance(value, str):
        raise BadInput(f"{where}: '{column}' must be a text, is {type_name(value)}")
    if not value.strip() and not may_be_empty:
        raise BadInput(f"{where}: '{column}' is empty: fill it or remove the line")
    return value


def written(value: Any, names: tuple[str, ...], row: Mapping[str, Any], where: str) -> str:
    """A text that may be empty; a number or a truth value is written out (answers are often counts, yes or no)."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, str | int | float):
        raise BadInput(f"{where}: '{find(row, names)}' must be a text, is {type_name(value)}")
    return str(value).strip()


def label_of(row: Mapping[str, Any], where: str, names: tuple[str, ...] = LABEL) -> str:
    column, value = need(row, names, where)
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise BadInput(f"{where}: '{column}' must be a text or a whole number, is {type_name(value)}")
    if not (label := str(value).strip()):
        raise BadInput(f"{where}: '{column}' is empty: every labelled text needs a label")
    return label


def type_name(value: Any) -> str:
    names = {dict: "an object", list: "a list", bool: "true or false", str: "a text", type(None): "null"}
    return names.get(type(value), "empty" if value == [] else "a number")
