"""A teacher's answers on disk: at each place its most probable tokens and the mass of all others.

They lie in the cache, in `teachers/<key>`; the key is of the teacher's weights, the token ids, the temperature and the
number of tokens kept."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from intarsia.compression.distillation.chunks import ROWS, logits_of
from intarsia.compression.distillation.lessons import Row, wanted
from intarsia.compression.distillation.losses import Kept, log_probabilities, rest_of
from intarsia.models import cache
from intarsia.models.weights import weights_key
from intarsia.progress import track
from intarsia.sites import batch_of, read

if TYPE_CHECKING:
    from intarsia.models import Model

SHARD = 1 << 16  # places in one file
SMALL = 1 << 16  # vocabularies up to here fit two bytes a token


class Answers:
    """What a teacher said at every place of rows, by the rows' numbers."""

    def __init__(self, folder: Path, rows: Sequence[Row]) -> None:
        from safetensors import safe_open

        self.folder, self._starts = folder, [0]
        for row in rows:
            self._starts.append(self._starts[-1] + row.places)
        self._files = [safe_open(path, framework="pt") for path in sorted(folder.glob("*.safetensors"))]
        self._firsts = [0]
        for file in self._files:
            self._firsts.append(self._firsts[-1] + file.get_slice("rest").get_shape()[0])

    def at(self, rows: Sequence[Row]) -> Kept:
        """All places of these rows, in order."""
        parts = [self._row(row) for row in rows]
        ids, top, rest = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
        return Kept(ids.long(), top, rest)

    def _row(self, row: Row) -> tuple[Tensor, Tensor, Tensor]:
        begin, end = self._starts[row.number], self._starts[row.number + 1]
        number = bisect_right(self._firsts, begin) - 1  # (a row lies in one file)
        first = self._firsts[number]
        ids, top, rest = (
            self._files[number].get_slice(name)[begin - first : end - first] for name in ("ids", "top", "rest")
        )
        return ids, top, rest


@torch.no_grad()
def answers(
    teacher: Model, rows: Sequence[Row], batches: Sequence[Sequence[int]], site: str, top: int, temperature: float,
    choices: int,
) -> Answers:  # fmt: skip
    """A teacher's answers for rows, from the cache, or asked now.

    - batches: row numbers that the teacher reads together. site: its state after the last block."""
    top = min(top, choices - 1)  # (something is left over, so that its logarithm is a number)
    with cache.entry(f"teachers/{_key(teacher, rows, top, temperature, choices)}") as (final, part):
        if part is not None:
            _ask(teacher, rows, batches, site, top, temperature, choices, part)
            cache.write_facts(part, source=teacher.identity.source)
            cache.share_modes(part)
    return Answers(final, rows)


def _key(teacher: Model, rows: Sequence[Row], top: int, temperature: float, choices: int) -> str:
    digest = hashlib.sha256(f"{weights_key(teacher)} {teacher.dtype} {top} {temperature} {choices}".encode())
    for row in rows:
        digest.update(repr(row.ids).encode())
    return digest.hexdigest()[:32]


def _ask(
    teacher: Model, rows: Sequence[Row], batches: Sequence[Sequence[int]], site: str, top: int, temperature: float,
    choices: int, folder: Path,
) -> None:  # fmt: skip
    from safetensors.torch import save_file

    small = choices <= SMALL
    found: dict[int, list[tuple[Tensor, Tensor, Tensor]]] = {}
    next_row = shard = held = 0
    pending: list[tuple[Tensor, Tensor, Tensor]] = []

    def write() -> None:
        nonlocal shard, held
        tensors = [torch.cat(parts).contiguous() for parts in zip(*pending, strict=True)]
        save_file(dict(zip(("ids", "top", "rest"), tensors, strict=True)), folder / f"{shard:06d}.safetensors")
        pending.clear()
        shard, held = shard + 1, 0

    # In the order of the rows, whatever order they are read in: rows of one length keep theirs in the batches.
    for numbers in track(batches, "asking the teacher"):
        some = [rows[i] for i in numbers]
        batch = batch_of(teacher, [list(row.ids) for row in some])
        states = read(teacher, batch, at=site)[site]
        mask, _ = wanted(some, states.device)
        for number, row_states, row_mask in zip(numbers, states, mask, strict=True):
            found[number] = [
                _top(logits_of(teacher, chunk, choices), top, temperature, small)
                for chunk in row_states[row_mask].split(ROWS)
            ]
        while next_row in found:
            parts = found.pop(next_row)
            pending += parts
            held += sum(len(rest) for _, _, rest in parts)
            next_row += 1
            if held >= SHARD:
                write()
    if pending:
        write()


def _top(logits: Tensor, top: int, temperature: float, small: bool) -> tuple[Tensor, Tensor, Tensor]:
    logs = log_probabilities(logits, temperature)
    best, ids = logs.topk(top, dim=-1)
    return ids.to("cpu", torch.uint16 if small else torch.int32), best.float().cpu(), rest_of(logs, ids).float().cpu()
