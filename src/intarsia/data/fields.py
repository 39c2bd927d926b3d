"""Which record a row of fields is: the usual column names of text, label, chat and prompt files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

from intarsia.data.pictures import SUFFIXES
from intarsia.data.records import (
    Chat,
    ImageQuestion,
    ImageText,
    LabelledText,
    RationaleText,
    Record,
    TaskPair,
    Text,
    TextPair,
)
from intarsia.errors import BadInput, did_you_mean

RecordKind = Literal["text", "label", "chat", "pair", "task", "image", "image-question"]
KINDS: tuple[RecordKind, ...] = ("text", "label", "chat", "pair", "task", "image", "image-question")

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
_ROLES = {"human": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant", "prompter": "user"}
_WANTED = {
    "text": (TEXT,),
    "label": (TEXT, LABEL),
    "chat": (MESSAGES,),
    "pair": (PROMPT, TARGET),
    "task": (TASK, PROMPT, TARGET),
    "image": (IMAGE,),
    "image-question": (IMAGE, QUESTION),
}


def guess_kind(columns: list[str], where: str, row: Mapping[str, Any] | None = None) -> RecordKind:
    """The record type that these columns hold; `where` begins the message of the error when there is none.

    A column `path` beside a text names a picture only where its value in `row` ends like one."""
    pictures = _names_picture(row if row is not None else dict.fromkeys(columns))
    for kind in ("image-question", "image", "chat", "task", "pair", "label", "text"):
        if kind.startswith("image") and not pictures:
            continue
        if all(_column(columns, names) for names in _WANTED[kind]):
            return kind  # type: ignore[return-value]
    names = ("text", "messages", "prompt", *TEXT, *MESSAGES, *PROMPT)
    near = next((hint for column in columns if (hint := did_you_mean(_key(column), names, n=1))), "")
    raise BadInput(
        f"{where}: no known columns; present: {', '.join(columns) or 'none'}{near}; wanted: text, text + label, "
        "messages, prompt + target, or image"
    )


def to_record(row: Mapping[str, Any], kind: RecordKind, where: str) -> Record:
    """One row as a record of `kind`. Unused columns are ignored; names are matched without regard to case.

    Raises `BadInput` (beginning with `where`, a file and line) on a missing column or a value of the wrong type."""
    group = _get(row, GROUP)
    group = None if group in (None, "") else str(group)
    match kind:
        case "text":
            return Text(_text(row, TEXT, where), group)
        case "label":
            known = (_text(row, TEXT, where), _label(row, where), group, _context(row, where))
            spans = _rationale(row, known[0], where)
            return LabelledText(*known) if spans is None else RationaleText(*known, spans)
        case "chat":
            return Chat(_messages(row, where), group)
        case "pair":
            return TextPair(_joined(*_asked(row, where)), _text(row, TARGET, where), group)
        case "task":
            (instruction, extra), target = _asked(row, where), _text(row, TARGET, where)
            task, split = str(_get(row, TASK) or ""), str(_get(row, ("split",)) or "")
            targets = _targets(row, target, where)
            return TaskPair(
                _joined(instruction, extra), target, group,
                task=task, instruction=instruction, input=extra, targets=targets, split=split,
            )  # fmt: skip
        case "image":
            caption, label = _get(row, CAPTION), _get(row, LABEL)
            text = "" if caption is None else _string(caption, CAPTION, row, where)
            return ImageText(_text(row, IMAGE, where), text, None if label in (None, "") else _label(row, where), group)
        case "image-question":
            answer = _get(row, ANSWER)
            text = "" if answer is None else _string(answer, ANSWER, row, where)
            return ImageQuestion(_text(row, IMAGE, where), _text(row, QUESTION, where), text, group)
    raise BadInput(f"unknown kind of record '{kind}'{did_you_mean(str(kind), KINDS)}; known: {', '.join(KINDS)}")


def _asked(row: Mapping[str, Any], where: str) -> tuple[str, str]:
    """The instruction, and what it is to be done with: Alpaca files put the two side by side."""
    extra = _get(row, ("input",))
    extra = extra if isinstance(extra, str) and extra.strip() else ""
    column = _column(list(row), PROMPT)
    if extra and column is not None and row[column] == "":  # the input says it all
        return "", extra
    return _text(row, PROMPT, where), extra


def _joined(instruction: str, extra: str) -> str:
    return "\n\n".join(part for part in (instruction, extra) if part)


def _targets(row: Mapping[str, Any], target: str, where: str) -> tuple[str, ...]:
    value = _get(row, TARGETS)
    if value in (None, "", []):
        return (target,)
    if not isinstance(value, list) or not all(isinstance(part, str) for part in value):
        raise BadInput(f"{where}: '{_column(list(row), TARGETS)}' must be a list of texts, is {_type(value)}")
    return tuple(dict.fromkeys((target, *value)))


def _names_picture(row: Mapping[str, Any]) -> bool:
    column = _column(list(row), IMAGE)
    if column is None or _key(column) != "path":
        return column is not None
    texts = _column(list(row), (*TEXT, *MESSAGES, *PROMPT)) is not None
    return not texts or str(row[column]).lower().endswith(SUFFIXES)


def _key(name: str) -> str:
    return name.strip().casefold().replace(" ", "_")


def _column(columns: list[str], names: tuple[str, ...]) -> str | None:
    known = {_key(column): column for column in reversed(columns)}
    return next((known[name] for name in names if name in known), None)


def _get(row: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    column = _column(list(row), names)
    return None if column is None else row[column]


def _need(row: Mapping[str, Any], names: tuple[str, ...], where: str) -> tuple[str, Any]:
    column = _column(list(row), names)
    if column is None:
        hint = did_you_mean(names[0], row, n=1)
        raise BadInput(f"{where}: no column '{names[0]}'; present: {', '.join(row) or 'none'}{hint}")
    return column, row[column]


def _text(row: Mapping[str, Any], names: tuple[str, ...], where: str) -> str:
    column, value = _need(row, names, where)
    if not isinstance(value, str):
        raise BadInput(f"{where}: '{column}' must be a text, is {_type(value)}")
    if not value.strip() and names is not TARGET:
        raise BadInput(f"{where}: '{column}' is empty: fill it or remove the line")
    return value


def _string(value: Any, names: tuple[str, ...], row: Mapping[str, Any], where: str) -> str:
    """A text that may be empty; a number or a truth value is written out (answers are often counts, yes or no)."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, str | int | float):
        raise BadInput(f"{where}: '{_column(list(row), names)}' must be a text, is {_type(value)}")
    return str(value).strip()


