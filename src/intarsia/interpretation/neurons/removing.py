"""Components out, many at a time: every row of a batch may lack others, and blocks below them are not run again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from intarsia.errors import BadInput
from intarsia.interpretation import states
from intarsia.interpretation.outcomes import Outcome
from intarsia.progress import track
from intarsia.sites import Apply, Edit, read, resume, run

if TYPE_CHECKING:
    from intarsia.models import Model

Component = tuple[int, int]
KINDS = {
    "heads": ("z",), "neurons": ("mlp_act",), "attention": ("attn_out",), "mlp": ("mlp_out",),
    "blocks": ("attn_out", "mlp_out"),
}  # fmt: skip
ROWS_TOKENS = 1024


class Remover:
    """Measures an outcome without components of one kind.

    - what: a key of `KINDS`. how: `zero`, `mean` (over the tokens of the outcome's texts) or `resample` (what it is in
      another of the texts, position by position, that text repeated where it is shorter).
    - first: take them out at the texts' first tokens, too. Models make these attention sinks with states unlike all
      others, so that they are left out of means as well.
    - layers: those whose components may be taken out; sizes: how many each has (0: it is taken out whole)."""

    def __init__(
        self,
        model: Model,
        outcome: Outcome,
        what: str,
        how: Literal["zero", "mean", "resample"],
        seed: int = 0,
        first: bool = False,
    ):
        self.model, self.outcome, self.what, self.how = model, outcome, what, how
        self._start = 0 if first else 1
        sites = model.sites
        self.layers = [
            layer for layer in range(states.layer_count(model))
            if all(states.site_name(sites, layer, kind) in sites for kind in KINDS[what])
        ]  # fmt: skip
        if not self.layers:
            model.sites.expand(states.site_name(sites, 0, KINDS[what][0]))  # says why
        if how == "resample" and len(outcome) < 2:
            raise BadInput(
                "interpretation.ablate: resampling wants two texts or more: what stands in comes from another"
            )
        names = self._names(self.layers)
        probe = read(model, outcome.inputs(outcome.batches[0][:1]), names)
        self.shapes = {name: probe[name].shape[2:] for name in names}
        self.sizes = {
            layer: self.shapes[self._names([layer])[0]][0] if what in ("heads", "neurons") else 0
            for layer in self.layers
        }
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(outcome), generator=generator).tolist()
        self._donor = dict(zip(order, order[1:] + order[:1], strict=True))
        self._means = self._read_means(names) if how == "mean" else {}

    def _names(self, layers: Sequence[int]) -> list[str]:
        return [states.site_name(self.model.sites, layer, kind) for layer in layers for kind in KINDS[self.what]]

    def _read_means(self, names: list[str]) -> dict[str, Tensor]:
        sums = {name: torch.zeros(self.shapes[name], dtype=torch.float64) for name in names}
        count = 0
        for rows in track(self.outcome.batches, "reading means"):
            inputs = self.outcome.inputs(rows)
            real = inputs["attention_mask"].bool()
            real[:, : self._start] = False
            acts = read(self.model, inputs, names)
            for name in names:
                sums[name] += acts[name][real].double().sum(0).cpu()
            count += int(real.sum())
        return {name: total / max(count, 1) for name, total in sums.items()}

    def components(self) -> list[Component]:
        """All there are, (layer, number); the number is -1 for a whole attention, MLP or block."""
        return [(layer, n) for layer in self.layers for n in (range(self.sizes[layer]) if self.sizes[layer] else (-1,))]

    def without(self, sets: Sequence[Sequence[Component]], task: str = "ablating") -> tuple[Tensor, Tensor]:
        """Losses and hits [set, text] float64 without the components of each set."""
        loss = torch.empty(len(sets), len(self.outcome), dtype=torch.float64)
        hits = torch.empty_like(loss)
        # Sets that begin at the same layer run together, on states read once.
        order = sorted(range(len(sets)), key=lambda s: min(layer for layer, _ in sets[s]))
        firsts = sorted({min(layer for layer, _ in one) for one in sets})
        beats = iter(track(range(len(self.outcome.batches) * len(sets)), task))
        for rows in self.outcome.batches:
            inputs = self.outcome.inputs(rows)
            pre = [states.site_name(self.model.sites, first, "resid_pre") for first in firsts if first]
            held = read(self.model, inputs, pre) if pre else None
            donors = self._donors(rows, inputs["input_ids"].shape[1], sets) if self.how == "resample" else {}
            most = max(1, ROWS_TOKENS // inputs["input_ids"].numel())
            for first in firsts:
                mine = [s for s in order if min(layer for layer, _ in sets[s]) == first]
                for start in range(0, len(mine), most):
                    part = mine[start : start + most]
                    state = None
                    if first:
                        state = held[states.site_name(self.model.sites, first, "resid_pre")]  # type: ignore[index]
                    logits = self._logits(inputs, state, first, [sets[s] for s in part], donors)
                    values = self.outcome.losses(logits, rows * len(part))
                    for out, value in zip((loss, hits), values, strict=True):
                        out[torch.tensor(part)[:, None], torch.tensor(rows)] = value.view(len(part), -1).cpu()
                    for _ in part:
                        next(beats, None)
        for _ in beats:
            pass
        return loss, hits

    @torch.no_grad()
    def _logits(
        self, inputs: dict[str, Tensor], state: Tensor | None, first: int, sets: list[Sequence[Component]],
        donors: dict[str, Tensor],
    ) -> Tensor:  # fmt: skip
        count = len(sets)
        stacked = {name: value.repeat(count, 1) for name, value in inputs.items()}
        edits = self._edits(sets, len(inputs["input_ids"]), donors)
        if state is None:
            return run(self.model, stacked, edits).logits
        grown = state.repeat(count, 1, 1)
        return resume(self.model, stacked, after=first - 1, state=grown, edits=edits).logits

    def _edits(self, sets: Sequence[Sequence[Component]], rows: int, donors: dict[str, Tensor]) -> list[Edit]:
        jobs: dict[str, list[tuple[slice, int]]] = {}
        for s, components in enumerate(sets):
            for layer, number in components:
                for name in self._names([layer]):
                    jobs.setdefault(name, []).append((slice(s * rows, (s + 1) * rows), number))
        return [Apply(name, function=self._writer(name, mine, donors)) for name, mine in jobs.items()]

    def _writer(self, name: str, jobs: list[tuple[slice, int]], donors: dict[str, Tensor]) -> Any:
        def write(tensor: Tensor) -> Tensor:
            out = tensor.clone()
            later = slice(self._start, None)
            for rows, number in jobs:
                if self.how == "zero":
                    value = torch.zeros((), device=out.device)
                elif self.how == "mean":
                    value = self._means[name].to(out.device, out.dtype)
                    value = value[number] if number >= 0 else value
                else:
                    value = donors[name].to(out.device)[:, later]
                    value = value[:, :, number] if number >= 0 else value
                if number >= 0:
                    out[rows, later, number] = value.to(out.dtype)
                else:
                    out[rows, later] = value.to(out.dtype)
            return out

        return write

    def _donors(self, rows: Sequence[int], width: int, sets: Sequence[Sequence[Component]]) -> dict[str, Tensor]:
        """What the sites are in each row's donor text: [row, token, ...], the donor repeated to the width."""
        names = self._names(sorted({layer for one in sets for layer, _ in one}))
        others = [self._donor[i] for i in rows]
        acts = read(self.model, self.outcome.inputs(others), names)
        lengths = torch.tensor([len(self.outcome.ids[i]) for i in others])
        # A shorter donor is repeated from its second token on.
        place = torch.arange(width)[None]
        at = torch.where(place > 0, 1 + (place - 1) % (lengths[:, None] - 1).clamp_min(1), 0)
        at = at.minimum(lengths[:, None] - 1)
        return {name: acts[name][torch.arange(len(others))[:, None], at.to(acts[name].device)] for name in names}

    def estimates(self) -> Tensor:
        """[component] first-order estimate of the mean rise of the loss without each neuron, in the order of
        `components`: the gradient times (what stands in - what is there), summed over tokens."""
        names = self._names(self.layers)
        widths = [self.shapes[name][0] for name in names]
        total = [torch.zeros(width, dtype=torch.float64) for width in widths]
        for rows in track(self.outcome.batches, "estimating"):
            inputs = self.outcome.inputs(rows)
            real = inputs["attention_mask"][..., None].cpu().clone()
            real[:, : self._start] = 0
            acts = read(self.model, inputs, names)
            donors = self._donors(rows, real.shape[1], [self.components()]) if self.how == "resample" else {}
            _, gradients = self.outcome.gradients(rows, names, widths)
            for n, name in enumerate(names):
                stands = 0.0 if self.how == "zero" else self._means[name] if self.how == "mean" else donors[name].cpu()
                change = (stands - acts[name].double().cpu()) * gradients[n].double() * real
                total[n] += change.sum((0, 1))
        return torch.cat(total) / len(self.outcome)
