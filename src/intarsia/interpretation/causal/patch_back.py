"""`interpretation.patch_back`: which part of a changed model did it."""

from __future__ import annotations

from typing import Any, Literal

import pydantic
from pydantic import Field

from intarsia.catalog import Config, technique
from intarsia.models import Model
from intarsia.report import Block, Cell, Column, Figure, Finding, Series, Table

NAMES = {"block": "whole block", "attention": "attention", "mlp": "MLP", "stream": "all up to here"}


class PatchBackConfig(Config):
    by: Literal["weights", "activations"] = Field(
        "weights",
        description="weights: the original's part works in the changed model, on what it is given there; activations: "
        "what the part gave in the original is written",
    )
    parts: list[Literal["block", "attention", "mlp"]] = Field(
        ["block", "attention", "mlp"], min_length=1, description="which parts of each layer are put back"
    )
    reverse: bool = Field(True, description="also put each changed part into the original")
    max_texts: int = Field(8, ge=1, description="texts compared; more are drawn down to this many by the seed")
    max_tokens: int = Field(32, ge=2, description="tokens of a text, a prompt's template not counted")
    batch_size: int = Field(8, ge=1, description="texts in one forward pass")
    stride: int = Field(1, ge=1, description="every n-th layer, counted back from the last")


class Behaviour(pydantic.BaseModel):
    """What a model says on the texts.

    `kl`: KL(original || it) per position; `back`: KL(changed || it); `loss`: of the text's own next token, nats;
    `label`: mean log probability of the label's words after the prompt, where texts are labelled prompts."""

    kl: float
    back: float
    loss: float | None = None
    label: float | None = None


class Restored(pydantic.BaseModel):
    """One part put back.

    - undone: share of the change (KL to the original) that is gone when the original's part stands in the changed
      model.
    - carried: share of the way to the changed model that its part alone takes the original (None: not asked).
    - restored, transplanted: the behaviour in both cases."""

    name: str
    part: str
    layer: int | None = None
    undone: float
    carried: float | None = None
    restored: Behaviour
    transplanted: Behaviour | None = None


class PatchBack(Finding):
    """Which parts of a changed model, put back from the original, undo the change.

    - original, changed: the behaviour of both models. parts: all that was put back, in network order.
    - texts, positions: what was compared. by: `weights` or `activations`."""

    by: str
    original: Behaviour
    changed: Behaviour
    parts: list[Restored] = Field(default_factory=list)
    texts: int = 0
    positions: int = 0
    labelled: bool = False

    def ranked(self) -> list[Restored]:
        """Parts, those that undo most first; cumulative ones (`all up to here`) are left out."""
        return sorted((p for p in self.parts if p.part != "stream"), key=lambda p: -p.undone)

    def figures(self) -> list[Figure]:
        def curves(value: str) -> list[Series]:
            out = []
            for part, name in NAMES.items():
                rows = [p for p in self.parts if p.part == part and getattr(p, value) is not None]
                if rows:
                    x = [float(p.layer or 0) for p in rows]
                    out.append(Series(name=name, x=x, y=[getattr(p, value) for p in rows]))
            return out

        titles = {
            "undone": "What putting the original's part back undoes",
            "carried": "How far the changed part alone takes the original",
        }
        return [
            Figure(title=title, kind="line", x="layer", y="share of the change", format=".0%", series=series)
            for value, title in titles.items()
            if (series := curves(value))
        ]

    def tables(self) -> list[Table]:
        columns = [
            Column(name="part"),
            Column(name="undone", format=".1%", help="share of KL(original || changed) that is gone"),
        ]
        carried = any(p.carried is not None for p in self.parts)
        if carried:
            columns.append(Column(name="carried", format=".1%", help="share of the change that this part alone makes"))
        columns.append(Column(name="KL to the original", unit="nats", format=".4f"))
        columns.append(Column(name="loss", unit="nats", format=".3f"))
        if self.labelled:
            columns.append(Column(name="log p of the label", format=".3f"))

        def row(name: str, undone: float | None, share: float | None, b: Behaviour) -> list[Any]:
            cells: list[Cell] = [name, undone]
            cells += [share] if carried else []
            return [*cells, b.kl, b.loss, *([b.label] if self.labelled else [])]

        rows = [row("nothing (the changed model)", 0.0, None, self.changed)]
        rows += [row(p.name, p.undone, p.carried, p.restored) for p in self.ranked()[:20]]
        rows.append(row("everything (the original)", 1.0, None, self.original))
        return [Table(title="What undoes the change, the most first", columns=columns, rows=rows)]

    def blocks(self) -> list[Block]:
        return [*self.figures(), *self.tables()]


@technique(
    "interpretation.patch_back",
    kind="look",
    family="model comparison",
    source="cross-model activation patching: Prakash et al. 2024 (fine-tuning enhances existing mechanisms), section 5",
    place="prompting · assistant model · role of fine-tuning",
    example={"texts": ["The Eiffel Tower is in Paris.", "Water boils at 100 degrees."], "stride": 2},
)
def patch_back(model: Model, config: PatchBackConfig, *, against: Model, texts: list[Any], seed: int = 0) -> PatchBack:
    """Put the original's parts back into a changed model, one by one, and see which of them undoes the change.

    `model` is the state after (tuned, quantized, pruned), `against` the state before. For attention, MLP and the whole
    block of each layer, and for embedding and head: undone = 1 - KL(original || restored) / KL(original || changed),
    averaged over all positions but the first of each text. In reverse, `carried`: how far the changed part alone takes
    the original.

    `by=weights` runs the original's part (with the norm before it) on what the changed model gives it: it answers which
    weights did it. `by=activations` writes what the part gave in the original on the same text, with all the
    original's earlier layers in it: it answers where the behaviour passes; there `all up to here` is the whole stream.

    Shares of parts do not add up to 1: parts work together. Raises `BadInput` for models of different shape or with
    different tokenizers."""
    from intarsia.interpretation.causal.restoring import put_back

    return put_back(model, against, config, texts, seed)
