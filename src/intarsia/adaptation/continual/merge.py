"""`adaptation.merge`: one task's block folded into the weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from intarsia.catalog import Config, technique

if TYPE_CHECKING:
    from intarsia.models import Model


class MergeConfig(Config):
    task: str | None = Field(
        None, description="the task to keep; unset: all blocks, where the same weights serve every prompt"
    )


@technique(
    "adaptation.merge",
    kind="change",
    family="continual tuning",
    source="Hu et al. 2021, LoRA, §4.1",
    needs="skills",
    extra="adapt",
    example={"task": "news"},
)
def merge(model: Model, config: MergeConfig) -> Model:
    """Fold skills into the weights: a plain network for one task, as fast as the one it was made from.

    With `task`, the blocks that this task uses, at its weights. Without, only where weights do not depend on the prompt
    (sequential tuning, O-LoRA); else folding would be wrong for all tasks but one, and is refused.

    Raises `BadInput` for that, for a task the model does not have, for soft prompts, and for quantized layers."""
    from intarsia.adaptation.continual.serving import folded

    return folded(model, config.task)
