"""Techniques in the room `test`, for the tests of recipes and of the command line: quick, seeded, and with a clock."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any, ClassVar, Literal

import pydantic

from intarsia.catalog import Config, technique
from intarsia.models import Model
from intarsia.progress import track
from intarsia.report import Cell, Column, Finding, Table


class PerturbConfig(Config):
    scale: float = pydantic.Field(0.01, gt=0, description="standard deviation of what is added")
    rounds: int = pydantic.Field(3, ge=1, le=50, description="how many times")
    kind: Literal["normal", "uniform"] = pydantic.Field("normal", description="the noise")
    pause: float = pydantic.Field(0.0, description="seconds a round takes")


@technique("test.perturb", kind="change", family="tests", source="none")
def perturb(model: Model, config: PerturbConfig, *, train: list[Any] | None = None, seed: int = 0) -> Model:
    """Add seeded noise to every weight."""
    import torch

    out = model.copy()
    own = torch.Generator().manual_seed(seed)
    for _ in track(range(config.rounds), "perturbing"):
        time.sleep(config.pause)
        with torch.no_grad():
            for parameter in out.network.parameters():
                noise = torch.empty_like(parameter)
                noise.normal_(generator=own) if config.kind == "normal" else noise.uniform_(-1, 1, generator=own)
                # Half of it from the global generator: a resumed step must find that one in the same state.
                parameter.add_(config.scale * (noise + torch.randn_like(parameter)) / 2)
    return out.with_network(out.network, technique="test.perturb", **config.model_dump())


class Sum(Finding):
    volatile: ClassVar[frozenset[str]] = frozenset({"seconds", "process"})
    total: float
    texts: int
    distance: float | None = None
    draw: float = 0.0
    seconds: float
    process: int

    def headline(self) -> dict[str, tuple[Cell | tuple[float, float, float], Column]]:
        out: dict[str, Any] = {"total": (self.total, Column(name="total", format=".4f"))}
        if self.distance is not None:
            out = {"distance": (self.distance, Column(name="distance", format=".4f", better="lower"))}
        return out

    def headlines(self) -> dict[str, Any]:
        return {"": self.headline(), "twice": {"total": (2 * self.total, Column(name="total", format=".4f"))}}

    def tables(self) -> list[Table]:
        return [
            Table(title="Sum", columns=[Column(name="total"), Column(name="texts")], rows=[[self.total, self.texts]])
        ]


class SumConfig(Config):
    power: int = pydantic.Field(1, description="power of each weight")
    names: list[str] = pydantic.Field([], description="only weights with one of these words in their name")
    most: int | None = pydantic.Field(None, description="how many texts at most (unit: texts)")
    fast: bool = pydantic.Field(True, description="take the fast path")


@technique("test.sum", kind="look", family="tests", source="none")
def total(model: Model, config: SumConfig, *, texts: list[Any], against: Model | None = None, seed: int = 0) -> Sum:
    """Sum the weights."""
    import torch

    chosen = texts[: config.most]
    values = {
        name: value.double() ** config.power
        for name, value in model.network.state_dict().items()
        if not config.names or any(word in name for word in config.names)
    }
    distance = None
    if against is not None:
        other = against.network.state_dict()
        distance = sum(float((value.double() - other[name].double()).norm()) for name, value in values.items())
    return Sum(
        title="Sum of weights",
        summary="The weights were summed.",
        total=sum(float(value.sum()) for value in values.values()),
        texts=len(chosen),
        distance=distance,
        draw=float(torch.rand(1)),
        seconds=time.time(),
        process=os.getpid(),
    )


class NormConfig(Config):
    at: str = pydantic.Field("layers.*.resid_post", description="the sites that are read")


@technique("test.norm", kind="look", family="tests", source="none")
def norm(model: Model, config: NormConfig, *, texts: list[Any]) -> Finding:
    """The mean size of what is read."""
    from intarsia.sites import read

    acts = read(model, [record.text for record in texts], config.at)
    size = sum(float(acts[site].norm(dim=-1).mean()) for site in acts.sites)
    return Finding(title="Norm", summary=f"{len(acts.sites)} sites, {size:.1f} in all.")


class FailConfig(Config):
    how: Literal["bug", "disk", "wrapped disk", "interrupt", "wrong"] = "bug"


@technique("test.fail", kind="change", family="tests", source="none")
def fail(model: Model, config: FailConfig) -> Model:
    """Fail in one of several ways."""
    import errno

    match config.how:
        case "bug":
            raise ZeroDivisionError("a bug")
        case "disk":
            raise OSError(errno.ENOSPC, "No space left on device")
        case "wrapped disk":
            raise RuntimeError("Error while serializing: IoError(No space left on device (os error 28))")
        case "interrupt":
            raise KeyboardInterrupt
    return "no model"  # type: ignore[return-value]


class NeedyConfig(Config):
    rate: float


@technique("test.needy", kind="change", family="tests", source="none", extra="energy")
def needy(model: Model, config: NeedyConfig, *, pairs: list[Any]) -> Model:
    """Need a setting, a split and an extra."""
    return model


RECIPE = """\
name: tiny
model: model
data: {train: train.txt, test: test.txt}
seed: 3
steps:
  - test.sum: {on: base}
  - test.perturb: {scale: 0.05, pause: PAUSE}
    as: tuned
  - test.perturb: {scale: 1e-2, kind: uniform, pause: PAUSE}
    as: small
  - test.sum: {on: [base, tuned, small]}
  - test.sum: {on: small, against: base}
"""


def prepare(folder: Path, pause: float = 0.0) -> Path:
    """A folder with a tiny saved model, two data files and a recipe; gives the recipe's path."""
    from tests.tiny import tiny

    folder.mkdir(parents=True, exist_ok=True)
    tiny("llama").save(folder / "model")
    (folder / "train.txt").write_text("one\ntwo\nthree\n", encoding="utf-8")
    (folder / "test.txt").write_text("four\nfive\n", encoding="utf-8")
    recipe = folder / "recipe.yaml"
    recipe.write_text(RECIPE.replace("PAUSE", str(pause)), encoding="utf-8")
    return recipe


if __name__ == "__main__":
    from intarsia.cli import main

    main(sys.argv[1:])
