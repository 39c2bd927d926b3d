"""`interpretation.path_patching`: which heads act on which receivers directly."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from intarsia.catalog import technique
from intarsia.interpretation.causal.activation_patching import IOI
from intarsia.interpretation.causal.findings import EffectMap, Effects
from intarsia.interpretation.causal.settings import ContrastConfig
from intarsia.models import Model


class PathPatchingConfig(ContrastConfig):
    receivers: list[str] = Field(
        ["logits"],
        min_length=1,
        description="where the path ends: logits, or what heads read, as layer.head.input with input q, k or v (9.6.q)",
    )
    mlps: Literal["frozen", "recomputed"] = Field(
        "frozen",
        description="between sender and receiver: frozen: the path is the stream alone; recomputed: through MLPs, too",
    )
    stride: int = Field(1, ge=1, description="senders in every n-th layer, counted back from the last")


class PathPatching(Effects):
    """Effect of each sender head (layer, head) along the path to the receivers, as a share of the whole difference."""

    receivers: list[str] = Field(default_factory=list)
    mlps: str = "frozen"

    def picture_title(self, one: EffectMap) -> str:
        return f"What each head sends to {', '.join(self.receivers)} directly"


@technique(
    "interpretation.path_patching",
    kind="look",
    family="mechanistic",
    source="Wang et al. 2022 (Interpretability in the wild), section 3.1 and appendix B; Goldowsky-Dill et al. 2023",
    place="fine-tuning · global · mechanistic",
    example={**IOI, "stride": 2},
)
def path_patching(model: Model, config: PathPatchingConfig) -> PathPatching:
    """Path patching: what a head tells others directly, with everything else held as it was.

    In the clean run one sender head gives its output of the corrupt run; all other heads (and MLPs, unless
    `recomputed`) up to the receivers keep their clean outputs, so that the change reaches the receivers along the
    residual stream alone. Then the clean run is made with the receivers' changed inputs, and everything above them
    follows. Effect = (metric - metric clean) / (metric corrupt - metric clean): the share of the whole change that
    takes this path.

    Receivers: `logits`, or queries, keys or values of heads (in grouped attention those of the head's group). Senders
    are all heads of layers below. Raises `BadInput` for a receiver that does not exist."""
    from intarsia.interpretation.causal.paths import follow

    return follow(model, config)
