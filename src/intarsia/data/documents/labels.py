"""Whose text it is, in the words that data sets use for it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from intarsia.data.columns import find, type_name, value_of
from intarsia.errors import BadInput, did_you_mean

LABELS = ("human", "machine", "polished", "mixed")

LABEL = ("label", "authorship")
IS_MACHINE = ("generated", "is_generated", "ai_generated", "machine_generated", "is_ai", "is_machine")
"""Columns that ask whether a machine wrote the text, with yes or no in them."""

_SAID = {
    "human": ("human", "humans", "real", "person", "people", "student", "authentic", "original"),
    "machine": (
        "machine", "ai", "generated", "llm", "gpt", "chatgpt", "chat-gpt", "model", "bot", "synthetic", "artificial",
        "fake",
    ),
    "polished": ("polished", "polish", "edited", "rewritten", "rewrite", "revised", "paraphrased"),
    "mixed": ("mixed", "hybrid", "fusion", "fused", "human-ai", "human-machine", "ai-human", "co", "coauthored"),
    "": ("", "unknown", "unlabelled", "unlabeled", "nan", "?"),
}  # fmt: skip
_LABEL_OF = {word: label for label, words in _SAID.items() for word in words}
_NUMBERS = re.compile(r"-?[01](\.0)?")
_YES, _NO = ("1", "true", "yes", "y", "t", "1.0"), ("0", "false", "no", "n", "f", "0.0")


class BadLabel(BadInput):
    """A label that is none of those known. In a folder, too, it stops the reading: the data would lose its meaning."""


def label_in(row: Mapping[str, Any], where: str) -> str:
    """One of `LABELS`, or empty where the row does not say. Raises `BadLabel` that begins with `where`."""
    column = find(row, LABEL)
    if column is not None and row[column] not in (None, ""):
        return _label(row[column], where)
    asked = find(row, IS_MACHINE)
    if asked is None or (value := value_of(row, IS_MACHINE)) in (None, ""):
        return ""
    said = str(value).strip().casefold()
    if said in _YES or said in _NO:
        return "machine" if said in _YES else "human"
    raise BadLabel(f"{where}: '{asked}' must be 1 or 0, true or false, yes or no; is '{value}'")


def _label(value: Any, where: str) -> str:
    if isinstance(value, float) and value != value:
        return ""  # an empty cell of a parquet file
    if isinstance(value, list | dict):
        raise BadLabel(f"{where}: the label must be one of {', '.join(LABELS)}; is {type_name(value)}")
    said = re.sub(r"[\s_+/-]+", "-", str(value).strip().casefold())
    if isinstance(value, bool) or _NUMBERS.fullmatch(said):
        raise BadLabel(
            f"{where}: label '{value}': data sets do not agree which of 0 and 1 is the machine; write human or "
            "machine, or call the column 'generated' where 1 is the machine"
        )
    # human-written, ai_generated, LLM text; ai-polished, machine-edited
    short = re.sub(r"-(written|generated|made|authored|text)$", "", said)
    edited = re.sub(r"^(ai|llm|gpt|chatgpt|machine|model)-", "", said)
    for word in (said, short, edited):
        if word in _LABEL_OF:
            return _LABEL_OF[word]
    near = did_you_mean(said, _LABEL_OF, n=1)
    raise BadLabel(f"{where}: unknown label '{value}'{near}; wanted: {', '.join(LABELS)}, or nothing")
