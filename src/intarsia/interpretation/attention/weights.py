"""Methods that read an explanation off attention: their settings and declarations."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from intarsia.interpretation.attribution.registry import declare
from intarsia.interpretation.attribution.settings import AttributionConfig

SCORES = "intarsia.interpretation.attention.scores"
PLACE = "fine-tuning · local · attention"


class AttentionRolloutConfig(AttributionConfig):
    """Attention rollout: how much of each token reaches the place where the choice is read, if attention were all.

    Patterns, averaged over heads and mixed with the residual stream, are multiplied through the layers. It ignores
    values, MLPs and what the choice is: every label gets the same scores, and attention sinks get too much. `texts`:
    strings or records with `.text`."""

    heads: Literal["mean", "max"] = Field("mean", description="how the heads of a layer become one pattern")
    residual: float = Field(0.5, ge=0, lt=1, description="share of the residual stream beside attention")


class AttentionFlowConfig(AttentionRolloutConfig):
    """Attention flow: the largest flow from each token to where the choice is read, with patterns as capacities.

    Like rollout, but a narrow place in one layer bounds all that passes it. The same caveats hold: values, MLPs and
    the choice play no part. `texts`: strings or records with `.text`."""


class AttentionXGradientConfig(AttributionConfig):
    """Attention x gradient: each attention weight times how the choice's log probability changes with it.

    Summed over layers, heads and queries: what attending to the token gave the choice, to first order. `texts`:
    strings or records with `.text`."""


class ValueWeightedAttentionConfig(AttentionRolloutConfig):
    """Value-weighted attention: attention times the length of what it moves, the value after the output projection.

    A weight on a vector of length zero moves nothing: this is what tames attention sinks. Layers are combined as in
    rollout. It still ignores what the choice is. `texts`: strings or records with `.text`."""


class GradSamConfig(AttributionConfig):
    """Grad-SAM: attention times the positive part of its gradient, meaned over layers and heads.

    Only what speaks for the choice counts, so scores have no sign. `texts`: strings or records with `.text`."""


class AttentionAttributionConfig(AttributionConfig):
    """Attention attribution: integrated gradients over the attention weights, layer by layer.

    Each layer's pattern grows from nothing to what it is while the others stay; gradients on the way, times the
    weight, summed over heads and queries and meaned over layers. `texts`: strings or records with `.text`."""

    steps: int = Field(8, ge=1, le=200, description="points on the way, for each layer")


attention_rollout = declare(
    AttentionRolloutConfig, "attention_rollout", f"{SCORES}.rollout:attention_rollout", family="attention",
    signed=False, source="Abnar, Zuidema 2020 (attention rollout), section 3", place=PLACE,
)  # fmt: skip
attention_flow = declare(
    AttentionFlowConfig, "attention_flow", f"{SCORES}.rollout:attention_flow", family="attention", signed=False,
    source="Abnar, Zuidema 2020 (attention flow), section 3", place=PLACE, extra="quality",
)  # fmt: skip
attention_x_gradient = declare(
    AttentionXGradientConfig, "attention_x_gradient", f"{SCORES}.weighted:attention_x_gradient", family="attention",
    source="Serrano, Smith 2019 (gradient-weighted attention), section 4; Barkan et al. 2021", place=PLACE,
)  # fmt: skip
value_weighted_attention = declare(
    ValueWeightedAttentionConfig, "value_weighted_attention", f"{SCORES}.rollout:value_weighted_attention",
    family="attention", signed=False, source="Kobayashi et al. 2020 (norm-based analysis), section 3", place=PLACE,
)  # fmt: skip
grad_sam = declare(
    GradSamConfig, "grad_sam", f"{SCORES}.weighted:grad_sam", family="attention", signed=False,
    source="Barkan et al. 2021 (Grad-SAM), section 3", place=PLACE,
)  # fmt: skip
attention_attribution = declare(
    AttentionAttributionConfig, "attention_attribution", f"{SCORES}.weighted:attention_attribution",
    family="attention", source="Hao et al. 2021 (self-attention attribution), section 3", place=PLACE,
    example={"steps": 4},
)  # fmt: skip
