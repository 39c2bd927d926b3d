"""`compression.advise`: what to do to a model before anything is done to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import pydantic
from pydantic import Field

from intarsia.catalog import Config, technique
from intarsia.report import Column, Figure, Finding, Series, Table

if TYPE_CHECKING:
    from intarsia.models import Model


class AdviseConfig(Config):
    """Settings of `compression.advise`."""

    budget: str | None = Field(
        None, description="what it has to fit, as for `compression fit`: 'bytes<90MB, decode>4x'"
    )
    measure: bool = Field(True, description="time this model's matrices in every format on this machine")
    texts: bool = Field(False, description="whether there is text of the domain to calibrate and distil on")


class Size(pydantic.BaseModel):
    """One file this model could be: its engine, what is in it, its bytes, and why it cannot be made here, if so."""

    engine: str
    what: str
    bytes: int
    refused: str | None = None


class Timed(pydantic.BaseModel):
    """A format: seconds of one product for one token and for a prompt, in PyTorch."""

    format: str
    one: float
    many: float


class Advised(pydantic.BaseModel):
    """A family for this model. rank: the order to try it in. here: what it comes to with this model; commands: how."""

    family: str
    rank: int | None
    gain: str
    price: str
    remedy: str
    here: str
    commands: list[str] = Field(default_factory=list)


class Advice(Finding):
    """- parameters: by role. sizes: of files. abilities: of the processor. shape, timed: of the commonest matrix.
    - families: the survey's, for this model. warnings: traps. missing: what else would be needed to say more."""

    volatile: ClassVar[frozenset[str]] = frozenset({"timed", "summary"})

    parameters: dict[str, int] = Field(default_factory=dict)
    bytes_now: int = 0
    sizes: list[Size] = Field(default_factory=list)
    abilities: list[str] = Field(default_factory=list)
    shape: tuple[int, int] = (0, 0)
    timed: list[Timed] = Field(default_factory=list)
    families: list[Advised] = Field(default_factory=list)
    warnings: list[str] = Field(default_factory=list)
    missing: list[str] = Field(default_factory=list)

    def tables(self) -> list[Table]:
        """Families, sizes, formats on this machine, traps."""
        wide = ["family", "first", "gain", "price", "way out", "here"]
        rows: list[list[Any]] = [[f.family, f.rank, f.gain, f.price, f.remedy, f.here] for f in self.families]
        columns = [Column(name=n, format=",d" if n == "first" else "") for n in wide]
        out = [Table(title="Families, and what they come to here", columns=columns, rows=rows)]
        commands = [[f.family, command] for f in self.families for command in f.commands]
        if commands:
            out.append(Table(title="How", columns=[Column(name="family"), Column(name="command")], rows=commands))
        columns = [
            Column(name="engine"), Column(name="what"), Column(name="bytes", format="bytes", better="lower"),
            Column(name="of now", format=".0%", better="lower"), Column(name="remark"),
        ]  # fmt: skip
        sizes: list[list[Any]] = [
            [s.engine, s.what, s.bytes, s.bytes / max(self.bytes_now, 1), s.refused or ""] for s in self.sizes
        ]
        told = ", ".join(f"{name} {count:,}" for name, count in self.parameters.items() if count)
        note = f"By arithmetic. Parameters: {told}. Now: {self.bytes_now / 1e6:,.1f} MB."
        out.append(Table(title="What it could weigh", columns=columns, rows=sizes, note=note))
        if self.timed:
            columns = [
                Column(name="format"), Column(name="one token", unit="µs", format=",.0f", better="lower"),
                Column(name="a prompt of 256", unit="µs", format=",.0f", better="lower"),
            ]  # fmt: skip
            times: list[list[Any]] = [[t.format, 1e6 * t.one, 1e6 * t.many] for t in self.timed]
            has = ", ".join(self.abilities) or "nothing that it tells of"
            note = (
                f"One product with a matrix of {self.shape[0]:,} x {self.shape[1]:,} in PyTorch, best of seven rounds. "
                f"The processor has for small numbers: {has}. An exported file runs on kernels of its own engine."
            )
            out.append(Table(title="Formats on this machine", columns=columns, rows=times, note=note))
        for title, lines in (("Traps", self.warnings), ("What else is needed", self.missing)):
            if lines:
                out.append(Table(title=title, columns=[Column(name="")], rows=[[line] for line in lines]))
        return out

    def figures(self) -> list[Figure]:
        """Bytes of the files that can be made."""
        sizes = [s for s in self.sizes if s.refused is None]
        names = [f"{s.engine}, {s.what}" for s in sizes]
        series = Series(name="bytes", x=names, y=[s.bytes / 1e6 for s in sizes])
        return [Figure(title="What it could weigh", kind="bar", y="MB", series=[series])] if sizes else []


@technique(
    "compression.advise",
    kind="look",
    family="search",
    source="Goel et al. 2020, arXiv 2003.11066, table 1 and guidelines; formats timed on this machine",
    needs="weights",
    gives="Advice",
)
def advise(model: Model, config: AdviseConfig) -> Advice:
    """Which families of compression suit this model on this machine, what each would come to, and the traps.

    Sizes are arithmetic, formats are timed on the model's own matrices; nothing is compressed, and the model is not
    changed. With a budget it is said whether bits alone reach it, and what does otherwise: for the search itself see
    `compression.fit`.

    Raises `BadInput` for a budget that cannot be read."""
    from intarsia.compression.advising.run import look

    return look(model, config)
