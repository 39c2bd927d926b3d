"""Which document a row of a table is, by the usual names of its columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from intarsia.data import columns
from intarsia.data.columns import UnknownForm, find, folded, text_of, type_name
from intarsia.data.documents.labels import label_in
from intarsia.data.records import Document
from intarsia.errors import BadInput, did_you_mean

TEXT = (*columns.TEXT, "essay", "abstract", "passage", "generation")
NAME = ("id", "name", "doc_id", "document_id", "file", "filename", "file_name")
DOMAIN = ("domain", "corpus", "genre", "dataset")
TOPIC = ("topic", "topic_id", "prompt_id", "source_id")
GROUP = ("group",)
TASK = ("task", "title", "assignment", "question")
LANGUAGE = ("language", "lang")
WRITERS = ("writers", "writer_group", "author_group")
GENERATOR = ("generator", "model", "llm")
PROMPT = ("prompt", "prompt_name")
SPLIT = ("split",)

_SPLITS = {
    **dict.fromkeys(("train", "training", "trn"), "train"),
    **dict.fromkeys(("cal", "calibration", "dev", "val", "valid", "validation"), "cal"),
    **dict.fromkeys(("test", "tst", "eval"), "test"),
}


def to_document(row: Mapping[str, Any], where: str, *, name: str = "", label: str = "", domain: str = "") -> Document:
    """The document of a row. `name`, `label` and `domain` stand in where the row has none of its own.

    - Topics of different domains are kept apart: the group is `domain/topic`.
    - A column `group` is who the writers are where another one gives the topic, and the topic where none does.
    - What a person wrote has neither generator nor prompt, whatever stands there (`human`, `none`).

    Raises `UnknownForm` without a column of text, `BadLabel`, or `BadInput`; each begins with `where`."""
    if find(row, TEXT) is None:
        near = next((hint for column in row if (hint := did_you_mean(folded(column), columns.TEXT, n=1))), "")
        raise UnknownForm(f"{where}: no column 'text'; present: {', '.join(map(str, row)) or 'none'}{near}")
    label = label_in(row, where) or label
    domain = _word(row, DOMAIN, where) or domain
    topic, group = _word(row, TOPIC, where), _word(row, GROUP, where)
    writers = _word(row, WRITERS, where) or (group if topic else "")
    topic = topic or group
    by_machine = label != "human"
    return Document(
        text_of(row, TEXT, where),
        label,
        (f"{domain}/{topic}" if domain else topic) if topic else None,
        name=_word(row, NAME, where) or name,
        domain=domain,
        task=next((task for column in TASK if (task := _word(row, (column,), where))), ""),
        language=_language(_word(row, LANGUAGE, where)),
        writers=writers,
        generator=_word(row, GENERATOR, where) if by_machine else "",
        prompt=_word(row, PROMPT, where) if by_machine else "",
        split=_split(row, where),
    )


def _word(row: Mapping[str, Any], names: tuple[str, ...], where: str) -> str:
    """A cell as a text, empty where there is none; numbers are written out."""
    column = find(row, names)
    value = None if column is None else row[column]
    if value is None or (isinstance(value, float) and value != value):  # an empty cell of a parquet file
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise BadInput(f"{where}: '{column}' must be a text or a number, is {type_name(value)}")
    return str(value).strip()


def _language(said: str) -> str:
    """`en` of `en-GB`, `EN_us`."""
    return said.replace("_", "-").partition("-")[0].lower()


def _split(row: Mapping[str, Any], where: str) -> str:
    said = _word(row, SPLIT, where)
    if said and said.lower() not in _SPLITS:
        raise BadInput(f"{where}: unknown split '{said}'{did_you_mean(said, _SPLITS, n=1)}; wanted: train, cal or test")
    return _SPLITS[said.lower()] if said else ""
