"""`interpretation.token_identity`: how early a model knows its next token, read behind a prompt that says "repeat".

Source: Ghandeharioun et al. 2024, section 4.1; the target prompt is that of the official code, with i* = last and
l* = l. The prediction is read at i* itself. The sink prompt is the shortest there is: the start token and one token
more, whose own identity has no effect, since its state is overwritten and nothing after it is read."""

from __future__ import annotations

from typing import Any

import pydantic
from pydantic import Field

from intarsia.catalog import Config, technique
from intarsia.models import Model
from intarsia.report import Cell, Column, Figure, Finding, Series, Table

PAPER = "cat -> cat\n1135 -> 1135\nhello -> hello\n?"
SINK = "?"
PROMPTS = {"paper": PAPER, "sink": SINK}
Interval = tuple[float, float, float]


class TokenIdentityConfig(Config):
    prompt: str = Field("paper", description="paper, sink, or a target prompt of your own, patched at its last token")
    positions: int = Field(200, ge=1, description="positions read, drawn from all texts")
    max_texts: int = Field(50, ge=1, description="texts read; more are drawn down to this many by the seed")
    max_tokens: int = Field(64, ge=2, description="tokens of a text that are read; the rest is cut off")
    stride: int = Field(1, ge=1, description="read every n-th layer, counted back from the last")


class IdentityLayer(pydantic.BaseModel):
    """One layer. `agreement`: share of positions whose patched next token is the model's own (precision@1);
    `surprisal`: -log p_L of the patched next token under the model's own distribution p_L, nats; both with intervals
    over texts, and the same through the logit lens."""

    layer: int
    agreement: Interval
    surprisal: Interval
    lens_agreement: float
    lens_surprisal: float


class TokenIdentity(Finding):
    """How early the next token can be decoded. `gain`: precision@1 over the logit lens, mean over layers, paired."""

    prompt: str = ""
    layers: list[IdentityLayer] = Field(default_factory=list)
    positions: int = 0
    texts: int = 0
    mean_agreement: Interval | None = None
    mean_surprisal: Interval | None = None
    lens_mean_agreement: float = 0.0
    gain: Interval | None = None

    def headline(self) -> dict[str, tuple[Cell | Interval, Column]]:
        return {"identity_mean_agreement": (self.mean_agreement, Column(name="token identity", format=".1%"))}

    def tables(self) -> list[Table]:
        columns = [
            Column(name="layer", format="d"),
            Column(name="agrees", format=".1%", help="the patched next token is the model's own (precision@1)"),
            Column(name="surprisal", unit="nats", format=".2f", help="of the patched next token under the model's own"),
            Column(name="logit lens agrees", format=".1%"),
            Column(name="its surprisal", unit="nats", format=".2f"),
        ]
        rows = [[r.layer, r.agreement, r.surprisal, r.lens_agreement, r.lens_surprisal] for r in self.layers]
        return [Table(title="Token identity, layer by layer", columns=columns, rows=rows)]

    def figures(self) -> list[Figure]:
        x = [float(r.layer) for r in self.layers]
        agree = [
            Series(
                name="token identity", x=x, y=[r.agreement[0] for r in self.layers],
                low=[r.agreement[1] for r in self.layers], high=[r.agreement[2] for r in self.layers],
            ),
            Series(name="logit lens", x=x, y=[r.lens_agreement for r in self.layers]),
        ]  # fmt: skip
        bits = [
            Series(
                name="token identity", x=x, y=[r.surprisal[0] for r in self.layers],
                low=[r.surprisal[1] for r in self.layers], high=[r.surprisal[2] for r in self.layers],
            ),
            Series(name="logit lens", x=x, y=[r.lens_surprisal for r in self.layers]),
        ]  # fmt: skip
        return [
            Figure(title="How early the next token can be read", kind="line", x="layer", y="share of positions",
                   series=agree, format=".0%"),
            Figure(title="How far off what is read is", kind="line", x="layer", y="surprisal in nats", series=bits,
                   format=".2f"),
        ]  # fmt: skip


@technique(
    "interpretation.token_identity",
    kind="look",
    family="patchscopes",
    source="Ghandeharioun et al. 2024 (Patchscopes), section 4.1",
    place="prompting · base model · natural language",
    example={
        "texts": ["The Eiffel Tower is in the city of Paris.", "Water boils at one hundred degrees."],
        "positions": 20,
    },
)
def token_identity(model: Model, config: TokenIdentityConfig, *, texts: list[Any], seed: int = 0) -> TokenIdentity:
    """Token identity: put each layer's state behind "cat -> cat; 1135 -> 1135" and read the next token it makes.

    Per layer: how often it is the model's own next token (precision@1), and how likely the model itself finds it
    (surprisal), beside the logit lens. On small models the demonstrations mislead: `prompt="sink"`, a prompt of
    nothing but a start token, reads better; the lenses' comparison has both and more.

    `texts`: strings or records with `.text`. Raises `BadInput` for networks that are no causal language models."""
    from intarsia.interpretation.patchscopes.identity_reading import look

    return look(model, config, texts, seed)
