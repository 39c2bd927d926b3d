"""`interpretation.attention_knockout`: which flow of information, through which layers, a prediction needs."""

from __future__ import annotations

from pydantic import Field

from intarsia.catalog import technique
from intarsia.interpretation.causal.findings import EffectMap, Effects
from intarsia.interpretation.causal.settings import Metric, MetricConfig
from intarsia.models import Model
from intarsia.report import Block, Figure, Series


class AttentionKnockoutConfig(MetricConfig):
    source: str | None = Field(
        None,
        description="the part of the prompt that may not be read, as written there; unset: each token in turn only",
    )
    target: str | None = Field(
        None, description="the part of the prompt that may not read it; unset: the token that predicts the answer"
    )
    metric: Metric = Field(
        "probability",
        description="what is measured: probability or log probability of the answer, logit of answer - logit of foil, "
        "or the KL divergence from the whole run's distribution",
    )
    window: int | None = Field(
        None, ge=1, description="layers in which an edge is cut together; unset: a fifth of them, as in the paper"
    )
    heads: list[int] = Field([], description="cut only in these heads; unset: in all")
    stride: int = Field(1, ge=1, description="windows around every n-th layer, counted back from the last")


class AttentionKnockout(Effects):
    """What cutting attention from target to source does to the metric, as a change relative to its size.

    - groups: name -> the change for each window (the source; everything else but the first token; the first token).
    - layers: the middle of each window. cut: what the metric is with the source cut, by window."""

    layers: list[int] = Field(default_factory=list)
    window: int = 1
    groups: dict[str, list[float]] = Field(default_factory=dict)
    relative: bool = True

    def picture_title(self, one: EffectMap) -> str:
        return f"Cutting off one token, {self.window} layers around each"

    def curve(self) -> Figure:
        """The change for each group of source tokens."""
        x = [float(layer) for layer in self.layers]
        return Figure(
            title="What the prediction loses when it may not read",
            kind="line",
            x="layer in the middle of the window",
            y=self.unit,
            format=".0%" if self.relative else ".2f",
            series=[Series(name=name, x=x, y=list(values)) for name, values in self.groups.items()],
        )

    @property
    def unit(self) -> str:
        """What the numbers are."""
        return "relative change" if self.relative else f"change of {self.contrast.measured}"

    def figures(self) -> list[Figure]:
        figures = [one.figure(self.picture_title(one)) for one in self.maps]
        for figure in figures:
            figure.y = self.unit
        return [self.curve(), *figures]

    def blocks(self) -> list[Block]:
        return [*self.figures(), self.strongest()]


@technique(
    "interpretation.attention_knockout",
    kind="look",
    family="mechanistic",
    source="Geva et al. 2023 (Dissecting recall of factual associations), section 4",
    place="fine-tuning · global · mechanistic",
    example={"prompt": "The Eiffel Tower is in the city of", "source": "Eiffel Tower", "stride": 2},
)
def attention_knockout(model: Model, config: AttentionKnockoutConfig) -> AttentionKnockout:
    """Attention knockout: cut attention from target to source tokens in a window of layers, and see what is lost.

    The scores from the target's queries to the source's keys become -inf in all heads (or in `heads`) of the window, so
    that the rest of the attention takes their share. Shown is the change of the metric, relative to its size where it
    is a probability. Where a drop begins and ends tells through which layers the source's information reaches the
    target.

    Other ways around the cut stay open (through other tokens, in other layers): no drop does not mean no information.
    Raises `BadInput` where a target would have nothing left to attend to."""
    from intarsia.interpretation.causal.knockout import knock_out

    return knock_out(model, config)
