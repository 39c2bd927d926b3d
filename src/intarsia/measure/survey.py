"""`survey`: what a data set holds: how many records, of what labels, by whom, and how long."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from intarsia.data import Chat, Fact, ImageQuestion, TaskPair, TextPair, Turn
from intarsia.errors import BadInput
from intarsia.measure.survey_finding import Lengths, SplitSurvey, Survey
from intarsia.progress import track

if TYPE_CHECKING:
    from intarsia.data import Dataset
    from intarsia.models import Model

AT_ONCE = 512


def survey(data: Dataset, model: Model | None = None, shown: int = 5) -> Survey:
    """Counts and lengths of every split.

    - model: its tokenizer also counts tokens, and its context says how many records are too long for it. A turn counts
      with its speaker.
    - shown: so many records of each split are kept as examples.

    Raises `BadInput` for a split without records or a model without a tokenizer."""
    if model is not None and model.tokenizer is None:
        raise BadInput("counting tokens needs a tokenizer, and this model has none (wrap(network, tokenizer))")
    tokenizer, context = (model.tokenizer, model.context_length) if model is not None else (None, None)
    splits = [_split(name, data[name], tokenizer, context, shown) for name in data]
    total = sum(split.records for split in splits)
    labels = {label for split in splits for label in split.counted}
    parts = [f"{_some(total, 'record')} in {_some(len(splits), 'split')}"]
    if dialogues := sum(split.groups or 0 for split in splits if split.grouped == "dialogue"):
        parts.append(_some(dialogues, "dialogue"))
    if labels:
        parts.append(_some(len(labels), splits[0].counts))
    return Survey(
        title=data.name,
        summary=", ".join(parts) + ".",
        provenance={"sha256": data.sha256, "model": model.identity.source if model is not None else None},
        splits=splits,
        context=context,
    )


def _some(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def said(record: Any) -> str:
    """All that a record says, as one text; a turn with its speaker."""
    if isinstance(record, Chat):
        return "\n".join(message["content"] for message in record.messages)
    if isinstance(record, TextPair):
        return f"{record.prompt}\n{record.target}"
    if isinstance(record, ImageQuestion):
        return f"{record.question}\n{record.answer}"
    if isinstance(record, Fact):
        return f"{record.head} {record.relation} {record.tail}"
    text = f"{record.speaker}: {record.text}" if isinstance(record, Turn) and record.speaker else record.text
    return "\n".join((*getattr(record, "context", ()), text))


def _split(name: str, records: Sequence[Any], tokenizer: Any, context: int | None, shown: int) -> SplitSurvey:
    if not records:
        raise BadInput(f"the split '{name}' holds no records")
    kinds = list(dict.fromkeys(type(record).__name__ for record in records))
    turns = [record for record in records if isinstance(record, Turn)]
    members: dict[str, list[int]] = {}
    for i, record in enumerate(records):
        if (group := getattr(record, "group", None)) is not None:
            members.setdefault(group, []).append(i)
    lengths: dict[str, Lengths] = {}
    if turns and members:
        lengths["turns a dialogue"] = Lengths.of([len(places) for places in members.values()])
    unit = "turn" if turns else "record"
    texts = [said(record) for record in records]
    if isinstance(records[0], Fact):
        named = Counter(name for fact in records for name in (fact.head, fact.tail))
        lengths["facts an entity"] = Lengths.of(list(named.values()))
    else:
        words = [record.text for record in turns] if turns else texts
        lengths[f"words a {unit}"] = Lengths.of([len(text.split()) for text in words])
    if tokenizer is not None:
        tokens = _tokens(tokenizer, records, texts)
        lengths[f"tokens a {unit}"] = Lengths.of(tokens, context)
        if turns and members:
            whole = [sum(tokens[i] for i in places) for places in members.values()]
            lengths["tokens a dialogue"] = Lengths.of(whole, context)
    counts, counted = _counted(records)
    return SplitSurvey(
        split=name,
        kind=", ".join(kinds),
        records=len(records),
        grouped="dialogue" if turns else "group",
        groups=len(members) or None,
        counts=counts,
        counted=dict(sorted(counted.items(), key=lambda entry: (-entry[1], entry[0]))),
        unlabelled=sum(not turn.label for turn in turns) if turns else None,
        speakers=dict(Counter(turn.speaker for turn in turns if turn.speaker).most_common()),
        missing=_missing(records, members) if turns else None,
        clips=sum(bool(turn.clip) for turn in turns),
        lengths=lengths,
        first=[asdict(record) for record in records[:shown]],
    )


def _counted(records: Sequence[Any]) -> tuple[str, Mapping[str, int]]:
    """What the records are told apart by: their tasks, relations or labels."""
    if isinstance(records[0], TaskPair):
        return "task", Counter(record.task for record in records if record.task)
    if isinstance(records[0], Fact):
        return "relation", Counter(record.relation for record in records)
    return "label", Counter(str(record.label) for record in records if getattr(record, "label", None))


def _missing(records: Sequence[Any], members: Mapping[str, Sequence[int]]) -> int:
    """Turns whose numbers are passed over between the first and the last of their dialogue."""
    found = 0
    for places in members.values():
        numbers = {records[i].number for i in places}
        found += max(numbers) - min(numbers) + 1 - len(numbers)
    return found


def _tokens(tokenizer: Any, records: Sequence[Any], texts: Sequence[str]) -> list[int]:
    """Tokens of each record; of a conversation as the chat template writes it, where there is one."""
    if getattr(tokenizer, "chat_template", None):
        texts = [
            _conversation(tokenizer, record) or text if isinstance(record, Chat) else text
            for record, text in zip(records, texts, strict=True)
        ]
    special = not isinstance(records[0], Turn | Chat)
    found: list[int] = []
    for at in track(range(0, len(texts), AT_ONCE), "counting tokens"):
        part = list(texts[at : at + AT_ONCE])
        found += map(len, tokenizer(part, add_special_tokens=special, verbose=False)["input_ids"])
    return found


def _conversation(tokenizer: Any, record: Chat) -> str:
    try:
        return tokenizer.apply_chat_template([dict(message) for message in record.messages], tokenize=False)
    except Exception:  # templates raise what they like; whoever trains on this conversation is told of it
        return ""