def _label(row: Mapping[str, Any], where: str) -> str:
    column, value = _need(row, LABEL, where)
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise BadInput(f"{where}: '{column}' must be a text or a whole number, is {_type(value)}")
    if not (label := str(value).strip()):
        raise BadInput(f"{where}: '{column}' is empty: every labelled text needs a label")
    return label


def _context(row: Mapping[str, Any], where: str) -> tuple[str, ...]:
    value = _get(row, ("context",))
    if value in (None, ""):
        return ()
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, list) or not all(isinstance(part, str) for part in value):
        raise BadInput(f"{where}: 'context' must be a text or a list of texts, is {_type(value)}")
    return tuple(value)


def _rationale(row: Mapping[str, Any], text: str, where: str) -> tuple[tuple[int, int], ...] | None:
    """Spans of the text from `[start, end]` pairs, or from words of it (each where it first stands).

    None where there are none, or where the rationale is prose and not a list."""
    if (column := _column(list(row), RATIONALE)) is None or (value := row[column]) is None:
        return None
    if isinstance(value, str):
        try:
            value = json.loads(value)  # a column of a CSV file
        except ValueError:
            return None
    if not isinstance(value, list):
        raise BadInput(f"{where}: '{column}' must be a list of [start, end] or of words, is {_type(value)}")
    spans = []
    for part in value:
        if isinstance(part, str):
            if (at := text.find(part)) < 0 or not part:
                raise BadInput(f"{where}: '{column}': '{part}' does not occur in the text")
            spans.append((at, at + len(part)))
            continue
        whole = isinstance(part, list | tuple) and len(part) == 2 and all(type(n) is int for n in part)
        if not whole or not 0 <= part[0] < part[1] <= len(text):
            raise BadInput(f"{where}: '{column}': {part} is no [start, end] in a text of {len(text)} characters")
        spans.append((part[0], part[1]))
    return tuple(spans)


def _messages(row: Mapping[str, Any], where: str) -> tuple[dict[str, str], ...]:
    column, value = _need(row, MESSAGES, where)
    if isinstance(value, str):
        try:
            value = json.loads(value)  # a column of a CSV file
        except ValueError:
            raise BadInput(f"{where}: '{column}' must be a list of messages, is a text that is not JSON") from None
    if not isinstance(value, list) or not value:
        raise BadInput(f"{where}: '{column}' must be a list of messages, is {_type(value)}")
    messages = []
    for number, message in enumerate(value, 1):
        if not isinstance(message, dict):
            raise BadInput(f"{where}: message {number} must be an object with role and content, is {_type(message)}")
        role, content = message.get("role", message.get("from")), message.get("content", message.get("value"))
        if not isinstance(role, str) or not isinstance(content, str):
            raise BadInput(f"{where}: message {number} needs 'role' and 'content' as texts; has: {', '.join(message)}")
        messages.append({"role": _ROLES.get(role.casefold(), role.casefold()), "content": content})
    return tuple(messages)


def _type(value: Any) -> str:
    names = {dict: "an object", list: "a list", bool: "true or false", str: "a text", type(None): "null"}
    return names.get(type(value), "empty" if value == [] else "a number")
