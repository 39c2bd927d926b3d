"""`interpretation.causal_tracing`: where a fact about a subject is called up."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from intarsia.catalog import technique
from intarsia.interpretation.causal.findings import MEANING, EffectMap, Effects
from intarsia.interpretation.causal.settings import ControlConfig, Metric, MetricConfig
from intarsia.models import Model


class CausalTracingConfig(MetricConfig, ControlConfig):
    subject: str = Field(min_length=1, description="the part of the prompt whose tokens get noise, as written there")
    metric: Metric = Field(
        "probability",
        description="what is measured: probability or log probability of the answer, logit of answer - logit of foil, "
        "or the KL divergence from the clean run's distribution",
    )
    noise: float = Field(
        3.0, gt=0, description="size of the noise, in standard deviations of what enters the first block"
    )
    samples: int = Field(3, ge=1, description="noise samples that are averaged; the paper has 10")
    kinds: list[Literal["resid_post", "attn_out", "mlp_out"]] = Field(
        ["resid_post", "mlp_out", "attn_out"], min_length=1, description="which states are restored"
    )
    window: int | None = Field(
        None,
        ge=1,
        description="layers whose attention or MLP is restored together; unset: a fifth of them, as in the paper",
    )
    stride: int = Field(1, ge=1, description="trace every n-th layer, counted back from the last")


class CausalTracing(Effects):
    """Effects of restoring clean states into a run whose subject is noise.

    `subject`: positions of its tokens. `sigma`: standard deviation of the noise. `window`: layers restored together
    for attention and MLP. Controls use the first noise sample alone."""

    corrupt_is: str = "with noise"
    subject: list[int] = Field(default_factory=list)
    sigma: float = 0.0
    samples: int = 0
    window: int = 1

    def picture_title(self, one: EffectMap) -> str:
        if one.site == "resid_post":
            return "Restoring the stream after one block"
        return f"Restoring {MEANING[one.site]}, {self.window} layers around each"


@technique(
    "interpretation.causal_tracing",
    kind="look",
    family="mechanistic",
    source="Meng et al. 2022 (ROME), section 2; noise and windows as in appendix B",
    place="fine-tuning · global · mechanistic",
    example={"prompt": "The Eiffel Tower is in the city of", "subject": "Eiffel Tower", "stride": 2},
)
def causal_tracing(model: Model, config: CausalTracingConfig, *, seed: int = 0) -> CausalTracing:
    """Causal tracing: blur the subject with noise, restore one state at a time, and see which calls the fact back.

    Gaussian noise of `noise` standard deviations is added to the stream that enters the first block, at the subject's
    tokens. Then the clean state is restored at one (layer, position): the stream itself, or what attention or the MLP
    adds in a window of layers. Effect = (metric restored - metric noised) / (metric clean - metric noised), the mean
    over samples; shown minus the mean effect of control states.

    A high effect says that the state there is enough for the later computation, not that the fact is stored there
    (Hase et al. 2023). Raises `BadInput` when the subject does not occur in the prompt."""
    from intarsia.interpretation.causal.tracing import trace

    return trace(model, config, seed)
