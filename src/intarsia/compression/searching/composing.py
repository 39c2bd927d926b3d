"""Compositions: what is cut, and how many bits each layer that is left has in which engine's file; and which of them a
budget makes worth trying."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

from intarsia.compression.quantization.grids import Grid
from intarsia.compression.searching.allocation import allocate
from intarsia.compression.searching.anatomy import Anatomy
from intarsia.compression.searching.budgets import Budget
from intarsia.compression.searching.families import FAMILIES, Cut, said_of
from intarsia.compression.searching.knowing import Evidence
from intarsia.compression.searching.stores import Store

SPARE = 0.003  # of the bytes that a budget allows: for what headers hold beyond the arithmetic
STEPS = (0.0, 0.1, 0.25, 0.5, 1.0)  # between a file's smallest and its largest bits, where no budget says how many


@dataclass(frozen=True)
class Composition:
    """- store: whose file it is made for. cuts: in the order in which they are done. grids: of each matrix, by the name
    it had in the whole network. bytes, parameters: by arithmetic. predicted: KL in nats a token.
    - recovered: whether what is left learned from the whole network before it was rounded."""

    store: str
    cuts: tuple[Cut, ...]
    grids: dict[str, Grid] = field(hash=False)
    bytes: int
    parameters: int
    predicted: float
    bits: float
    recovered: bool = False
    parts: dict[str, float] = field(default_factory=dict, hash=False)

    @property
    def facts(self) -> dict[str, Any]:
        """All that makes it what it is, as plain facts."""
        grids: dict[str, list[str]] = {}
        for name, grid in sorted(self.grids.items()):
            grids.setdefault(str(grid), []).append(name)
        return {"cuts": list(self.cuts), "grids": grids, "recovered": self.recovered}

    @property
    def name(self) -> str:
        """In a few words."""
        parts = [f"{self.bits:.2f} bits ({self.store})"]
        if self.cuts:
            parts.append(said_of(self.cuts))
        if self.recovered:
            parts.append("recovered")
        return ", ".join(parts)

    @property
    def hurt(self) -> bool:
        """Whether learning could make good for some of its cuts."""
        return any(FAMILIES[name].hurts for name, _ in self.cuts)


class Composer:
    """Makes the compositions that a budget allows, in levels: bits alone, then one family more at each."""

    def __init__(
        self, evidence: Evidence, shape: Anatomy, stores: Sequence[Store], families: Sequence[str], budget: Budget,
        base: dict[str, float],
    ):  # fmt: skip
        self.evidence, self.shape, self.stores, self.budget = evidence, shape, stores, budget
        self.values = {
            name: family.values(evidence, shape) for name, family in FAMILIES.items() if name in families
        }  # fmt: skip
        bound = budget.most_bytes
        self.most = math.inf if bound is None else bound.limit(base["bytes"]) * (1 - SPARE)
        bounds = budget.of("params")
        self.parameters = bounds[0].limit(base["params"]) if bounds else math.inf
        self._harms: dict[str, dict[str, list[float]]] = {}

    def levels(self) -> list[list[tuple[Cut, ...]]]:
        """Cuts that are tried together, in the order of what a megabyte costs by them."""
        out: list[list[tuple[Cut, ...]]] = [[()]]
        done: list[str] = []
        for name in self.values:
            before = [(), *(((other, v),) for other in done[:1] for v in self.values[other])]
            some = list(self.values[name][:3])
            out.append([(*cut, (name, value)) for value, cut in product(some, before)])
            done.append(name)
        return [level for level in out if level]

    def deepest(self) -> list[tuple[Cut, ...]]:
        """All families at their utmost, one after the other: where nothing milder fits."""
        cuts: tuple[Cut, ...] = ()
        out = []
        for name in self.values:
            if name != "rank" and self.values[name]:
                for value in self.values[name]:
                    out.append((*cuts, (name, value)))
                cuts = (*cuts, (name, self.values[name][-1]))
        return out

    def compositions(self, cuts: Sequence[tuple[Cut, ...]]) -> list[Composition]:
        """Of these cuts all that keep the bounds on bytes and parameters, the best first (by what the budget leaves
        free)."""
        found: dict[str, Composition] = {}
        for some, store in product(cuts, self.stores):
            if any(FAMILIES[name].stores and store.name not in FAMILIES[name].stores for name, _ in some):
                continue
            for composition in self._of(some, store):
                found.setdefault(repr(composition.facts) + store.name, composition)
        return sorted(found.values(), key=self.rank)

    def rank(self, one: Composition) -> tuple[float, float]:
        """What is compared before anything was measured; the least is best."""
        if self.budget.objective == "bytes" and self._good_enough(one.predicted):
            return (0.0, one.bytes)
        return (1.0, one.predicted) if self.budget.objective == "bytes" else (0.0, one.predicted)

    def _good_enough(self, predicted: float) -> bool:
        values = {"quality": math.exp(-predicted), "kl": predicted, "ppl": math.exp(predicted)}
        return not [b for b, _ in self.budget.broken(values, values)]

    def _of(self, cuts: tuple[Cut, ...], store: Store) -> list[Composition]:
        shape = self.shape
        for name, value in cuts:
            shape = FAMILIES[name].shape(shape, value, self.evidence)
        least, largest = store.smallest(shape), store.fixed(shape) + sum(max(store.costs(m)) for m in shape.matrices)
        if least > self.most or shape.parameters > self.parameters:
            return []
        lost = {name: FAMILIES[name].predicted(value, self.evidence) for name, value in cuts}
        if math.isfinite(self.most):
            targets = [min(self.most, largest)]
            if store.name == "gguf" and largest > least:
                targets.append(least)
        else:
            targets = [least + step * (largest - least) for step in STEPS]
        return [self._allocated(cuts, store, shape, target, lost) for target in dict.fromkeys(targets)]

    def _allocated(
        self, cuts: tuple[Cut, ...], store: Store, shape: Anatomy, target: float, lost: dict[str, float]
    ) -> Composition:
        matrices = [m for m in shape.matrices if store.grids(m)]
        choices = [store.grids(m) for m in matrices]
        whole = {m.name: m for m in self.shape.matrices}
        harms = self._of_store(store)
        rows = []
        for matrix, grids in zip(matrices, choices, strict=True):
            known = dict(zip(map(str, store.grids(whole[matrix.name])), harms[matrix.name], strict=True))
            share = matrix.weights / whole[matrix.name].weights
            rows.append([share * known.get(str(grid), min(known.values())) for grid in grids])
        costs = [[float(cost) for cost in store.costs(m)] for m in matrices]
        stays = sum(store.matrix(m, None) for m in shape.matrices if not store.grids(m))
        found = allocate(rows, costs, target - store.fixed(shape) - stays)
        grids = {m.name: choices[n][i] for n, (m, i) in enumerate(zip(matrices, found.chosen, strict=True))}
        total = sum(m.weights for m in matrices)
        bits = sum(m.weights * grids[m.name].bits for m in matrices) / max(total, 1)
        parts = {**lost, "bits": found.harm}
        return Composition(
            store.name, cuts, grids, store.bytes(shape, grids), shape.parameters, sum(parts.values()), bits, parts=parts
        )  # fmt: skip

    def _of_store(self, store: Store) -> dict[str, list[float]]:
        if store.name not in self._harms:
            self._harms[store.name] = self.evidence.harms({m.name: store.grids(m) for m in self.shape.matrices})
        return self._harms[store.name]


def with_recovery(one: Composition) -> Composition:
    """The same, with what is left learning from the whole."""
    return replace(one, recovered=True)
