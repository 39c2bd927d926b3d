"""Methods that differentiate: their settings and declarations."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from intarsia.interpretation.attribution.registry import declare
from intarsia.interpretation.attribution.settings import AttributionConfig

SCORES = "intarsia.interpretation.attribution.scores"
PLACE = "fine-tuning · local · feature attribution: gradient"


class GradientConfig(AttributionConfig):
    """Gradient: how steeply the choice's log probability changes with each token's embedding (length of the gradient).

    Says how sensitive the model is there, not in which direction, and only for very small changes: where the model is
    sure, gradients vanish. `texts`: strings or records with `.text`."""


class GradientXInputConfig(AttributionConfig):
    """Gradient x input: each token's embedding times the gradient there, a first-order guess at what it gives.

    Cheap, signed and noisy: in deep transformers the slope at one point says little about the whole way from nothing
    to the token. `texts`: strings or records with `.text`."""


class IntegratedGradientsConfig(AttributionConfig):
    """Integrated gradients: the gradient along the straight path from a text that says nothing, times the way.

    The scores add up to log p(text) - log p(baseline); the report tells how nearly (more `steps` help). They depend on
    the baseline: try two. `texts`: strings or records with `.text`."""

    baseline: Literal["neutral", "mask", "pad", "zero", "mean"] = Field(
        "neutral",
        description="what says nothing: the neutral token of `removal`, the mask or padding token, zeros, or the mean "
        "of the vocabulary",
    )
    steps: int = Field(32, ge=1, le=1000, description="points on the path")


class SmoothGradConfig(AttributionConfig):
    """SmoothGrad: gradient x input, with the gradient meaned over noisy copies of the embeddings.

    Noise in the slope averages out; too much noise leaves the space of texts. `texts`: strings or records with
    `.text`."""

    samples: int = Field(24, ge=1, description="noisy copies")
    noise: float = Field(
        0.1, gt=0, description="standard deviation of the noise, as a share of the range of the text's embeddings"
    )
    times_input: bool = Field(True, description="times the embedding; else the length of the mean gradient")


class LrpConfig(AttributionConfig):
    """Layer-wise relevance propagation: what the choice's logit owes to each token, handed down layer by layer.

    Relevance is conserved: norms count as the scaling they are at this text, activations as the line through the
    origin, and a product of two branches gives each a half. What attention did between words is either taken as given
    (`frozen`: scores add up) or gets its share (`shared`: AttnLRP). `texts`: strings or records with `.text`."""

    attention: Literal["frozen", "shared"] = Field(
        "frozen", description="whether queries and keys get a share, too, or only the values that were attended to"
    )


gradient = declare(
    GradientConfig, "gradient", f"{SCORES}.gradients:gradient", signed=False,
    source="Simonyan, Vedaldi, Zisserman 2014 (saliency), section 3; Li et al. 2016 for text", place=PLACE,
)  # fmt: skip
gradient_x_input = declare(
    GradientXInputConfig, "gradient_x_input", f"{SCORES}.gradients:gradient_x_input",
    source="Shrikumar et al. 2016 (gradient x input); Kindermans et al. 2016", place=PLACE,
)  # fmt: skip
integrated_gradients = declare(
    IntegratedGradientsConfig, "integrated_gradients", f"{SCORES}.gradients:integrated_gradients",
    source="Sundararajan, Taly, Yan 2017 (integrated gradients), sections 3 and 5", place=PLACE,
    example={"steps": 16},
)  # fmt: skip
smooth_grad = declare(
    SmoothGradConfig, "smooth_grad", f"{SCORES}.gradients:smooth_grad",
    source="Smilkov et al. 2017 (SmoothGrad), section 3", place=PLACE, example={"samples": 8},
)  # fmt: skip
lrp = declare(
    LrpConfig, "lrp", f"{SCORES}.relevance:lrp",
    source="Bach et al. 2015 (LRP); Ali et al. 2022 (frozen attention); Achtibat et al. 2024 (AttnLRP), section 3",
    place="fine-tuning · local · feature attribution: decomposition",
)  # fmt: skip
