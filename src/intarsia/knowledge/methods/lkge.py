"""LKGE: a masked autoencoder, embedding transfer, and old vectors held by how much is known about them."""

from __future__ import annotations

from torch import Tensor

from intarsia.knowledge.learning.autoencoder import Autoencoder
from intarsia.knowledge.learning.counts import occurrences
from intarsia.knowledge.learning.parts import Growing, Method, Option, Part
from intarsia.knowledge.learning.pull import Pull
from intarsia.knowledge.learning.settings import Settings


class Counted(Pull):
    """The weight of an old element is C / (C + c), with C the facts it had so far and c its new ones.

    What has much past and little new is held; a rare old element with many new facts may move. Every element counts
    once more than it occurs in each snapshot since it is known, so that nothing divides by zero (Cui et al. 2023,
    section on embedding regularisation).

    - squared: as the released code has it, where the weight stands inside the norm."""

    def __init__(self, strength: float, squared: bool = False):
        super().__init__(strength)
        self.squared = squared

    def weigh(self, growing: Growing) -> tuple[Tensor, Tensor] | None:
        old = [growing.old_entities, growing.old_relations]
        past = [Tensor([0.0] * count) for count in old]
        for i in range(growing.index):
            for total, counted in zip(past, occurrences(growing.graph, i, i), strict=True):
                total[: len(counted)] += counted + 1
        new = occurrences(growing.graph, growing.index, growing.index)
        weights = []
        for total, counted in zip(past, new, strict=True):
            weight = total / (total + counted[: len(total)] + 1)
            weights.append((weight.square() if self.squared else weight)[:, None].to(growing.tables.entities))
        return weights[0], weights[1]


def _parts(settings: Settings) -> list[Part]:
    return [Autoencoder(settings.option("beta")), Counted(settings.option("alpha"))]


def _parts_of_the_code(settings: Settings) -> list[Part]:
    return [
        Autoencoder(settings.option("beta"), relu=True, loops=True),
        Counted(settings.option("alpha"), squared=True),
    ]


OPTIONS = {
    "alpha": Option(0.01, "weight of the pull that holds old vectors"),
    "beta": Option(0.1, "weight of the autoencoder (the paper: 1 on FACT)"),
}

LKGE = Method(
    name="lkge",
    summary="masked autoencoder, embedding transfer, old vectors held by their share of facts",
    source="Cui et al. 2023 (LKGE)",
    family="regularisation",
    start="transfer",
    parts=_parts,
    options={
        **OPTIONS,
        "transfer": Option(1.0, "1: new vectors estimated from the new facts; 0: at random, as the released code does"),
    },
)
LKGE_CODE = Method(
    name="lkge-code",
    summary="LKGE as its released code computes it: no transfer, relu and self-loops in the autoencoder",
    source="Cui et al. 2023 (LKGE), official code",
    family="regularisation",
    parts=_parts_of_the_code,
    options=OPTIONS,
)
