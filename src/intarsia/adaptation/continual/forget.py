"""`adaptation.forget`: a task taken out of a model again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from intarsia.catalog import Config, technique

if TYPE_CHECKING:
    from intarsia.models import Model


class ForgetConfig(Config):
    tasks: tuple[str, ...] = Field(description="names of the tasks to take out")


@technique(
    "adaptation.forget",
    kind="change",
    family="continual tuning",
    source="own: the router is a sum over tasks, so that taking one out is exact",
    needs="skills",
    extra="adapt",
    example={"tasks": ("news",)},
)
def forget(model: Model, config: ForgetConfig) -> Model:
    """Take tasks out of a model that learned them: their blocks, their statistics, their weights in others' rows.

    What is left tells tasks apart as if the task had never been there. Other tasks' blocks stay as they are: what they
    learned while the task's block helped them stays learned.

    Raises `BadInput` for a task that the model does not have, or whose block it shares with others."""
    from intarsia.adaptation.continual.serving import without

    return without(model, config.tasks)
