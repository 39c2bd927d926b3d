"""Splits that do not leak: by group, by class, without duplicates; and without any state, so they can be had again."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Literal, TypeVar

from intarsia.data.records import Chat, ImageQuestion, ImageText, Record, TextPair, Turn
from intarsia.errors import BadInput

R = TypeVar("R", bound=Record)


def shuffled(items: Sequence[R], seed: int = 0, key: str = "") -> list[R]:
    """`items` in an order that depends on `seed` only: sorted by a hash, the same on every machine and version."""
    order = sorted(range(len(items)), key=lambda i: _rank(f"{key}{i}", seed))
    return [items[i] for i in order]


def normalised(record: Record) -> str:
    """What two records share when they are the same text: letters and digits in lower case, white space folded."""
    if isinstance(record, Chat):
        text = "\n".join(f"{m.get('role')}: {m.get('content')}" for m in record.messages)
    elif isinstance(record, TextPair):
        text = f"{record.prompt}\n{record.target}"
    elif isinstance(record, ImageText | ImageQuestion):
        # The same question about another picture is another record.
        said = record.text if isinstance(record, ImageText) else f"{record.question}\n{record.answer}"
        return f"{record.image}\n{said}"
    else:
        text = "\n".join((*getattr(record, "context", ()), record.text))
    return normalised_text(text)


def normalised_text(text: str) -> str:
    """Letters and digits in lower case, white space folded; the text itself where it has none of them."""
    return re.sub(r"[\W_]+", " ", text.casefold()).strip() or text.strip()


def dedup(records: Sequence[R]) -> list[R]:
    """The records without later copies of the same normalised text (whatever their label), in their order.

    Turns are dropped by the dialogue: one that says what an earlier one says, turn for turn."""
    first: dict[str, str] = {}
    kept = []
    for i, (record, key) in enumerate(zip(records, _contents(records), strict=True)):
        unit = f"={record.group}" if _of_dialogue(record) else f"#{i}"
        if first.setdefault(key, unit) == unit:
            kept.append(record)
    return kept


def split(
    records: Sequence[R],
    shares: Mapping[str, float],
    *,
    by: Literal["group", "text", "label"] = "group",
    seed: int = 0,
) -> dict[str, list[R]]:
    """Divide records into named splits with about these shares (positive, sum 1).

    - by `group`: a group is never cut; a record without one is its own. Groups go, largest first, where most is
      missing, so that shares are met as closely as whole groups allow.
    - by `label`: every class is divided by the shares (stratified); not for turns, as it would cut dialogues.
    - by `text`: a record goes by the hash of its normalised text, so it stays in its split when others come or go; a
      turn by that of its whole dialogue.

    Records keep their order within a split."""
    if not shares or any(share <= 0 for share in shares.values()) or abs(sum(shares.values()) - 1) > 1e-6:
        raise BadInput(f"split: shares must be positive and sum to 1, given: {dict(shares)}")
    if by == "text":
        places = [_by_hash(text, shares, seed) for text in _contents(records)]
    elif by == "label":
        places = _by_label(records, shares, seed)
    elif by == "group":
        places = _by_group(records, shares, seed)
    else:
        raise BadInput(f"split: by must be group, text or label, given: {by!r}")
    result: dict[str, list[R]] = {name: [] for name in shares}
    for record, place in zip(records, places, strict=True):
        result[place].append(record)
    if records and (empty := [name for name, part in result.items() if not part]):
        units = len(_groups(records)) if by == "group" else len(records)
        what = "whole groups" if by == "group" else "records"
        raise BadInput(f"split: nothing is left for '{empty[0]}': there are only {units} {what} to divide")
    return result


def _rank(text: str, seed: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}:{text}".encode()).digest()[:8], "big")


def _of_dialogue(record: Record) -> bool:
    return isinstance(record, Turn) and record.group is not None


def _contents(records: Sequence[R]) -> list[str]:
    """The normalised text of each record; of a turn, that of its whole dialogue."""
    texts = [normalised(record) for record in records]
    whole: dict[str, list[str]] = defaultdict(list)
    for record, text in zip(records, texts, strict=True):
        if _of_dialogue(record):
            whole[record.group].append(text)  # type: ignore[index]
    joined = {group: "\n".join(parts) for group, parts in whole.items()}
    return [
        joined[record.group] if _of_dialogue(record) else text  # type: ignore[index]
        for record, text in zip(records, texts, strict=True)
    ]


def _by_hash(text: str, shares: Mapping[str, float], seed: int) -> str:
    point, edge = _rank(text, seed) / 2**64, 0.0
    for name, share in shares.items():
        edge += share
        if point < edge:
            return name
    return name


def _by_label(records: Sequence[R], shares: Mapping[str, float], seed: int) -> list[str]:
    classes: dict[str, list[int]] = defaultdict(list)
    for i, record in enumerate(records):
        if getattr(record, "label", None) is None:
            raise BadInput(f"split by label: record {i + 1} is a {type(record).__name__} and has no label")
        if _of_dialogue(record):
            raise BadInput(
                f"split by label: record {i + 1} is a turn of a dialogue, which would be cut: use by='group'"
            )
        classes[record.label].append(i)
    places = [""] * len(records)
    for label, members in classes.items():
        members = shuffled(members, seed, f"{label}:")  # type: ignore[type-var]
        for i, place in zip(members, _quota(len(members), shares), strict=True):
            places[i] = place
    return places


def _quota(n: int, shares: Mapping[str, float]) -> list[str]:
    """n places, each split as often as its share says (largest remainders are rounded up)."""
    exact = {name: share * n for name, share in shares.items()}
    counts = {name: int(value + 1e-9) for name, value in exact.items()}
    for name in sorted(shares, key=lambda k: counts[k] - exact[k])[: n - sum(counts.values())]:
        counts[name] += 1
    return [name for name, count in counts.items() for _ in range(count)]


def _groups(records: Sequence[R]) -> dict[str, list[int]]:
    groups: dict[str, list[int]] = defaultdict(list)
    for i, record in enumerate(records):
        groups[f"#{i}" if record.group is None else f"={record.group}"].append(i)
    return groups


def _by_group(records: Sequence[R], shares: Mapping[str, float], seed: int) -> list[str]:
    groups = _groups(records)
    missing = {name: share * len(records) for name, share in shares.items()}
    places = [""] * len(records)
    for group in sorted(groups, key=lambda g: (-len(groups[g]), _rank(g, seed))):
        place = max(missing, key=lambda name: missing[name])
        missing[place] -= len(groups[group])
        for i in groups[group]:
            places[i] = place
    return places
