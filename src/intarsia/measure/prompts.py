"""Prompts of a label task as token ids, cut where they would not fit: in the text, never in the cue."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from intarsia.errors import BadInput, Note

if TYPE_CHECKING:
    from intarsia.data import LabelledText
    from intarsia.measure.labels import LabelTask
    from intarsia.models import Model


@dataclass(frozen=True)
class Prompts:
    """Token ids of each prompt; `cut` counts those whose text (or context) was shortened to fit `limit` tokens."""

    ids: list[list[int]]
    cut: int
    limit: int | None


def encode_prompts(model: Model, task: LabelTask, records: Sequence[LabelledText], room: int = 1) -> Prompts:
    """Prompts as ids, with `room` tokens left free for a verbaliser.

    What does not fit loses first its oldest context turns, then the end of its text; the warning says how many texts
    that happened to. Raises `BadInput` when the template alone is too long or the model has no tokenizer."""
    tokenizer = model.tokenizer
    if tokenizer is None:
        raise BadInput("a label task needs text: this model has no tokenizer (wrap(network, tokenizer))")
    context = model.context_length
    limits = [n for n in (task.max_tokens, context - room if context else None) if n is not None]
    limit = min(limits) if limits else None
    prompts = [task.render(record.text, record.context) for record in records]
    # `verbose=False`: the tokenizer's own "longer than the maximum" would be said of texts that are cut below.
    ids = tokenizer(prompts, verbose=False)["input_ids"] if prompts else []
    cut = 0
    if limit is not None:
        for i, record in enumerate(records):
            if len(ids[i]) > limit:
                ids[i] = _ids(tokenizer, task, fitted(tokenizer, task, record, limit))
                cut += 1
    if cut:
        warnings.warn(f"{cut} of {len(ids)} texts were cut to fit {limit} tokens", Note, stacklevel=3)
    return Prompts([list(row) for row in ids], cut, limit)


def _ids(tokenizer: Any, task: LabelTask, record: LabelledText) -> list[int]:
    return list(tokenizer(task.render(record.text, record.context), verbose=False)["input_ids"])


def fitted(tokenizer: Any, task: LabelTask, record: LabelledText, limit: int) -> LabelledText:
    """The record as it fits `limit` tokens of prompt: without its oldest turns, then without the end of its text."""

    def cut(text: str, turns: Sequence[str]) -> LabelledText:
        return replace(record, text=text, context=tuple(turns))

    def ids_of(text: str, turns: Sequence[str]) -> list[int]:
        return _ids(tokenizer, task, cut(text, turns))

    turns = list(record.context)
    ids = ids_of(record.text, turns)
    while len(ids) > limit and turns:
        turns.pop(0)
        ids = ids_of(record.text, turns)
    if len(ids) <= limit:
        return cut(record.text, turns)
    text = record.text
    # Where each token of the text ends, to cut between tokens; the loop takes up what changes at the new seam.
    ends = [end for _, end in tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)[
        "offset_mapping"
    ]] if tokenizer.is_fast else list(range(1, len(text) + 1))  # fmt: skip
    keep = min(len(ends), max(len(ends) - (len(ids) - limit), 0)) if tokenizer.is_fast else len(ends) - 1
    while True:
        short = text[: ends[keep - 1]].rstrip() if keep else ""
        ids = ids_of(short, turns)
        if len(ids) <= limit:
            return cut(short, turns)
        if keep == 0:
            raise BadInput(
                f"the label task's template alone takes {len(ids)} tokens, and there is room for {limit}: "
                "shorten the template or raise max_tokens"
            )
        keep = max(0, keep - max(1, len(ids) - limit) if tokenizer.is_fast else keep * limit // len(ids))
