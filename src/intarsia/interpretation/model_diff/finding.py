"""`Diff`: what `interpretation.diff` found, as plain data, and how it reads as a page."""

from __future__ import annotations

import itertools
from typing import Any

import pydantic
from pydantic import Field

from intarsia.interpretation.model_diff.facts import FactsDiff
from intarsia.interpretation.wording import percent, visible
from intarsia.report import Block, Cell, Column, Figure, Finding, Series, Table, TokenMap

Interval = tuple[float, float, float]  # value, low, high: 95 % bootstrap over texts

KL_BINS = (0.0, 1e-4, 1e-3, 1e-2, 0.1, 0.3, 1.0, 3.0)  # lower edges, nats


class OutputDiff(pydantic.BaseModel):
    """The predictions, averaged over positions. Nats; `loss` is the mean -log p of the actual next token."""

    positions: int
    kl: Interval
    kl_quantiles: dict[str, float]
    kl_max: float
    total_variation: float
    agreement: Interval
    overlap: float
    entropy_before: float
    entropy_after: float
    loss_before: float | None = None
    loss_after: float | None = None
    loss_change: Interval | None = None
    half_share: float = 0.0
    histogram: list[float] = []


class LayerDiff(pydantic.BaseModel):
    """One pair of layers. Medians over tokens, the first token of each text apart; None where it cannot be compared.

    `stream`: ||after - before|| / ||before|| of the residual stream after the block; `first`: the same at the first
    tokens. `attention`, `mlp`: the same of what attention and MLP put out. `attention_added`, `mlp_added`: the change
    of what they put out against the size of the stream."""

    before: int
    after: int
    stream: float | None = None
    first: float | None = None
    cosine: float | None = None
    cka: float | None = None
    attention: float | None = None
    mlp: float | None = None
    attention_added: float | None = None
    mlp_added: float | None = None
    lens_agreement: float | None = None
    lens_parts: float | None = None


class Change(pydantic.BaseModel):
    """One position: what was read, what came next, and the top tokens of both models there."""

    context: str
    token: str
    actual: str | None
    kl: float
    before: str
    after: str


class TokenChange(pydantic.BaseModel):
    """A token of the vocabulary and its mean probability over all positions."""

    token: str
    before: float
    after: float


class InputChange(pydantic.BaseModel):
    """A token of the texts and the mean KL of the predictions made right after reading it."""

    token: str
    count: int
    kl: float


class WeightDiff(pydantic.BaseModel):
    """One weight: its role (path inside the block), layer (None outside the blocks) and relative change."""

    layer: int | None
    role: str
    distance: float
    count: int


