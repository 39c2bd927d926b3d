"""Where in a text a state is taken from, and the states there: what probes and concept vectors are fitted on.

A place is the last token, the mean over all tokens but the first (models use that one as an attention sink, and its
state is unlike all others), or what a text marks by double square brackets: `The [[bank]] of the river`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from intarsia.errors import BadInput
from intarsia.interpretation import states
from intarsia.progress import track
from intarsia.sites import read

if TYPE_CHECKING:
    from collections.abc import Callable

    from intarsia.measure import LabelTask
    from intarsia.models import Model
    from intarsia.sites import Edit

Place = Literal["last", "mean", "marked"]
MARK = re.compile(r"\[\[(.+?)\]\]")


@dataclass(frozen=True)
class Placed:
    """Texts as token ids, and the places in them.

    - ids: token ids of each text. at: for each text the positions whose states are averaged (one, or all).
    - words: for each text the word at its place, in lower case: what a control task gives one label."""

    ids: list[list[int]]
    at: list[list[int]]
    words: list[str]

    def __len__(self) -> int:
        return len(self.ids)

    def part(self, rows: Sequence[int]) -> Placed:
        """Some of the texts."""
        return Placed([self.ids[i] for i in rows], [self.at[i] for i in rows], [self.words[i] for i in rows])


def placed(
    model: Model,
    records: Sequence[Any],
    at: Place,
    *,
    max_tokens: int | None = None,
    task: LabelTask | None = None,
    what: str = "",
) -> Placed:
    """The texts as token ids with their places.

    - task: puts each text into this label task's prompt; the last token is then where the label is read.

    Raises `BadInput` for a mark that is missing or cut off, and a model without a fast tokenizer."""
    texts = [states.text_of(record) for record in records]
    spans: list[tuple[int, int] | None] = [None] * len(texts)
    if at == "marked":
        if task is not None:
            raise BadInput(f"{what}: marked places and a label task's prompt do not go together: as_prompts=False")
        for i, text in enumerate(texts):
            found = MARK.findall(text)
            if len(found) != 1:
                raise BadInput(
                    f"{what}: text {i + 1} marks {len(found)} places: wants exactly one, in double square brackets, as "
                    "in 'The [[bank]] of the river'"
                )
            start = text.index("[[")
            texts[i], spans[i] = MARK.sub(r"\1", text), (start, start + len(found[0]))
    words = [
        text[slice(*span)] if span is not None else last_word(text) for text, span in zip(texts, spans, strict=True)
    ]
    if task is not None:
        from intarsia.measure.prompts import encode_prompts

        ids = encode_prompts(model, task.model_copy(update={"max_tokens": max_tokens or task.max_tokens}), records).ids
        return Placed(ids, [_positions(len(row), at) for row in ids], [w.lower() for w in words])
    if model.tokenizer is None:
        raise BadInput(f"{what}: this model has no tokenizer: wrap(network, tokenizer)")
    limit = min((n for n in (max_tokens, model.context_length) if n), default=None)
    ids, positions, cut = [], [], 0
    for i, text in enumerate(texts):
        encoded = model.tokenizer(text, return_offsets_mapping=at == "marked", verbose=False)
        row = list(encoded["input_ids"])
        if not row:
            raise BadInput(f"{what}: text {i + 1} has no tokens")
        cut += limit is not None and len(row) > limit
        ids.append(row[:limit])
        if (span := spans[i]) is None:
            positions.append(_positions(len(ids[-1]), at))
            continue
        inside = [n for n, (a, b) in enumerate(encoded["offset_mapping"]) if b > a and a < span[1] and b > span[0]]
        if not inside or inside[-1] >= len(ids[-1]):
            raise BadInput(f"{what}: the marked place of text {i + 1} lies beyond the {limit} tokens that are read")
        positions.append([inside[-1]])
    states.tell_cut(cut, len(texts), limit)
    return Placed(ids, positions, [w.lower() for w in words])


def last_word(text: str) -> str:
    """The last word of a text without the punctuation around it; the text itself when it has none."""
    found = re.findall(r"[^\W_]+(?:['’\-][^\W_]+)*", text)
    return found[-1] if found else text


def _positions(length: int, at: Place) -> list[int]:
    return list(range(1, length)) or [0] if at == "mean" else [length - 1]


def collect(
    model: Model,
    texts: Placed,
    layers: Sequence[int],
    *,
    batch_size: int = 16,
    edits: Sequence[Edit] | Callable[[list[int]], Sequence[Edit]] = (),
    kind: str = "resid_post",
    task: str = "reading states",
) -> Tensor:
    """States [text, layer, width] float32 on the CPU, averaged over each text's place.

    - edits: applied on the way; a function is given the numbers of a batch's texts."""
    names = [states.site_name(model.sites, layer, kind) for layer in layers]
    order = sorted(range(len(texts)), key=lambda i: len(texts.ids[i]))
    parts = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    out: Tensor | None = None
    for rows in track(parts, task) if task else parts:
        acts = read(model, [texts.ids[i] for i in rows], names, edits=edits(rows) if callable(edits) else edits)
        for n, name in enumerate(names):
            tensor = acts[name]
            if out is None:
                out = torch.empty(len(texts), len(names), tensor.shape[-1])
            for row, i in enumerate(rows):
                out[i, n] = tensor[row, texts.at[i]].float().mean(0).cpu()
    assert out is not None
    return out
