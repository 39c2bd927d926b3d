"""Rows as turns of dialogues: whose turn, its place, its label where it has one; turns in the order of their talk."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from intarsia.data.columns import LABEL, PROMPT, TARGET, TEXT, find, folded, label_of, need, text_of, type_name
from intarsia.data.records import Turn
from intarsia.errors import BadInput, Note

SCENE = ("scene", "scene_id")
DIALOGUE = ("dialogue_id", "dialog_id", "conversation_id", "dialogue", "dialog", "conversation", *SCENE, "group")
ID = ("utterance_id", "utt_id")
NUMBER = ("turn", "turn_id", "turn_number", "turn_index", "utterance_number", "utterance_index", *ID)
SAID = (*TEXT, "transcript")
SPEAKER = ("speaker", "speakers", "speaker_name", "speaker_id")
TURN_LABEL = (*LABEL, "intent", "dialogue_act", "act")
CLIP = ("clip", "clip_path", "video", "video_path")
ABOUT = ("about", "description", "video_description")
SEASON, EPISODE = ("season",), ("episode",)
_TIMES = {"starttime": "start", "start_time": "start", "endtime": "end", "end_time": "end"}
_PUNCTUATION = {byte: bytes([byte]).decode("cp1252", "replace") for byte in range(0x80, 0xA0)}
_C1 = {byte: sign for byte, sign in _PUNCTUATION.items() if sign != "\ufffd"}


def holds_turn(row: Mapping[str, Any]) -> bool:
    """Whether a row is a turn: it names its dialogue, its place in it and what is said."""
    dialogue, number = find(row, DIALOGUE), find(row, NUMBER)
    if dialogue is None or number is None or find(row, SAID) is None:
        return False
    if find(row, PROMPT) and find(row, TARGET):
        return False
    if folded(number) in ID and re.search(r"[^\W\d_]", str(row[number])) and re.search(r"\d", str(row[number])):
        return False  # `Ses01F_impro01_F000` names an utterance and does not count it
    value = row[dialogue]
    return not isinstance(value, list | dict) and not re.match(r"\s*\[\s*\{", str(value))


def to_turn(row: Mapping[str, Any], where: str, context: tuple[str, ...] = ()) -> Turn:
    """One row as a turn. A label may be missing or empty; every other column with a text or a number is a field, the
    label's own too, so that `relabelled` finds it again under its name.

    Raises `BadInput` (beginning with `where`) for a column that is missing, or a value of the wrong type."""
    row = {column: mended(value) if isinstance(value, str) else value for column, value in row.items()}
    dialogue, group = _dialogue(row, where)
    number, place = need(row, NUMBER, where)
    text, label = find(row, SAID), find(row, TURN_LABEL)
    speaker, clip, about = (find(row, names) for names in (SPEAKER, CLIP, ABOUT))
    used = {dialogue, number, text, speaker, clip, about, find(row, ("context",))}
    fields = tuple(
        (_TIMES.get(name := folded(column), name), _field(value))
        for column, value in row.items()
        if column not in used and isinstance(value, str | int | float)
    )
    return Turn(
        text_of(row, SAID, where),
        "" if label is None or _empty(row[label]) else label_of(row, where, TURN_LABEL),
        group,
        context,
        speaker="" if speaker is None else _speaker(row[speaker], speaker, where),
        number=_number(place, number, where),
        clip="" if clip is None or _empty(row[clip]) else text_of(row, CLIP, where),
        about="" if about is None or _empty(row[about]) else text_of(row, ABOUT, where),
        fields=fields,
    )


def in_order(turns: Sequence[Turn], places: Sequence[str], where: str) -> list[Turn]:
    """Turns by dialogue, in order of first appearance, and by number within it. A `Note` says when that is another
    order than theirs.

    - places: the file and line of each; where: the file.

    Raises `BadInput` for a number that stands twice in a dialogue."""
    found: dict[str, dict[int, int]] = {}
    for i, (turn, place) in enumerate(zip(turns, places, strict=True)):
        members = found.setdefault(turn.group or "", {})
        if (first := members.setdefault(turn.number, i)) != i:
            raise BadInput(
                f"{place}: the turn {turn.number} of dialogue '{turn.group}' is there twice "
                f"(first: {places[first].removeprefix(where + ': ')}); give each turn of a dialogue its own number"
            )
    order = [i for members in found.values() for _, i in sorted(members.items())]
    rank = {i: place for place, i in enumerate(order)}
    if moved := next((i for i in range(1, len(order)) if rank[i] < rank[i - 1]), None):
        warnings.warn(
            f"{where}: turns are not in the order of their dialogues (first: {places[moved].removeprefix(where + ': ')}"
            "); they were sorted by dialogue and number",
            Note,
            stacklevel=3,
        )
    return [turns[i] for i in order]


def mended(text: str) -> str:
    """Control characters U+0080 to U+009F as the punctuation they stand for: cp1252 read as Latin-1 on its way here."""
    return text.translate(_C1)


def scene_name(season: Any, episode: Any, scene: Any) -> str:
    """`s01e15c06`: a scene by its season, episode and own number, as numbers of scenes begin anew in every episode."""
    try:
        return f"s{int(season):02d}e{int(episode):02d}c{int(scene):02d}"
    except (TypeError, ValueError):
        return f"{season}/{episode}/{scene}"


def _dialogue(row: Mapping[str, Any], where: str) -> tuple[str, str]:
    """The column that names the dialogue (none where it takes three, which are fields too), and the dialogue's name."""
    column, value = need(row, DIALOGUE, where)
    if isinstance(value, bool | list | dict) or _empty(value):
        given = "empty" if _empty(value) else type_name(value)
        raise BadInput(f"{where}: '{column}' must name the dialogue of this turn, is {given}")
    name = str(value).strip()
    if folded(column) in SCENE and name.isdigit():
        season, episode = (find(row, names) for names in (SEASON, EPISODE))
        if season and episode and not _empty(row[season]) and not _empty(row[episode]):
            return "", scene_name(row[season], row[episode], name)
    return column, name


def _number(value: Any, column: str, where: str) -> int:
    if isinstance(value, str) and re.fullmatch(r"\s*[+-]?\d+(\.0+)?\s*", value):
        value = float(value) if "." in value else int(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value or value % 1:
        given = repr(value) if isinstance(value, str | float) else type_name(value)
        raise BadInput(f"{where}: '{column}' must be a whole number, the turn's place in its dialogue; is {given}")
    return int(value)


def _speaker(value: Any, column: str, where: str) -> str:
    """A name; several as `A; B`, also where a table holds them as a list (`['A', 'B']`)."""
    if isinstance(value, str) and value.strip().startswith("[") and value.strip().endswith("]"):
        try:
            value = ast.literal_eval(value.strip())
        except (ValueError, SyntaxError):
            return value.strip()
    if value is None:
        return ""
    names = value if isinstance(value, list) else [value]
    if not all(isinstance(name, str | int) and not isinstance(name, bool) for name in names):
        raise BadInput(f"{where}: '{column}' must be a name or a list of names, is {type_name(value)}")
    return "; ".join(mended(str(name).strip()) for name in names)


def _field(value: Any) -> str:
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)


def _empty(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())
