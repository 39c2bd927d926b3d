"""Which labelled records stand before a text as demonstrations: those most like it, or the same ones for every text.

Source: nearest records, Liu et al. 2022, "What Makes Good In-Context Examples for GPT-3?", §3; maximal marginal
relevance, Carbonell & Goldstein 1998, eq. 1."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from intarsia.errors import BadInput

if TYPE_CHECKING:
    from intarsia.data import LabelledText

CANDIDATES = 50  # nearest records that maximal marginal relevance chooses among
RELEVANCE = 0.7


def nearest(
    pool: Sequence[LabelledText], pool_vectors: np.ndarray, records: Sequence[LabelledText], vectors: np.ndarray,
    count: int, *, relevance: float = RELEVANCE,
) -> list[list[int]]:  # fmt: skip
    """For each record the numbers of `count` records of the pool, the one most like it last.

    Of the nearest `CANDIDATES` each next one has the largest lambda * likeness to the record - (1 - lambda) * largest
    likeness to those chosen, with lambda = `relevance`; 1: simply the nearest. The record itself, and all of its own
    group (the dialogue it is from), are left out.

    - pool_vectors, vectors: [record, width], each of length one: likeness is their product."""
    if not 0 < relevance <= 1:
        raise BadInput(f"relevance is a share above 0, up to 1 (given: {relevance})")
    out = []
    kin = Kin(pool)
    for start in range(0, len(records), 256):
        near = vectors[start : start + 256] @ pool_vectors.T
        for record, likeness in zip(records[start : start + 256], near, strict=True):
            likeness[kin.of(record)] = -np.inf
            order = np.argsort(-likeness, kind="stable")[: max(CANDIDATES, count)]
            order = order[np.isfinite(likeness[order])]
            chosen = _diverse(likeness[order], pool_vectors[order] @ pool_vectors[order].T, count, relevance)
            picked = sorted((int(order[i]) for i in chosen), key=lambda i: (likeness[i], -i))
            out.append(picked)
    return out


def _diverse(likeness: np.ndarray, among: np.ndarray, count: int, relevance: float) -> list[int]:
    """Maximal marginal relevance over candidates in order of likeness."""
    chosen: list[int] = []
    nearest_chosen = np.full(len(likeness), -np.inf)
    left = np.ones(len(likeness), bool)
    while len(chosen) < count and left.any():
        worth = likeness if not chosen else relevance * likeness - (1 - relevance) * nearest_chosen
        best = int(np.where(left, worth, -np.inf).argmax())
        chosen.append(best)
        left[best] = False
        nearest_chosen = np.maximum(nearest_chosen, among[best])
    return chosen


def fixed(
    pool: Sequence[LabelledText], records: Sequence[LabelledText], labels: Sequence[str], count: int, *, seed: int = 0
) -> list[list[int]]:
    """For each record the numbers of `count` records of the pool for every label, drawn by the seed: the same ones for
    all records but those that are among them, or of their group, which get the next ones in their place.

    The labels take turns, in an order drawn by the seed, so that none of them stands last each time."""
    chance = random.Random(seed)
    order = list(range(len(pool)))
    chance.shuffle(order)
    turns = list(labels)
    chance.shuffle(turns)
    piles = {label: [i for i in order if pool[i].label == label] for label in turns}
    if empty := [label for label, pile in piles.items() if not pile]:
        raise BadInput(f"demonstrations: no record is labelled '{empty[0]}'")

    kin = Kin(pool)

    def drawn(barred: set[int]) -> list[int]:
        taken = {label: [i for i in pile if i not in barred][:count] for label, pile in piles.items()}
        return [taken[label][turn] for turn in range(count) for label in turns if turn < len(taken[label])]

    usual = drawn(set())
    out = []
    for record in records:
        barred = set(kin.of(record))
        out.append(drawn(barred) if barred.intersection(usual) else usual)
    return out


class Kin:
    """What may not stand before a record: itself, and all of its own group."""

    def __init__(self, pool: Sequence[LabelledText]):
        self._of_group: dict[str, list[int]] = defaultdict(list)
        self._same: dict[LabelledText, list[int]] = defaultdict(list)
        for i, record in enumerate(pool):
            self._same[record].append(i)
            if record.group is not None:
                self._of_group[record.group].append(i)

    def of(self, record: LabelledText) -> list[int]:
        """Numbers of the pool."""
        return self._same.get(record, []) if record.group is None else self._of_group.get(record.group, [])
