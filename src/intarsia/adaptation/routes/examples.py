"""Records as every rung reads them: turns get the lines before them, and what is said without who says it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from intarsia.data import LabelledText, Turn, labelled, relabelled, shuffled
from intarsia.errors import BadInput


@dataclass(frozen=True)
class Example(LabelledText):
    """A labelled text. `said`: the text alone, as it is embedded; `before`: the same of earlier turns, oldest first."""

    said: str = ""
    before: tuple[str, ...] = ()


def examples_of(records: Sequence[LabelledText], past: int, where: str, label: str | None = None) -> list[Example]:
    """The labelled ones among records, turns with up to `past` earlier turns of their dialogue as context.

    A turn's place is its number: turns that are missing in between count. Raises `BadInput` for other records, or when
    none has a label."""
    if odd := next((r for r in records if not isinstance(r, LabelledText)), None):
        raise BadInput(
            f"{where} holds a {type(odd).__name__}; wanted: labelled texts (text, label) or turns of dialogues"
        )
    if label is not None:
        records = relabelled(records, label)  # type: ignore[arg-type]
    read = {id(record): example for record, example in zip(records, read_all(records, past), strict=True)}
    return [read[id(record)] for record in labelled(records, where)]


def read_all(records: Sequence[LabelledText], past: int) -> list[Example]:
    """All records, also those without a label."""
    heard: dict[str | None, list[Turn]] = defaultdict(list)
    for record in records:
        if isinstance(record, Turn) and record.group is not None:
            heard[record.group].append(record)
    for turns in heard.values():
        turns.sort(key=lambda turn: turn.number)
    places = {id(turn): (turns, i) for turns in heard.values() for i, turn in enumerate(turns)}
    out = []
    for record in records:
        context, before = record.context, record.context
        if isinstance(record, Turn) and not context and id(record) in places:
            turns, at = places[id(record)]
            earlier = [t for t in turns[max(0, at - past) : at] if t.number >= record.number - past]
            context, before = tuple(map(_line, earlier)), tuple(t.text for t in earlier)
        line = _line(record) if isinstance(record, Turn) else record.text
        out.append(Example(line, record.label, record.group, context, said=record.text, before=before))
    return out


def _line(turn: Turn) -> str:
    return f"{turn.speaker}: {turn.text}" if turn.speaker else turn.text


def some_of(examples: Sequence[Example], most: int | None, seed: int, *, every_label: bool = False) -> list[Example]:
    """At most `most` of them, drawn by the seed and in the order they were drawn, so that labels keep their shares.

    - every_label: the first one drawn of each label is among them."""
    drawn = shuffled(examples, seed)
    if most is None or len(drawn) <= most:
        return drawn
    first: dict[str, int] = {}
    if every_label:
        for i, example in enumerate(drawn):
            first.setdefault(example.label, i)
        if len(first) > most:
            raise BadInput(f"train_limit is {most}, but there are {len(first)} labels: each needs a record")
    wanted = set(first.values())
    for i in range(len(drawn)):
        if len(wanted) == most:
            break
        wanted.add(i)
    return [drawn[i] for i in sorted(wanted)]
