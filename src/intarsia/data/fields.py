"""Which record a row of fields is: the usual column names of text, label, chat and prompt files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

from intarsia.data.columns import (
    ANSWER,
    CAPTION,
    GROUP,
    IMAGE,
    LABEL,
    MESSAGES,
    PROMPT,
    QUESTION,
    RATIONALE,
    TARGET,
    TARGETS,
    TASK,
    TEXT,
    UnknownForm,
    find,
    folded,
    label_of,
    need,
    text_of,
    type_name,
    value_of,
    written,
)
from intarsia.data.dialogues.turns import holds_turn, to_turn
from intarsia.data.documents import to_document
from intarsia.data.edits import holds_edit, to_edit
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

RecordKind = Literal["text", "label", "turn", "chat", "pair", "task", "edit", "image", "image-question", "document"]
KINDS: tuple[RecordKind, ...] = (
    "text", "label", "turn", "chat", "pair", "task", "edit", "image", "image-question", "document",
)  # fmt: skip

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

    A column `path` beside a text names a picture only where its value in `row` ends like one; a column `dialogue`
    beside a turn's number and text names the dialogue unless its value is a list of messages. Nothing is taken for a
    `document`: its columns are those of labelled texts."""
    row = row if row is not None else dict.fromkeys(columns)
    if holds_edit(row):
        return "edit"
    pictures, turn = _names_picture(row), holds_turn(row)
    for kind in ("image-question", "image", "turn", "chat", "task", "pair", "label", "text"):
        if kind.startswith("image") and not pictures:
            continue
        if kind == "turn":
            if turn:
                return "turn"
            continue
        if all(find(columns, names) for names in _WANTED[kind]):
            return kind  # type: ignore[return-value]
    names = ("text", "messages", "prompt", *TEXT, *MESSAGES, *PROMPT)
    near = next((hint for column in columns if (hint := did_you_mean(folded(column), names, n=1))), "")
    raise UnknownForm(
        f"{where}: no known columns; present: {', '.join(columns) or 'none'}{near}; wanted: text, text + label, "
        "dialogue + turn + text, messages, prompt + target, or image"
    )


def to_record(row: Mapping[str, Any], kind: RecordKind, where: str) -> Record:
    """One row as a record of `kind`. Unused columns are ignored; names are matched without regard to case.

    Raises `BadInput` (beginning with `where`, a file and line) on a missing column or a value of the wrong type."""
    group = value_of(row, GROUP)
    group = None if group in (None, "") else str(group)
    match kind:
        case "text":
            return Text(text_of(row, TEXT, where), group)
        case "label":
            known = (text_of(row, TEXT, where), label_of(row, where), group, _context(row, where))
            spans = _rationale(row, known[0], where)
            return LabelledText(*known) if spans is None else RationaleText(*known, spans)
        case "turn":
            return to_turn(row, where, _context(row, where))
        case "chat":
            return Chat(_messages(row, where), group)
        case "pair":
            return TextPair(_joined(*_asked(row, where)), text_of(row, TARGET, where, may_be_empty=True), group)
        case "task":
            (instruction, extra), target = _asked(row, where), text_of(row, TARGET, where, may_be_empty=True)
            task, split = str(value_of(row, TASK) or ""), str(value_of(row, ("split",)) or "")
            targets = _targets(row, target, where)
            return TaskPair(
                _joined(instruction, extra), target, group,
                task=task, instruction=instruction, input=extra, targets=targets, split=split,
            )  # fmt: skip
        case "edit":
            return to_edit(row, where, group)
        case "document":
            return to_document(row, where)
        case "image":
            caption, label = value_of(row, CAPTION), value_of(row, LABEL)
            text = "" if caption is None else written(caption, CAPTION, row, where)
            return ImageText(
                text_of(row, IMAGE, where), text, None if label in (None, "") else label_of(row, where), group
            )
        case "image-question":
            answer = value_of(row, ANSWER)
            text = "" if answer is None else written(answer, ANSWER, row, where)
            return ImageQuestion(text_of(row, IMAGE, where), text_of(row, QUESTION, where), text, group)
    raise BadInput(f"unknown kind of record '{kind}'{did_you_mean(str(kind), KINDS)}; known: {', '.join(KINDS)}")


def _asked(row: Mapping[str, Any], where: str) -> tuple[str, str]:
    """The instruction, and what it is to be done with: Alpaca files put the two side by side."""
    extra = value_of(row, ("input",))
    extra = extra if isinstance(extra, str) and extra.strip() else ""
    column = find(row, PROMPT)
    if extra and column is not None and row[column] == "":  # the input says it all
        return "", extra
    return text_of(row, PROMPT, where), extra


def _joined(instruction: str, extra: str) -> str:
    return "\n\n".join(part for part in (instruction, extra) if part)


def _targets(row: Mapping[str, Any], target: str, where: str) -> tuple[str, ...]:
    value = value_of(row, TARGETS)
    if value in (None, "", []):
        return (target,)
    if not isinstance(value, list) or not all(isinstance(part, str) for part in value):
        raise BadInput(f"{where}: '{find(row, TARGETS)}' must be a list of texts, is {type_name(value)}")
    return tuple(dict.fromkeys((target, *value)))


def _names_picture(row: Mapping[str, Any]) -> bool:
    column = find(row, IMAGE)
    if column is None or folded(column) != "path":
        return column is not None
    texts = find(row, (*TEXT, *MESSAGES, *PROMPT)) is not None
    return not texts or str(row[column]).lower().endswith(SUFFIXES)


def _context(row: Mapping[str, Any], where: str) -> tuple[str, ...]:
    value = value_of(row, ("context",))
    if value in (None, ""):
        return ()
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, list) or not all(isinstance(part, str) for part in value):
        raise BadInput(f"{where}: 'context' must be a text or a list of texts, is {type_name(value)}")
    return tuple(value)


def _rationale(row: Mapping[str, Any], text: str, where: str) -> tuple[tuple[int, int], ...] | None:
    """Spans of the text from `[start, end]` pairs, or from words of it (each where it first stands).

    None where there are none, or where the rationale is prose and not a list."""
    if (column := find(row, RATIONALE)) is None or (value := row[column]) is None:
        return None
    if isinstance(value, str):
        try:
            value = json.loads(value)  # a column of a CSV file
        except ValueError:
            return None
    if not isinstance(value, list):
        raise BadInput(f"{where}: '{column}' must be a list of [start, end] or of words, is {type_name(value)}")
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
    column, value = need(row, MESSAGES, where)
    if isinstance(value, str):
        try:
            value = json.loads(value)  # a column of a CSV file
        except ValueError:
            raise BadInput(f"{where}: '{column}' must be a list of messages, is a text that is not JSON") from None
    if not isinstance(value, list) or not value:
        raise BadInput(f"{where}: '{column}' must be a list of messages, is {type_name(value)}")
    messages = []
    for number, message in enumerate(value, 1):
        if not isinstance(message, dict):
            raise BadInput(
                f"{where}: message {number} must be an object with role and content, is {type_name(message)}"
            )
        role, content = message.get("role", message.get("from")), message.get("content", message.get("value"))
        if not isinstance(role, str) or not isinstance(content, str):
            raise BadInput(f"{where}: message {number} needs 'role' and 'content' as texts; has: {', '.join(message)}")
        messages.append({"role": _ROLES.get(role.casefold(), role.casefold()), "content": content})
    return tuple(messages)
