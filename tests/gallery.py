"""Synthetic findings that exercise every block a report can draw. The numbers are made up and say so."""

from __future__ import annotations

import math
from typing import ClassVar

from pydantic import Field

from intarsia.report import Column, Figure, Finding, Mark, RunPage, Section, Series, Table, TokenMap

MADE_UP = "Made-up numbers, to show how a page draws them."
# fmt: off
TEXT = [
    "def", " mean", "(", "values", "):", "\n", "   ", " \"\"\"", "Return", " the", " arith", "metic", " mean",
    " of", " a", " sequence", ".\"\"\"", "\n", "   ", " return", " sum", "(", "values", ")", " /", " len", "(",
    "values", ")", "\n", "\n", "print", "(", "mean", "([", "1", ",", " 2", ",", " 3", "]))", "  #", " prints", " ",
    "2", ".", "0",
]
# fmt: on


class Gallery(Finding):
    """A finding that holds its blocks directly."""

    volatile: ClassVar[frozenset[str]] = frozenset({"seconds"})
    content: list[Table | Figure | TokenMap] = Field(default_factory=list)
    seconds: float = 0.0

    def blocks(self) -> list[Table | Figure | TokenMap]:
        return self.content


def headline() -> Table:
    return Table(
        columns=[
            Column(name="model"),
            Column(name="macro F1", format=".3f", better="higher", help="mean F1 over the labels, on the test split"),
            Column(name="perplexity", format=".2f", better="lower"),
            Column(name="size", format="bytes", better="lower"),
            Column(name="speed", unit="tokens/s", format=",.1f", better="higher"),
        ],
        rows=[
            ["base", (0.412, 0.381, 0.443), (11.83, 11.5, 12.2), 538_090_408, 31.2],
            ["tuned", (0.791, 0.765, 0.816), (9.41, 9.2, 9.63), 538_090_408, 30.9],
            ["small", (0.784, 0.758, 0.81), (9.62, 9.4, 9.85), 151_300_212, 44.7],
            ["small (onnx-genai)", (0.783, 0.757, 0.809), None, 163_884_101, 96.5],
        ],
        note=MADE_UP,
    )


def quality() -> Gallery:
    labels = ["functions and methods", "classes", "modules", "errors and warnings", "everything else"]
    first, second = [0.51, 0.32, 0.44, 0.29, 0.5], [0.83, 0.71, 0.84, None, 0.78]
    return Gallery(
        title="Quality by label",
        technique="measure.quality",
        summary="Tuning lifts every label; " + MADE_UP.lower(),
        seconds=1.5,
        provenance={"seed": 0, "versions": {"intarsia": "0.1.0"}, "data": {"sha256": "0" * 64, "records": 1200}},
        content=[
            Figure(
                title="F1 by label, with 95% intervals",
                kind="bar",
                y="F1",
                format=".2f",
                series=[
                    Series(
                        name="base", x=labels, y=first, low=[v - 0.04 for v in first], high=[v + 0.04 for v in first]
                    ),
                    Series(
                        name="tuned",
                        x=labels,
                        y=second,
                        low=[None if v is None else v - 0.05 for v in second],
                        high=[None if v is None else v + 0.03 for v in second],
                    ),
                ],
                marks=[Mark(value=0.2, text="chance")],
            ),
            Table(
                title="By label",
                columns=[
                    Column(name="label"),
                    Column(name="records", format=",d"),
                    Column(name="F1", format=".3f", better="higher"),
                    Column(name="precision", format=".1%", better="higher"),
                    Column(name="time", unit="ms", format=".1f", better="lower"),
                    Column(name="remark"),
                ],
                rows=[
                    [
                        name,
                        100 * (i + 2),
                        (v, v - 0.05, v + 0.03) if v else None,
                        (v or math.nan) - 0.01,
                        12.5 + i,
                        "kept",
                    ]
                    for i, (name, v) in enumerate(zip(labels, second, strict=True))
                ],
                note=MADE_UP,
            ),
        ],
    )


def diff() -> Gallery:
    layers = 12
    values = [0.02 + 1.9 * abs(math.sin(i * 1.7)) ** 6 for i in range(len(TEXT))]
    words = ["the", " sum", " mean", " of", " len", "(", " a", " return"]
    return Gallery(
        title="What tuning changed",
        technique="interpretation.diff",
        summary="The two models agree on most tokens and part in the upper third of the blocks. " + MADE_UP,
        content=[
            TokenMap(
                title="Where the next-token distributions part",
                tokens=TEXT,
                values=values,
                tips=[f"before: {words[i % 8]!r}\nafter: {words[(i * 3) % 8]!r}" for i in range(len(TEXT))],
                meaning="KL from base to tuned, in nats",
                format=".2f",
                note=MADE_UP,
            ),
            TokenMap(
                title="Which tokens became likelier",
                tokens=TEXT,
                values=[round(2.5 * math.sin(i * 0.9), 3) if i % 11 else None for i in range(len(TEXT))],
                scale="diverging",
                meaning="log-probability after minus before",
                format="+.2f",
            ),
            Figure(
                title="Distance of the residual stream, layer by layer",
                kind="line",
                x="layer",
                y="relative L2 distance",
                format=".2f",
                series=[
                    Series(
                        name=name,
                        x=list(map(float, range(layers))),
                        y=[None if (i == 5 and k == 2) else scale * i**1.5 / 30 for i in range(layers)],
                        low=[scale * i**1.5 / 36 for i in range(layers)] if k == 0 else None,
                        high=[scale * i**1.5 / 25 for i in range(layers)] if k == 0 else None,
                    )
                    for k, (name, scale) in enumerate([("resid_post", 1.0), ("attn_out", 0.55), ("mlp_out", 0.8)])
                ],
                marks=[Mark(axis="x", value=8.0, text="adapters start here")],
                note=MADE_UP,
            ),
            Figure(
                title="CKA between the layers of both models",
                kind="heatmap",
                x="layer of base",
                y="layer of tuned",
                format=".2f",
                matrix=[
                    [None if (r, c) == (2, 9) else math.exp(-((r - c) ** 2) / 12) for c in range(layers)]
                    for r in range(layers)
                ],
                row_names=[str(i) for i in range(layers)],
                column_names=[str(i) for i in range(layers)],
            ),
            Figure(
                title="What each layer would say (lens)",
                kind="heatmap",
                x="token",
                y="layer",
                format=".2f",
                matrix=[[abs(math.sin(r + c * 0.7)) for c in range(10)] for r in range(6)],
                texts=[[words[(r * c) % 8] for c in range(10)] for r in range(6)],
                row_names=[f"layers.{2 * i}" for i in range(6)],
                column_names=[t.replace("\n", "↵") for t in TEXT[:10]],
            ),
            Figure(
                title="Change of each head",
                kind="heatmap",
                x="head",
                y="layer",
                scale="diverging",
                format="+.2f",
                matrix=[[math.sin(r * 1.3 + c) * (r - 4) / 4 for c in range(9)] for r in range(10)],
                row_names=[f"layers.{i}" for i in range(10)],
            ),
        ],
    )