class Diff(Finding):
    """Two models on the same texts: predictions, layers, lenses, weights.

    `cue`: the predictions at the prompts' cue only. `parted_at`: the first layer (of the model after) whose stream
    differs at all. `lens_stays`: share of positions whose final top tokens agree."""

    before: str = ""
    after: str = ""
    texts: int = 0
    prompts: bool = False
    causal: bool = True
    output: OutputDiff | None = None
    cue: OutputDiff | None = None
    layers: list[LayerDiff] = Field(default_factory=list)
    parted_at: int | None = None
    lens_stays: float | None = None
    cka: list[list[float | None]] = Field(default_factory=list)
    cka_before: list[int] = Field(default_factory=list)
    cka_after: list[int] = Field(default_factory=list)
    maps: list[TokenMap] = Field(default_factory=list)
    changes: list[Change] = Field(default_factory=list)
    risen: list[TokenChange] = Field(default_factory=list)
    fallen: list[TokenChange] = Field(default_factory=list)
    inputs: list[InputChange] = Field(default_factory=list)
    weights: list[WeightDiff] = Field(default_factory=list)
    unmatched: int = 0
    facts: FactsDiff | None = None

    @property
    def identical(self) -> bool:
        """Whether nothing that was compared differs at all."""
        same = self.output is None or (self.output.kl_max == 0 and self.output.total_variation == 0)
        return same and not self.parted_anywhere and not self.changed_weights and not self.unmatched

    @property
    def parted_anywhere(self) -> bool:
        """Whether any layer's stream differs, or could not be compared."""
        return any(row.stream is None or row.stream > 0 or (row.first or 0) > 0 for row in self.layers) or (
            self.parted_at is not None
        )

    @property
    def changed_weights(self) -> list[WeightDiff]:
        """The weights that differ, the most changed first."""
        return sorted((w for w in self.weights if w.distance > 0), key=lambda w: -w.distance)

    def headline(self) -> dict[str, tuple[Cell | Interval, Column]]:
        if self.output is None:
            return {}
        return {
            "diff_agreement": (
                self.output.agreement,
                Column(
                    name="same next token", format=".1%", help="share of positions; as the model it is held against"
                ),
            ),
        }

    # -- tables ------------------------------------------------------------------------------------------------------

    def tables(self) -> list[Table]:
        found = [self.numbers(), self.change_table(), *self.token_tables(), self.weight_table(), self.layer_table()]
        return [table for table in found if table is not None]

    def numbers(self) -> Table | None:
        """The headline numbers: one row a measure."""
        if self.output is None:
            return None
        # One table holds shares, nats and ranges, so each cell is written with its own unit.
        scopes = [("all positions", self.output)]
        if self.cue is not None:
            scopes.insert(0, ("where the label is read", self.cue))
        columns = [Column(name="")]
        columns += [Column(name=f"{name} ({scope.positions:,})") for name, scope in scopes]
        lines: list[tuple[str, Any]] = [
            ("same next token", lambda o: _share(o.agreement)),
            ("in common among the top 5", lambda o: f"{o.overlap:.1%}"),
            ("KL(before || after), mean", lambda o: _nats(o.kl)),
            ("KL, median / 90 % / 99 % / largest", lambda o: " / ".join(
                f"{v:.3g}" for v in (*(o.kl_quantiles[q] for q in ("50", "90", "99")), o.kl_max)
            )),
            ("probability that moved to other tokens", lambda o: f"{o.total_variation:.1%}"),
            ("positions that carry half of the KL", lambda o: f"{o.half_share:.1%}"),
            ("entropy before → after", lambda o: f"{o.entropy_before:.2f} → {o.entropy_after:.2f} nats"),
        ]  # fmt: skip
        if self.output.loss_change is not None or (self.cue and self.cue.loss_change is not None):
            lines += [
                (
                    "loss on the actual next token, before → after",
                    lambda o: "" if o.loss_before is None else f"{o.loss_before:.3f} → {o.loss_after:.3f} nats",
                ),
                (
                    "change of the loss (below 0: better after)",
                    lambda o: "" if o.loss_change is None else _nats(o.loss_change, sign="+"),
                ),
            ]
        rows: list[list[Any]] = [[name, *(cell(scope) for _, scope in scopes)] for name, cell in lines]
        note = "In brackets: 95 % bootstrap interval over texts. The first position of each text is left out."
        return Table(title="In numbers", columns=columns, rows=rows, note=note)

    def change_table(self) -> Table | None:
        """The positions that changed most."""
        if not self.changes:
            return None
        columns = [
            Column(name="read so far"),
            *([Column(name="actual next")] if self.causal else []),
            Column(name="before"),
            Column(name="after"),
            Column(name="KL", unit="nats", format=".3g"),
        ]
        rows: list[list[Any]] = []
        for c in self.changes:
            middle = [visible(c.actual) if c.actual is not None else ""] if self.causal else []
            rows.append([c.context + c.token, *middle, c.before, c.after, c.kl])
        return Table(title="The most changed predictions", columns=columns, rows=rows)

    def token_tables(self) -> list[Table]:
        """Tokens that became likelier or rarer, and tokens after which the models differ."""
        tables = []
        for title, tokens in (("Tokens that became likelier", self.risen), ("Tokens that became rarer", self.fallen)):
            if tokens:
                columns = [
                    Column(name="token"),
                    Column(name="before", format=".3%"),
                    Column(name="after", format=".3%"),
                    Column(name="change", format="+.3%"),
                ]
                rows: list[list[Any]] = [[visible(t.token), t.before, t.after, t.after - t.before] for t in tokens]
                note = "Mean probability over all positions."
                tables.append(Table(title=title, columns=columns, rows=rows, note=note))
        if self.inputs:
            columns = [
                Column(name="token"),
                Column(name="times", format="d"),
                Column(name="mean KL", unit="nats", format=".3g"),
            ]
            rows = [[visible(t.token), t.count, t.kl] for t in self.inputs]
            note = "Tokens of the texts that occur at least twice."
            tables.append(Table(title="Read this token, and they differ most", columns=columns, rows=rows, note=note))
        return tables

    def weight_table(self) -> Table | None:
        """The most changed weights outside the blocks and inside."""
        changed = self.changed_weights[:12]
        if not changed:
            return None
        columns = [
            Column(name="weight"),
            Column(name="layer"),
            Column(name="numbers", format=",d"),
            Column(name="change", format=".2%", help="Frobenius norm of the change against that of the weight before"),
        ]
        rows: list[list[Any]] = [[w.role, "" if w.layer is None else w.layer, w.count, w.distance] for w in changed]
        many = len(self.changed_weights)
        note = f"{many} of {len(self.weights)} tensors changed"
        if self.unmatched:
            note += f"; {self.unmatched} have no partner of the same shape in the other model"
        return Table(title="The most changed weights", columns=columns, rows=rows, note=note + ".")

    def layer_table(self) -> Table | None:
        """Every measure of every layer."""
        if not self.layers:
            return None
        aligned = any(row.before != row.after for row in self.layers)
        measures = [
            ("stream", "stream", ".2%"),
            ("first", "stream at the first token", ".2%"),
            ("cosine", "cosine", ".4f"),
            ("cka", "CKA", ".4f"),
            ("attention", "attention's output", ".2%"),
            ("mlp", "MLP's output", ".2%"),
            ("lens_agreement", "lenses agree", ".1%"),
        ]
        known = [m for m in measures if any(getattr(row, m[0]) is not None for row in self.layers)]
        columns = [Column(name="layer", format="d"), *([Column(name="layer before", format="d")] if aligned else [])]
        columns += [Column(name=name, format=form) for _, name, form in known]
        rows: list[list[Any]] = [
            [row.after, *([row.before] if aligned else []), *(getattr(row, m[0]) for m in known)] for row in self.layers
        ]
        note = "Stream and outputs: ||after - before|| / ||before||, median over tokens."
        return Table(title="Layer by layer", columns=columns, rows=rows, note=note)

    # -- figures -----------------------------------------------------------------------------------------------------

    def figures(self) -> list[Figure]:
        found = [
            self.stream_figure(), self.module_figure(), self.histogram(), self.lens_figure(),
            self.weight_figure(), self.cka_figure(),
        ]  # fmt: skip
        return [figure for figure in found if figure is not None]

    def _lines(self, title: str, y: str, lines: list[tuple[str, list[float | None]]], note: str) -> Figure | None:
        x = [float(row.after) for row in self.layers]
        series = [Series(name=name, x=x, y=values) for name, values in lines if any(v is not None for v in values)]
        return (
            Figure(title=title, kind="line", x="layer", y=y, series=series, format=".3g", note=note) if series else None
        )

    def stream_figure(self) -> Figure | None:
        """How far the residual streams are apart after each layer."""
        rows = self.layers
        lines = [
            ("distance of the streams (relative L2)", [r.stream for r in rows]),
            ("1 - cosine", [None if r.cosine is None else 1 - r.cosine for r in rows]),
            ("1 - CKA", [None if r.cka is None else 1 - r.cka for r in rows]),
        ]
        note = (
            "0: the same. Distance and cosine compare each token's two vectors (median); CKA compares the whole cloud "
            "of tokens and does not mind a rotation or a scale."
        )
        return self._lines("How far apart the insides are, layer by layer", "distance", lines, note)

    def module_figure(self) -> Figure | None:
        """What attention and MLP add to the difference."""
        lines = [
            ("attention", [r.attention_added for r in self.layers]),
            ("MLP", [r.mlp_added for r in self.layers]),
        ]
        note = "Change of what the module writes, against the size of the stream it writes to (median over tokens)."
        return self._lines("Who adds the difference", "change / size of the stream", lines, note)

    def histogram(self) -> Figure | None:
        """Share of positions by their KL."""
        if self.output is None:
            return None
        edges = [f"{edge:g}" for edge in KL_BINS]
        names = [f"{low}-{high}" for low, high in itertools.pairwise(edges)] + [f"over {edges[-1]}"]
        names[0] = f"under {edges[1]}"
        share = Series(name="share of positions", x=names, y=list(self.output.histogram))
        note = f"Half of the whole difference sits in {percent(self.output.half_share)} of the positions."
        title = "Everywhere, or in a few places? Positions by their KL in nats"
        return Figure(
            title=title, kind="bar", x="KL at a position, nats", y="share of positions", series=[share], format=".1%",
            note=note,
        )  # fmt: skip

    def lens_figure(self) -> Figure | None:
        """From which layer on the top tokens of the two lenses differ."""
        if self.lens_stays is None:
            return None
        parted = list(itertools.accumulate(row.lens_parts or 0.0 for row in self.layers))
        x = [float(row.after) for row in self.layers]
        note = (
            "Share of positions whose top tokens, read by the logit lens, differ from this layer or an earlier one on "
            f"to the end. At {percent(self.lens_stays)} of the positions the final predictions agree."
        )
        return Figure(
            title="At which layer the predictions part",
            kind="line",
            x="layer",
            y="share of positions parted for good",
            series=[Series(name="parted for good", x=x, y=list(parted))],
            format=".1%",
            note=note,
        )

    def weight_figure(self) -> Figure | None:
        """Relative change of every role's weight in every layer."""
        inside = [w for w in self.weights if w.layer is not None]
        if not any(w.distance > 0 for w in inside):
            return None
        layers = sorted({w.layer for w in inside if w.layer is not None})
        changed = {w.role for w in inside if w.distance > 0}
        roles = [role for role in dict.fromkeys(w.role for w in inside) if role in changed]
        found = {(w.role, w.layer): w.distance for w in inside}
        same = len({w.role for w in inside}) - len(roles)
        note = "Frobenius norm of the change against that of the weight before."
        if same:
            note += f" {same} other kinds of weight did not change in any layer."
        return Figure(
            title="Which weights changed",
            kind="heatmap",
            x="layer",
            y="relative change",
            format=".2%",
            matrix=[[found.get((role, layer)) for layer in layers] for role in roles],
            row_names=roles,
            column_names=[str(layer) for layer in layers],
            note=note,
        )

    def cka_figure(self) -> Figure | None:
        """CKA of every layer before with every layer after."""
        if not self.cka:
            return None
        return Figure(
            title="Which layer does the work of which",
            kind="heatmap",
            x=f"layer of {self.after}",
            y="CKA",
            format=".3f",
            matrix=self.cka[::-1],
            row_names=[str(layer) for layer in self.cka_before[::-1]],
            column_names=[str(layer) for layer in self.cka_after],
            note=f"Rows: layers of {self.before}. 1: the same up to rotation and scale. A bright diagonal means that "
            "every layer kept its job.",
        )

    def blocks(self) -> list[Block]:
        facts = self.facts.blocks() if self.facts else []
        order = [
            self.numbers(), *facts, self.stream_figure(), *self.maps, self.histogram(), self.lens_figure(),
            self.change_table(), *self.token_tables(), self.weight_figure(), self.weight_table(),
            self.module_figure(), self.cka_figure(), self.layer_table(),
        ]  # fmt: skip
        return [block for block in order if block is not None]


def _share(value: Interval) -> str:
    return f"{value[0]:.1%} ({value[1]:.1%} to {value[2]:.1%})"


def _nats(value: Interval, sign: str = "") -> str:
    form = f"{sign}.3g"
    return f"{value[0]:{form}} ({value[1]:{form}} to {value[2]:{form}}) nats"
