"""Several corpora in one: labels of one as those of another, and no turn of a test set in what is learnt from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from intarsia.data.records import LabelledText, Turn
from intarsia.data.splits import normalised_text
from intarsia.errors import BadInput, did_you_mean

L = TypeVar("L", bound=LabelledText)
FEWEST_WORDS = 5
"""A text that two sets share by chance alone (`Oh my God!`) is shorter than this."""

LABEL_MAPS: dict[str, dict[str, str | None]] = {
    "emorynlp-to-meld": {
        "Joyful": "joy", "Scared": "fear", "Mad": "anger", "Sad": "sadness",
        "Neutral": "neutral", "Peaceful": "neutral", "Powerful": "neutral",
    },
    "meld-to-emorynlp": {
        "joy": "Joyful", "fear": "Scared", "anger": "Mad", "sadness": "Sad", "neutral": "Neutral",
        "surprise": None, "disgust": None,
    },
}  # fmt: skip
"""Label maps by name. What has no like in the other set is dropped (None)."""


def mapped(records: Sequence[L], mapping: str | Mapping[str, str | None]) -> list[L]:
    """The records with other labels.

    - mapping: old label -> new one, or None for a label that is dropped: a turn with it becomes context, any other
      record is left out; or the name of one of `LABEL_MAPS`.

    Raises `BadInput` for an unknown name, or a label that the mapping does not have."""
    if isinstance(mapping, str):
        if mapping not in LABEL_MAPS:
            known = ", ".join(LABEL_MAPS)
            raise BadInput(f"no label map '{mapping}'{did_you_mean(mapping, LABEL_MAPS)}; there are: {known}")
        mapping = LABEL_MAPS[mapping]
    kept = []
    for record in records:
        if isinstance(record, Turn) and not record.label:
            kept.append(record)
            continue
        if record.label not in mapping:
            raise BadInput(
                f"the label map has no entry for '{record.label}'{did_you_mean(record.label, mapping, n=1)}; "
                f"it has: {', '.join(mapping)}"
            )
        new = mapping[record.label]
        if new is not None or isinstance(record, Turn):
            kept.append(replace(record, label=new or ""))
    return kept


def without_overlap(train: Sequence[L], test: Iterable[LabelledText]) -> list[L]:
    """What of `train` may be learnt from when `test` is to judge: without the records whose text occurs in test.

    Two records are the same when season, episode and the text (letters and digits, without regard to case) are; where
    one of them does not say its season and episode, when the texts are the same and have five words or more. Turns
    keep their numbers, so what is taken out of a dialogue shows as a gap."""
    exact: set[tuple[str, str, str]] = set()
    placeless: set[str] = set()
    anywhere: set[str] = set()
    for record in test:
        text, place = normalised_text(record.text), _place(record)
        if place:
            exact.add((*place, text))
        if _long(text):
            anywhere.add(text)
            if not place:
                placeless.add(text)

    def occurs(record: LabelledText) -> bool:
        text, place = normalised_text(record.text), _place(record)
        return ((*place, text) in exact or text in placeless) if place else text in anywhere

    return [record for record in train if not occurs(record)]


def _place(record: LabelledText) -> tuple[str, str] | None:
    fields = dict(getattr(record, "fields", ()))
    season, episode = (fields.get(name, "").strip().lstrip("0") for name in ("season", "episode"))
    return (season, episode) if season and episode else None


def _long(text: str) -> bool:
    return len(text.split()) >= FEWEST_WORDS