def cost() -> Gallery:
    return Gallery(
        title="Cost and quality",
        technique="measure.cost",
        content=[
            Figure(
                title="Perplexity against size",
                kind="scatter",
                x="megabytes",
                y="perplexity",
                log_x=True,
                format=".1f",
                series=[
                    Series(name="int8", x=[140.0, 151.0], y=[9.8, 9.6], labels=["per tensor", "per group"]),
                    Series(
                        name="int4",
                        x=[80.0, 86.0, 95.0],
                        y=[13.9, 11.2, 10.4],
                        low=[13.0, 10.9, 10.1],
                        high=[14.8, 11.6, 10.8],
                    ),
                ],
            ),
            Figure(
                title="Loss while training",
                kind="line",
                x="step",
                y="loss",
                log_y=True,
                series=[
                    Series(
                        name="loss",
                        x=[float(i) for i in range(200)],
                        y=[4 * math.exp(-i / 60) + 0.2 for i in range(200)],
                    )
                ],
            ),
            Figure(
                title="Weights by size",
                kind="bar",
                x="bits",
                y="share",
                format=".0%",
                series=[Series(name="share", x=[2.0, 3.0, 4.0, 5.0, 6.0, 8.0], y=[0.02, 0.1, 0.42, 0.21, 0.15, 0.1])],
            ),
            Figure(
                title="Gain by layer",
                kind="bar",
                series=[Series(name="gain", x=["embed", "0", "1", "head"], y=[0.1, -0.24, 0.4, None])],
            ),
        ],
    )


def hostile() -> Gallery:
    nasty = "</script><script>alert(1)</script>\"'><img src=x onerror=alert(2)> & \x00\x1b[31m \ud800 \u202e"
    return Gallery(
        title=nasty,
        summary=nasty,
        technique=nasty,
        provenance={nasty: [nasty, {nasty: nasty}]},
        content=[
            Table(title=nasty, columns=[Column(name=nasty, unit=nasty, help=nasty)], rows=[[nasty]], note=nasty),
            TokenMap(
                title=nasty,
                tokens=[nasty, "\r\n", "", "\t"],
                values=[1.0, math.nan, math.inf, None],
                tips=[nasty],
                note=nasty,
            ),
            Figure(
                title=nasty, kind="bar", x=nasty, y=nasty, series=[Series(name=nasty, x=[nasty], y=[1.0])], note=nasty
            ),
            Figure(
                title=nasty,
                kind="scatter",
                series=[
                    Series(name=nasty, x=[1.0, 2.0], y=[1.0, 2.0], labels=[nasty, nasty]),
                    Series(name=nasty, x=[], y=[]),
                ],
                marks=[Mark(value=1.5, text=nasty), Mark(axis="x", value=nasty)],
            ),
            Figure(
                title=nasty,
                kind="heatmap",
                matrix=[[1.0, 2.0]],
                texts=[[nasty, nasty]],
                row_names=[nasty],
                column_names=[nasty] * 2,
            ),
        ],
    )


def run_page() -> RunPage:
    return RunPage(
        title="Gallery: a tuned and shrunk SmolLM2",
        subtitle="A page of made-up findings, to see how a run's report draws them",
        summary="The tuned model names almost twice as many labels right, in under a third of the bytes.",
        headline=headline(),
        sections=[
            Section(title="Quality", finding=quality()),
            Section(title="Model diff", finding=diff()),
            Section(title="Cost", finding=cost()),
        ],
        manifest={
            "command": "intarsia run emotion.yaml --output runs/emotion",
            "recipe": "model: smollm2-135m\ndata: {train: train.jsonl, test: test.jsonl}\nsteps:\n"
            "  - adaptation.label: {rank: 8}\n  - compression.quantize: {bits: 8}\n"
            "  - interpretation.diff: {against: base}\n",
            "seed": 0,
            "versions": {"intarsia": "0.1.0", "torch": "2.13", "transformers": "5.23"},
            "model": {"source": "smollm2-135m", "revision": None, "sha256": "ab" * 32},
            "data": {"train": {"sha256": "cd" * 32, "records": 1200}, "test": {"sha256": "ef" * 32, "records": 400}},
        },
    )
