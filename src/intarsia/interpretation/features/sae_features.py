"""`interpretation.sae_features`: what the features of a sparse autoencoder stand for, and how good it is."""

from __future__ import annotations

from typing import Any

import pydantic
from pydantic import Field

from intarsia.catalog import Config, technique
from intarsia.interpretation.wording import visible
from intarsia.models import Model
from intarsia.report import Block, Column, Finding, Table, TokenMap


class SAEFeaturesConfig(Config):
    sae: str | None = Field(
        None,
        description="folder or hub repository of an SAE in SAELens' layout; unset: a small one is fitted to the texts",
    )
    at: str | None = Field(None, description="the site its states are from; unset: what its config says")
    features: list[int] = Field([], description="features to show; unset: those that write most")
    most: int = Field(8, ge=1, description="features shown when none are named")
    examples: int = Field(4, ge=1, description="places shown for each feature, the most active first")
    context: int = Field(8, ge=1, description="tokens shown before each place")
    ablate: bool = Field(True, description="take each shown feature out and measure what changes")
    max_texts: int = Field(64, ge=1, description="texts read; more are drawn down to this many by the seed")
    max_tokens: int = Field(64, ge=2, description="tokens of a text that are read")
    batch_size: int = Field(8, ge=1, description="texts in one forward pass")
    steps: int = Field(300, ge=1, description="updates of a small SAE that is fitted here")


class Place(pydantic.BaseModel):
    """A token at which a feature is active: up to there the text's tokens, and how active."""

    tokens: list[str]
    active: float


class Feature(pydantic.BaseModel):
    """One feature.

    - density: share of positions where it is active; largest: its largest activation.
    - places: where it is most active. up, down: tokens whose logits its direction raises and lowers most.
    - kl, loss: what changes at the positions it is active at when it is taken out: KL(as it is || without), and the
      loss of the text's next token (None where it was not measured or is never active)."""

    number: int
    density: float
    largest: float
    places: list[Place] = Field(default_factory=list)
    up: list[str] = Field(default_factory=list)
    down: list[str] = Field(default_factory=list)
    kl: float | None = None
    loss: float | None = None


class SAEFeatures(Finding):
    """An SAE on texts: how much of the model it keeps, and its features.

    - explained: share of the states' variance; active: features a position; dead: share that never fires here.
    - loss: the model's own; with_sae: with reconstructions in place of the states; without: with zeros there.
      recovered = (without - with_sae) / (without - loss). None without a next-token loss.
    - map: one text with the most active shown feature (number, tokens, values)."""

    site: str
    count: int
    explained: float
    active: float
    dead: float
    positions: int
    texts: int
    loss: float | None = None
    with_sae: float | None = None
    without: float | None = None
    recovered: float | None = None
    features: list[Feature] = Field(default_factory=list)
    maps: list[tuple[int, list[str], list[float]]] = Field(default_factory=list)
    fitted_here: bool = False

    def tables(self) -> list[Table]:
        quality = [
            ["features", self.count, ""],
            ["variance explained", self.explained, "1 is all"],
            ["active a position", self.active, "few is sparse"],
            ["dead", self.dead, "share of features that never fire on these texts"],
        ]
        if self.recovered is not None:
            quality += [
                ["loss, the model's own", self.loss, "nats a token"],
                ["loss with reconstructions in place of states", self.with_sae, "nats a token"],
                ["loss with zeros there", self.without, "nats a token"],
                ["loss recovered", self.recovered, "1 is all of it"],
            ]
        numbers = [Column(name="measure"), Column(name="value", format=".4g"), Column(name="meaning")]
        columns = [
            Column(name="feature", format="d"),
            Column(name="active at", format=".2%", help="share of positions"),
            Column(name="largest", format=".2f"),
            Column(name="most active at (last token)"),
            Column(name="raises"),
            Column(name="lowers"),
            Column(name="KL without it", unit="nats", format=".4f"),
            Column(name="loss without it", unit="nats", format="+.4f"),
        ]
        rows: list[list[Any]] = []
        for f in self.features:
            seen = " | ".join(f"{''.join(map(visible_text, p.tokens))} ({p.active:.1f})" for p in f.places)
            words = [" ".join(visible(t) for t in some) for some in (f.up, f.down)]
            rows.append([f.number, f.density, f.largest, seen, *words, f.kl, f.loss])
        return [
            Table(title="How good the autoencoder is here", columns=numbers, rows=quality),
            Table(title="Features", columns=columns, rows=rows),
        ]

    def token_maps(self) -> list[TokenMap]:
        """One text a feature, coloured by how active it is."""
        return [
            TokenMap(title=f"Feature {number}", tokens=tokens, values=list(values), meaning="activation", format=".2f")
            for number, tokens, values in self.maps
        ]

    def blocks(self) -> list[Block]:
        return [*self.tables(), *self.token_maps()]


def visible_text(token: str) -> str:
    """A token within running text: line ends as signs, spaces as they are."""
    return visible(token).replace("␣", " ")


@technique(
    "interpretation.sae_features",
    kind="look",
    family="mechanistic",
    source="Bricken et al. 2023 (Towards monosemanticity); Gao et al. 2024, section 4; layout: SAELens "
    "(Bloom et al. 2024)",
    place="prompting · base model · representation engineering",
    example={
        "texts": ["The Eiffel Tower is in Paris.", "Water boils at 100 degrees.", "The Nile flows to the sea."],
        "steps": 40,
        "most": 3,
    },
)
def sae_features(model: Model, config: SAEFeaturesConfig, *, texts: list[Any], seed: int = 0) -> SAEFeatures:
    """Sparse dictionary features: where each is active, which words it writes for, and what is lost without it.

    Reads an SAE in SAELens' layout (standard, gated, JumpReLU, TopK), from a folder or the hub; without one a small one
    is fitted to the texts (a look, no more). First positions of texts are attention sinks: they are left as they are
    and count nowhere.

    A feature's name is a reading: check it with the ablation column and with texts that should not activate it. Raises
    `BadInput` where the SAE's width is not the model's."""
    from intarsia.interpretation.features.looking import look

    return look(model, config, texts, seed)
