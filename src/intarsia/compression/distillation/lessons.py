"""Rows to learn from: windows of texts, texts one by one, and what the student writes itself."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from intarsia.compression.distillation.losses import NONE
from intarsia.compression.statistics import windows_of
from intarsia.errors import BadInput
from intarsia.sites import generate

if TYPE_CHECKING:
    from intarsia.models import Model


@dataclass(frozen=True)
class Row:
    """Token ids of one row.

    - first: the first place that is learned from (a place predicts the token after it). number: of the row in what a
      teacher's kept answers belong to. label: of a text, for classifiers. own: the student wrote it."""

    ids: tuple[int, ...]
    first: int = 0
    number: int = -1
    label: int = NONE
    own: bool = False

    @property
    def places(self) -> int:
        """How many places predict a token."""
        return len(self.ids) - 1 - self.first


def stream_rows(model: Model, records: Sequence[Any], tokens: int | None, window: int) -> list[Row]:
    """Texts as one stream, in windows of one length. Raises `BadInput` for texts without tokens."""
    texts = [record.text for record in records if record.text.strip()]
    if not texts:
        raise BadInput("compression.distil: the texts are empty; give text as the model will read it")
    windows = windows_of(model, texts, tokens or sys.maxsize, window)
    return [Row(tuple(ids), number=i) for i, ids in enumerate(windows)]


def single_rows(model: Model, records: Sequence[Any], tokens: int | None, window: int, labels: bool) -> list[Row]:
    """Texts one by one, cut at `window` tokens, until there are `tokens`.

    - labels: with the numbers of their labels. Raises `BadInput` for a text without one that the network knows."""
    known = {str(name): int(number) for name, number in (model.config.label2id or {}).items()} if labels else {}
    limit = min(window, model.context_length or window)
    rows, total = [], 0
    for record in records:
        if not record.text.strip():
            continue
        ids = model.tokenizer(record.text, truncation=True, max_length=limit, verbose=False)["input_ids"]  # type: ignore[misc]
        label = NONE
        if labels:
            given = getattr(record, "label", None)
            if given not in known:
                raise BadInput(
                    f"the text '{record.text[:30]}' has the label {given!r}, and the network knows "
                    f"{', '.join(list(known)[:6])}: relabel it, or learn from the teacher alone (soft: 1)"
                )
            label = known[given]
        rows.append(Row(tuple(ids), label=label))
        total += len(ids)
        if tokens is not None and total >= tokens:
            break
    if not rows:
        raise BadInput("compression.distil: the texts are empty; give text as the model will read it")
    return rows


def wanted(rows: Sequence[Row], device: torch.device) -> tuple[Tensor, Tensor]:
    """[row, token] bool, the places learned from in a batch padded on the right; and the token after each, [place]."""
    width = max(len(row.ids) for row in rows)
    mask = torch.zeros(len(rows), width, dtype=torch.bool)
    for i, row in enumerate(rows):
        mask[i, row.first : len(row.ids) - 1] = True
    following = [token for row in rows for token in row.ids[row.first + 1 :]]
    return mask.to(device), torch.tensor(following, dtype=torch.long, device=device)


def written(student: Model, rows: Sequence[Row], prompt_tokens: int, new_tokens: int, seed: int) -> list[Row]:
    """What the student writes after the beginnings of rows, drawn from its own distribution, up to the end of text.

    Agarwal et al. 2024 (GKD), algorithm 1: samples at temperature 1; nothing flows back through the drawing."""
    begun = [row.ids[:prompt_tokens] for row in rows]
    settings = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "repetition_penalty": 1.0}
    made = generate(student, [list(ids) for ids in begun], max_new_tokens=new_tokens, seed=seed, **settings).ids
    ends = getattr(student.network.generation_config, "eos_token_id", None)
    stops = set(ends if isinstance(ends, list) else [ends])
    out = []
    for ids, new in zip(begun, made.tolist(), strict=True):
        length = next((i + 1 for i, token in enumerate(new) if token in stops), len(new))
        out.append(Row((*ids, *new[:length]), first=len(ids) - 1, own=True))
    return out
