"""Methods that change the text and see what happens: their settings and declarations."""

from __future__ import annotations

from pydantic import Field

from intarsia.interpretation.attribution.registry import declare
from intarsia.interpretation.attribution.settings import AttributionConfig

SCORES = "intarsia.interpretation.attribution.scores"
PLACE = "fine-tuning · local · feature attribution: perturbation"
SURROGATE = "fine-tuning · local · feature attribution: surrogate"


class RandomConfig(AttributionConfig):
    """Scores drawn at random: the floor that an explanation has to beat.

    Never explain with it; compare with it. `texts`: strings or records with `.text`."""


class LeaveOneOutConfig(AttributionConfig):
    """Leave one out: how much log probability the choice loses when a token, word or sentence is taken away.

    Simple and exact about what it asks, but blind to words that stand in for one another: with "awful, terrible" each
    alone loses nothing, for the other is still there. `texts`: strings or records with `.text`."""


class OcclusionConfig(AttributionConfig):
    """Occlusion: how much log probability the choice loses when a window that slides over the text is hidden.

    A piece's score is the mean over the windows that cover it, each divided by the window's length. Sees what
    neighbours do together, and blurs it over them. `texts`: strings or records with `.text`."""

    window: int = Field(3, ge=1, description="pieces hidden at a time")
    stride: int = Field(1, ge=1, description="pieces that the window moves on")


class LimeConfig(AttributionConfig):
    """LIME: a linear model of the choice's log probability over random removals near the text; its weights.

    A weighted ridge regression. Read the fit (R²): a linear model that fits badly explains nothing. Scores vary with
    the seed where samples are few. `texts`: strings or records with `.text`."""

    samples: int = Field(256, ge=2, description="masked variants of the text")
    kernel_width: float = Field(0.25, gt=0, description="how fast weight falls with the cosine distance to the text")
    ridge: float = Field(0.01, ge=0, description="penalty on the weights: more is smoother and smaller")


class KernelShapConfig(AttributionConfig):
    """KernelSHAP: Shapley values, each piece's mean gain over all ways to add the pieces, by least squares.

    Exact where `samples` reach all 2^pieces removals, an estimate elsewhere; the scores always add up to
    log p(text) - log p(nothing of it). Most removals are texts nobody writes, and the model was never trained on them.
    `texts`: strings or records with `.text`."""

    samples: int = Field(512, ge=4, description="masked variants of the text")


class ShapleySamplingConfig(AttributionConfig):
    """Shapley values by sampling: each piece's mean gain when it joins those before it, over random orders.

    The scores always add up; their noise falls with the root of the number of orders. `texts`: strings or records with
    `.text`."""

    orders: int = Field(16, ge=1, description="random orders; every second is the one before it, backwards")


class PartitionShapConfig(AttributionConfig):
    """Partition SHAP: Owen values over the text's hierarchy of sentences, words and tokens.

    Like Shapley values, but pieces of a branch join together from outside: words that belong together stay so, and
    it takes a number of evaluations that grows with the square of the pieces. `texts`: strings or records with
    `.text`."""

    evaluations: int = Field(
        512, ge=2, description="masked variants of the text at most; what is left is shared evenly"
    )


random = declare(
    RandomConfig, "random", f"{SCORES}.random:scores",
    source="control of DeYoung et al. 2020 (ERASER), section 5.2", place="evaluation · faithfulness",
)  # fmt: skip
leave_one_out = declare(
    LeaveOneOutConfig, "leave_one_out", f"{SCORES}.removing:leave_one_out",
    source="Li, Monroe, Jurafsky 2016 (representation erasure), section 3", place=PLACE,
)  # fmt: skip
occlusion = declare(
    OcclusionConfig, "occlusion", f"{SCORES}.removing:occlusion",
    source="Zeiler, Fergus 2014 (occlusion sensitivity), section 4.2", place=PLACE, example={"window": 2},
)  # fmt: skip
lime = declare(
    LimeConfig, "lime", f"{SCORES}.surrogates:lime",
    source="Ribeiro, Singh, Guestrin 2016 (LIME), section 3", place=SURROGATE, example={"samples": 64},
)  # fmt: skip
kernel_shap = declare(
    KernelShapConfig, "kernel_shap", f"{SCORES}.surrogates:kernel_shap",
    source="Lundberg, Lee 2017 (SHAP), section 4.1; paired sampling: Covert, Lee 2021", place=SURROGATE,
    example={"samples": 64},
)  # fmt: skip
partition_shap = declare(
    PartitionShapConfig, "partition_shap", f"{SCORES}.shapley:partition_shap",
    source="Owen 1977; Lundberg et al., the package shap (partition explainer)", place=SURROGATE,
    example={"evaluations": 64},
)  # fmt: skip
shapley_sampling = declare(
    ShapleySamplingConfig, "shapley_sampling", f"{SCORES}.shapley:shapley_sampling",
    source="Castro, Gómez, Tejada 2009; Štrumbelj, Kononenko 2014", place=SURROGATE, example={"orders": 4},
)  # fmt: skip
