"""SI: old vectors held by what moving them did for the old loss."""

from __future__ import annotations

import torch
from torch import Tensor

from intarsia.knowledge.learning.parts import Growing, Method, Option, Part
from intarsia.knowledge.learning.pull import Pull
from intarsia.knowledge.learning.settings import Settings

DAMPING = 0.1


class Path(Pull):
    """The weight of a coordinate is the sum of -gradient x step along the way it was learned, divided by the square of
    how far it went, plus a damping (Zenke et al. 2017, equations 4 and 5), and by the mean of these weights."""

    def weigh(self, growing: Growing) -> tuple[Tensor, Tensor] | None:
        return (self.state["entities"], self.state["relations"]) if "entities" in self.state else None

    def begin(self, growing: Growing) -> None:
        super().begin(growing)
        self.start = growing.tables.copy()
        for name, table in _named(growing):
            self.state[f"{name}.path"] = torch.zeros_like(table)

    def adjust(self, growing: Growing) -> None:
        self.last = growing.tables.copy()

    def stepped(self, growing: Growing) -> None:
        for (name, table), before in zip(_named(growing), (self.last.entities, self.last.relations), strict=True):
            assert table.grad is not None
            self.state[f"{name}.path"] -= table.grad * (table.detach() - before)

    def improved(self, growing: Growing) -> None:
        for name, _ in _named(growing):  # the way to the vectors that will be kept, not to the last ones
            self.state[f"{name}.best"] = self.state[f"{name}.path"].clone()

    def end(self, growing: Growing) -> None:
        for (name, table), start in zip(_named(growing), (self.start.entities, self.start.relations), strict=True):
            gone = self.state.pop(f"{name}.path")
            path = self.state.pop(f"{name}.best", gone).clamp_min(0)
            new = path / ((table.detach() - start).square() + DAMPING)
            new /= new.mean().clamp_min(1e-30)
            if name in self.state:
                new[: len(self.state[name])] += self.state[name]
            self.state[name] = new


def _named(growing: Growing) -> tuple[tuple[str, Tensor], tuple[str, Tensor]]:
    return ("entities", growing.tables.entities), ("relations", growing.tables.relations)


def _parts(settings: Settings) -> list[Part]:
    return [Path(settings.option("strength"))]


SI = Method(
    name="si",
    summary="old vectors held by what moving them did for earlier losses",
    source="Zenke et al. 2017, as in Cui et al. 2023",
    family="regularisation",
    parts=_parts,
    options={"strength": Option(0.01, "weight of the pull (the paper: 1 on RELATION)")},
)
