"""What the techniques of this room share in their settings: the contrast, and the controls of a causal map."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from intarsia.catalog import Config

Metric = Literal["logit-difference", "log-probability", "probability", "kl"]
Control = Literal["prompt", "gaussian", "mean"]
CONTROL_PROMPT = "It was a long day, and nobody knew what they would have for dinner that evening."


class MetricConfig(Config):
    """A prompt, and what is measured of the word that follows it."""

    prompt: str = Field(min_length=1, description="the text; an encoder's has its mask token where it predicts")
    answer: str | None = Field(
        None, description="the word whose first token is measured; unset: what the model itself puts first"
    )
    foil: str | None = Field(
        None, description="the wrong word of a logit difference; unset: the corrupt run's first choice, or the second"
    )
    metric: Metric = Field(
        "logit-difference",
        description="what is measured: logit of answer - logit of foil, log probability or probability of the answer, "
        "or the KL divergence from the clean run's distribution",
    )
    batch_size: int = Field(64, ge=1, description="rows in one forward pass")


class ContrastConfig(MetricConfig):
    """Two prompts of as many tokens, of which only the first lets the model say the answer."""

    corrupt: str = Field(min_length=1, description="a text of as many tokens, after which the answer is another one")


class ControlConfig(Config):
    """The controls of a causal map."""

    controls: list[Control] = Field(
        ["prompt", "gaussian", "mean"],
        description="what is written instead of the right state, to see what any state does: another prompt's state, "
        "random numbers of equal norm, the mean state; effects are shown minus the mean of these",
    )
    control_prompt: str = Field(CONTROL_PROMPT, min_length=1, description="the other prompt of the controls")
