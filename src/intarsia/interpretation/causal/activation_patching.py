"""`interpretation.activation_patching`: which states carry the difference between two prompts."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from intarsia.catalog import technique
from intarsia.interpretation.causal.findings import Effects
from intarsia.interpretation.causal.settings import ContrastConfig, ControlConfig
from intarsia.models import Model

IOI = {
    "prompt": "When Mary and John went out, John gave a drink to",
    "corrupt": "When Mary and John went out, Mary gave a drink to",
    "answer": "Mary",
    "foil": "John",
}


class ActivationPatchingConfig(ContrastConfig, ControlConfig):
    kinds: list[Literal["resid_post", "attn_out", "mlp_out", "z"]] = Field(
        ["resid_post"],
        min_length=1,
        description="what is patched: the stream (resid_post), what attention or the MLP adds, each head's output (z)",
    )
    direction: Literal["restore", "break"] = Field(
        "restore",
        description="restore: write the clean run's states into the corrupt run; break: the corrupt ones "
        "into the clean",
    )
    positions: list[int] = Field([], description="token positions that are patched (-1 is the last); unset: all")
    stride: int = Field(1, ge=1, description="patch every n-th layer, counted back from the last")


class ActivationPatching(Effects):
    """Effects of writing one run's states into the other, by layer and position, or by layer and head.

    `direction`: `restore` (clean into corrupt) or `break` (corrupt into clean). `identical`: cells that were not run,
    since both runs have the same state there."""

    direction: str = "restore"
    identical: int = 0


@technique(
    "interpretation.activation_patching",
    kind="look",
    family="mechanistic",
    source="Vig et al. 2020 (causal mediation); Heimersheim and Nanda 2024 (how to read it), sections 2 and 4",
    place="fine-tuning · global · mechanistic",
    example={**IOI, "stride": 2},
)
def activation_patching(model: Model, config: ActivationPatchingConfig, *, seed: int = 0) -> ActivationPatching:
    """Activation patching: write states of one run into another, cell by cell, and see what brings the answer back.

    Two prompts of as many tokens, after which different words are right. For each layer and position the corrupt run
    gets the clean run's state there, and only there (`direction=break`: the other way round). Effect =
    (metric patched - metric corrupt) / (metric clean - metric corrupt): 1 means that this state alone brings back all
    of the difference. Heads (`kinds=z`) are patched at all positions together.

    Restoring shows what is enough, breaking shows what is needed; the two need not agree. Raises `BadInput` for prompts
    of different length."""
    from intarsia.interpretation.causal.patching import patch

    return patch(model, config, seed)
