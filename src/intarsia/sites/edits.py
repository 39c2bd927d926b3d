"""Edits: what to write where."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from intarsia.errors import BadInput

Positions = int | slice | Sequence[int] | None


@dataclass(frozen=True)
class Edit:
    """A change at one site (or at all that a pattern selects).

    - site: name or pattern, `layers.3.resid_post`.
    - at: token positions in the unpadded prompt (-1 is its last token): a number, a list, a slice; None is every real
      token. In a batch the engine shifts them by each row's padding.
    - rows: the batch rows to change; None is all.
    - heads: for sites with a head axis (q, k, v, z, scores, pattern), the heads to change; None is all.
    - when: in generation, `prefill` applies it while the prompt is read, `always` also at each new token (there `at`
      None or -1 means the token being computed)."""

    site: str
    at: Positions = None
    rows: Sequence[int] | None = None
    heads: int | Sequence[int] | None = None
    when: Literal["prefill", "always"] = "prefill"

    def new(self, old: Tensor, rows: Tensor, cols: Tensor, each: int | None) -> Tensor:
        """The values [n, ...] for the selected tokens of `old` [batch, token, ...]; `each` is their number a row."""
        raise NotImplementedError


@dataclass(frozen=True)
class Replace(Edit):
    """Write `value` there: [...] the site's shape after the token axis, or with a leading [batch] and/or [position].

    With `at=None` a value of the site's full shape [batch, token, ...] is written token by token."""

    value: Any = None

    def new(self, old: Tensor, rows: Tensor, cols: Tensor, each: int | None) -> Tensor:
        return _spread(self.value, old, rows, cols, each, self.site)


@dataclass(frozen=True)
class Add(Edit):
    """Add `value` there, shaped as in `Replace`, times `factor`: steering, noise."""

    value: Any = None
    factor: float = 1.0

    def new(self, old: Tensor, rows: Tensor, cols: Tensor, each: int | None) -> Tensor:
        return old[rows, cols] + self.factor * _spread(self.value, old, rows, cols, each, self.site)


@dataclass(frozen=True)
class Scale(Edit):
    """Multiply what is there by `factor`; 0 ablates it."""

    factor: float = 0.0

    def new(self, old: Tensor, rows: Tensor, cols: Tensor, each: int | None) -> Tensor:
        return old[rows, cols] * self.factor


@dataclass(frozen=True)
class Apply(Edit):
    """Write `function(tensor)`: it is given the site's whole tensor [batch, token, ...] and returns one of that shape,
    of which the positions `at` are taken."""

    function: Callable[[Tensor], Tensor] = lambda tensor: tensor

    def new(self, old: Tensor, rows: Tensor, cols: Tensor, each: int | None) -> Tensor:
        result = self.function(old)
        if not isinstance(result, Tensor) or result.shape != old.shape:
            got = tuple(result.shape) if isinstance(result, Tensor) else type(result).__name__
            raise BadInput(f"edit of '{self.site}': the function must return the shape {tuple(old.shape)}, not {got}")
        return result[rows, cols]


def _spread(value: Any, old: Tensor, rows: Tensor, cols: Tensor, each: int | None, site: str) -> Tensor:
    """`value` as [n, ...], one entry for each selected token."""
    value = torch.as_tensor(value, device=old.device)
    value = value.to(old.dtype)
    tail, batch = old.shape[2:], old.shape[0]
    extra = value.dim() - len(tail)
    if extra >= 1 and value.shape[0] not in (1, batch) and batch % value.shape[0] == 0 and (extra == 2 or each == 1):
        value = value.repeat_interleave(batch // value.shape[0], dim=0)  # beams: several rows a prompt
    try:
        if extra <= 0:
            return value.expand(len(rows), *tail)
        if extra == 2 and value.shape[:2] == old.shape[:2] and (each is None or each == old.shape[1]):
            return value[rows, cols].expand(len(rows), *tail)
        if extra == 2 and each is not None:
            full = value.expand(batch, each, *tail)
            return full[rows, torch.arange(len(rows), device=rows.device) % each]
        if extra == 1 and each == 1 and value.shape[0] in (1, batch):
            return value.expand(batch, *tail)[rows]
        if extra == 1 and each is not None and value.shape[0] == each:
            return value[torch.arange(len(rows), device=rows.device) % each].expand(len(rows), *tail)
    except RuntimeError:
        pass
    where = f"{len(rows)} tokens" if each is None else f"{batch} rows x {each} positions"
    raise BadInput(f"edit of '{site}': a value of shape {tuple(value.shape)} does not fit {where} of {tuple(tail)}")


def select(edit: Edit, mask: Tensor, decoding: bool, beams: int = 1) -> tuple[Tensor, Tensor, int | None] | None:
    """Row and token indices an edit writes, given the real tokens [batch * beams, token]; None when there are none.

    The third value is the number of positions a row, or None when rows differ. `edit.rows` count without beams."""
    batch, width = mask.shape
    rows = range(batch)
    if edit.rows is not None:
        rows = [_row(r, batch // beams, edit) * beams + beam for r in edit.rows for beam in range(beams)]
    if decoding:
        if edit.when == "prefill" or not (edit.at is None or edit.at == -1):
            return None
        picked = {r: list(range(width)) for r in rows}
    else:
        picked = {}
        for r in rows:
            real = mask[r].nonzero().flatten().tolist()
            if edit.at is None:
                picked[r] = real
            elif isinstance(edit.at, slice):
                picked[r] = real[edit.at]
            else:
                asked = [edit.at] if isinstance(edit.at, int) else list(edit.at)
                for position in asked:
                    if not -len(real) <= position < len(real):
                        there = f"row {r}, which has {len(real)} tokens"
                        raise BadInput(f"edit of '{edit.site}': position {position} is outside {there}")
                picked[r] = [real[p] for p in asked]
    counts = {len(p) for p in picked.values()}
    if counts <= {0}:
        return None
    row_index = torch.tensor([r for r, p in picked.items() for _ in p], device=mask.device)
    col_index = torch.tensor([c for p in picked.values() for c in p], device=mask.device)
    return row_index, col_index, counts.pop() if len(counts) == 1 else None


def _row(row: int, batch: int, edit: Edit) -> int:
    if not -batch <= row < batch:
        raise BadInput(f"edit of '{edit.site}': row {row} of a batch of {batch} does not exist")
    return row % batch


def apply(edit: Edit, old: Tensor, mask: Tensor, decoding: bool, beams: int = 1) -> Tensor:
    """`old` [batch, token, ...] with the edit written in, as a new tensor; `old` itself when nothing is selected."""
    chosen = select(edit, mask, decoding, beams)
    if chosen is None:
        return old
    rows, cols, each = chosen
    new = edit.new(old, rows, cols, each).to(old.dtype)
    if edit.heads is not None:
        heads = [edit.heads] if isinstance(edit.heads, int) else list(edit.heads)
        if old.dim() != 4:
            raise BadInput(f"edit of '{edit.site}': this site has no head axis, so 'heads' cannot be given")
        count = old.shape[2]
        if bad := [h for h in heads if not -count <= h < count]:
            raise BadInput(f"edit of '{edit.site}': head {bad[0]} does not exist, there are {count}")
        chosen_heads = torch.zeros(count, dtype=torch.bool, device=old.device)
        chosen_heads[heads] = True
        new = torch.where(chosen_heads[None, :, None], new, old[rows, cols])
    return old.index_put((rows, cols), new)
