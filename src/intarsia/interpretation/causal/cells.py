"""Many interventions on one prompt at once: rows are cells, and blocks below a cell's first write are not run again.

A cell is a list of writes. Cells that begin at the same layer share a batch, which resumes from the base run's own
state below that layer. The result equals one `run` a cell with `Replace` edits."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from intarsia.progress import tell
from intarsia.sites import Activations, Apply, Edit, read, resume

if TYPE_CHECKING:
    from intarsia.models import Model


PER_HEAD = ("z", "q", "k", "v")


@dataclass(frozen=True)
class Write:
    """Values at one site of one layer.

    - kind: `resid_post`, `attn_out`, `mlp_out`, `z`, ...; positions: the tokens that are written.
    - value: [position, ...] for all rows of the base run, or [base row, position, ...].
    - head: one head of a site with heads; the value is then without the head axis."""

    kind: str
    layer: int
    positions: tuple[int, ...]
    value: Tensor
    head: int | None = None


Cell = Sequence[Write]
_prefixes: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()


def site(model: Model, layer: int, kind: str) -> str:
    """Full name of a site of the tower that carries the text; layer -1 is what enters the first block."""
    network = model.network
    if network not in _prefixes:  # the site map is looked up by walking all modules: too slow for every cell
        _prefixes[network] = model.sites.main.prefix
    prefix = _prefixes[network]
    return f"{prefix}layers.{layer}.{kind}" if layer >= 0 else f"{prefix}embed"


def below(model: Model, layer: int) -> str:
    """Name of the stream that enters a layer."""
    return site(model, layer - 1, "resid_post")


def stream_sites(model: Model) -> list[str]:
    """The stream before the first and after every block: what a base run must have read."""
    return [site(model, layer, "resid_post") for layer in range(-1, len(model.sites.blocks))]


@torch.no_grad()
def base_run(model: Model, inputs: Any, kinds: Sequence[str] = (), edits: Sequence[Edit] = ()) -> Activations:
    """The stream at every layer, and all sites of `kinds` that there are, of one run."""
    count = len(model.sites.blocks)
    names = [name for kind in kinds for i in range(count) if (name := site(model, i, kind)) in model.sites]
    return read(model, inputs, list(dict.fromkeys([*stream_sites(model), *names])), edits=edits)


def resumed(
    model: Model,
    base: Activations,
    layer: int,
    rows: Sequence[int],
    edits: Sequence[Edit] = (),
    state: Tensor | None = None,
    **more: Any,
) -> Any:
    """`resume` into block `layer` (0 is the first, the number of blocks the head alone) for rows of a base run."""
    name = below(model, layer)
    part = replace(base, tensors={name: base[name]}).rows(list(rows))
    after = f"{model.sites.main.prefix}embed" if layer == 0 else name.removesuffix(".resid_post")
    return resume(model, part, after, state=part[name] if state is None else state, edits=edits, **more)


def run_cells(
    model: Model,
    base: Activations,
    cells: Sequence[Cell],
    score: Callable[[Any], Tensor],
    *,
    batch_size: int = 64,
    keep: dict[str, Any] | None = None,
    task: str = "patching",
) -> Tensor:
    """The score of every cell in every row of the base run, [cell, base row] float64.

    - base: from `base_run`. score: the network's output -> [row].
    - batch_size: rows in one forward pass; keep: more arguments for the network."""
    seeds = base.batch.size
    out = torch.empty(len(cells), seeds, dtype=torch.float64)
    done = 0
    tell(task, 0, len(cells))
    for layer, chunk in chunks(cells, max(1, batch_size // seeds)):
        writes = [cells[index] for index in chunk]
        rows = list(range(seeds)) * len(chunk)
        state = base[below(model, layer)][rows]
        grouped = _grouped(writes, seeds)
        edits = []
        for (kind, at, _), (r, p, h, value) in grouped.items():
            put = _put(r, p, h, value)
            if kind == "resid_post" and at == layer - 1:
                state = put(state)
            else:
                edits.append(Apply(site(model, at, kind), function=put))
        with torch.no_grad():
            output = resumed(model, base, layer, rows, edits, state, **(keep or {}))
            out[chunk] = score(output).reshape(len(chunk), seeds).double().cpu()
        done += len(chunk)
        tell(task, done, len(cells))
    tell(task, done, len(cells), finished=True)
    return out


def first_layer(cell: Cell) -> int:
    """The first block that has to run."""
    return min(w.layer + (w.kind == "resid_post") for w in cell)


def chunks(cells: Sequence[Cell], size: int) -> Iterator[tuple[int, list[int]]]:
    """Cells that begin at the same layer, `size` at a time: (layer, their numbers)."""
    by_layer: dict[int, list[int]] = {}
    for index, cell in enumerate(cells):
        by_layer.setdefault(first_layer(cell), []).append(index)
    for layer in sorted(by_layer):
        for start in range(0, len(by_layer[layer]), size):
            yield layer, by_layer[layer][start : start + size]


def _grouped(cells: Sequence[Cell], seeds: int) -> dict[tuple[str, int, bool], tuple[list[int], ...]]:
    """By site: rows, positions, heads (empty for all heads) and values [n, ...] of all writes of a batch."""
    found: dict[tuple[str, int, bool], tuple[list[int], list[int], list[int], list[Tensor]]] = {}
    for number, cell in enumerate(cells):
        for write in cell:
            one_head = write.head is not None
            rows, positions, heads, values = found.setdefault((write.kind, write.layer, one_head), ([], [], [], []))
            dims = 3 if write.kind in PER_HEAD and not one_head else 2
            value = write.value if write.value.dim() > dims else write.value.expand(seeds, *write.value.shape)
            for seed in range(seeds):
                rows += [number * seeds + seed] * len(write.positions)
                positions += write.positions
                heads += [write.head] * len(write.positions) if write.head is not None else []
                values.append(value[seed])
    return {name: (r, p, h, torch.cat(v)) for name, (r, p, h, v) in found.items()}  # type: ignore[misc]


def _put(rows: list[int], positions: list[int], heads: list[int], value: Tensor) -> Callable[[Tensor], Tensor]:
    index = (rows, positions, heads) if heads else (rows, positions)

    def put(tensor: Tensor) -> Tensor:
        written = tensor.clone()
        written[index] = value.to(written.device, written.dtype)
        return written

    return put
