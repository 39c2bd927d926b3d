"""`measure.cost`: what a model costs: weights, bytes, arithmetic, speed, memory, energy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import pydantic
from pydantic import Field

from intarsia.catalog import Config, technique
from intarsia.report import Column, Figure, Finding, Series, Table

if TYPE_CHECKING:
    from intarsia.models import Model

Spread = tuple[float, float, float]
_BYTES = Column(name="bytes on disk", format="bytes", better="lower", help="weight files of the saved folder")
_DECODE = Column(name="decode", unit="tokens/s", format=",.1f", better="higher", help="median and range of the rounds")
_PREFILL = Column(name="prefill", unit="tokens/s", format=",.1f", better="higher", help="median and range")
_MEMORY = Column(name="peak memory", format="bytes", better="lower", help="a fresh process that loads and runs it")


class CostConfig(Config):
    """Settings of `measure.cost`."""

    prompt_tokens: int = Field(128, ge=1, description="tokens of the prompt that is read; MACs are counted at it too")
    new_tokens: int = Field(24, ge=1, description="tokens that are written after the prompt")
    repeats: int = Field(5, ge=1, description="timed rounds, after one that warms up")
    speed: bool = Field(True, description="measure tokens per second")
    memory: bool = Field(True, description="measure peak memory in a fresh process")
    energy: bool = Field(True, description="estimate energy with codecarbon, where it is installed")


class EngineCost(pydantic.BaseModel):
    """What one engine needs on this machine. Rates are tokens a second as (median, lowest, highest)."""

    prefill: Spread | None = None
    decode: Spread | None = None
    peak_memory: int | None = None
    joules_per_token: float | None = None


class Cost(Finding):
    """A model's cost. `bytes_on_disk` and `engines` have an entry `torch` and one for each export.

    - parameters, trainable, nonzero: weights; shared ones count once, quantized ones count as what they stand for
    - tensor_bytes: of parameters and buffers in memory; bytes_on_disk: of the weight files
    - macs_per_token: of a forward over `prompt_tokens` tokens: half the FLOPs that torch counts"""

    volatile: ClassVar[frozenset[str]] = frozenset({"engines", "threads", "notes", "summary"})

    parameters: int
    trainable: int
    nonzero: int
    tensor_bytes: int
    bytes_on_disk: dict[str, int]
    macs_per_token: int | None = None
    prompt_tokens: int
    new_tokens: int
    repeats: int
    threads: int
    engines: dict[str, EngineCost] = Field(default_factory=dict)
    notes: list[str] = Field(default_factory=list)

    def headline(self) -> dict[str, Any]:
        """Bytes on disk and decoding speed (an encoder's: prefill) of the network itself."""
        return self.headlines().get("", {})

    def headlines(self) -> dict[str, dict[str, Any]]:
        """The same for torch (the empty name) and for every export, by its engine."""
        rows: dict[str, dict[str, Any]] = {}
        for engine, size in self.bytes_on_disk.items():
            cost = self.engines.get(engine, EngineCost())
            row = rows["" if engine == "torch" else engine] = {"bytes": (size, _BYTES)}
            for key, rate, column in (("decode", cost.decode, _DECODE), ("prefill", cost.prefill, _PREFILL)):
                if rate is not None:
                    row[key] = (rate, column)
                    break
        return rows

    def tables(self) -> list[Table]:
        """Engines, one a row; then what does not depend on one."""
        columns = [Column(name="engine"), _BYTES, _PREFILL, _DECODE, _MEMORY]
        rows: list[list[Any]] = []
        for engine, size in self.bytes_on_disk.items():
            cost = self.engines.get(engine, EngineCost())
            rows.append([engine, size, cost.prefill, cost.decode, cost.peak_memory])
        if any(cost.joules_per_token is not None for cost in self.engines.values()):
            columns.append(Column(name="energy (estimate)", unit="J/token", format=".3g", better="lower"))
            for row in rows:
                row.append(self.engines.get(str(row[0]), EngineCost()).joules_per_token)
        note = (
            f"{self.prompt_tokens} tokens read, {self.new_tokens} written, batch 1, {self.threads} threads; median and "
            f"range of {self.repeats} rounds."
        )
        size_rows: list[list[Any]] = [
            ["parameters", f"{self.parameters:,}"],
            ["of these trainable", f"{self.trainable:,}"],
            ["of these not zero", f"{self.nonzero:,}"],
            ["tensors in memory, bytes", f"{self.tensor_bytes:,}"],
        ]
        if self.macs_per_token is not None:
            size_rows.append([f"MACs a token, over {self.prompt_tokens}", f"{self.macs_per_token:,}"])
        return [
            Table(title="Cost by engine", columns=columns, rows=rows, note=" ".join([note, *self.notes])),
            Table(
                title="Size",
                columns=[Column(name="what"), Column(name="count")],
                rows=size_rows,
                note="A MAC is two of the FLOPs that torch's counter reports.",
            ),
        ]

    def figures(self) -> list[Figure]:
        """Bars of bytes, speeds and memory."""
        names = list(self.bytes_on_disk)
        sizes = Series(name="bytes on disk", x=names, y=[size / 1e6 for size in self.bytes_on_disk.values()])
        charts = [Figure(title="Weights on disk", kind="bar", y="MB", series=[sizes])]
        for what, title in (("prefill", "Reading a prompt"), ("decode", "Writing")):
            rates = {name: rate for name, cost in self.engines.items() if (rate := getattr(cost, what)) is not None}
            if rates:
                middle, low, high = (list(column) for column in zip(*rates.values(), strict=True))
                series = Series(name=what, x=list(rates), y=middle, low=low, high=high)
                charts.append(Figure(title=title, kind="bar", y="tokens/s", series=[series]))
        memory = {name: cost.peak_memory for name, cost in self.engines.items() if cost.peak_memory}
        if memory:
            series = Series(name="peak memory", x=list(memory), y=[peak / 1e6 for peak in memory.values()])
            charts.append(Figure(title="Peak memory", kind="bar", y="MB", series=[series]))
        return charts


@technique(
    "measure.cost",
    kind="look",
    family="cost",
    source="torch FlopCounterMode; codecarbon (Courty et al.) for the energy estimate",
    needs="weights",
    gives="Cost",
)
def cost(model: Model, config: CostConfig) -> Cost:
    """Parameters, bytes on disk, MACs, prefill and decode speed, peak memory and an energy estimate of a model.

    Exports of the model for other engines get a row each and take turns with torch while they are timed. What cannot be
    measured is left out and said in `notes`. The model is saved to a temporary folder, which is removed."""
    from intarsia.measure.costing import measure

    return measure(model, config)
