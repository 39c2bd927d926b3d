"""`tokens.train`: a merged model gets back what merging cost it, and learns its cross tokens."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from intarsia.catalog import Config, technique
from intarsia.report import Cell, Column, Figure, Finding, Series

if TYPE_CHECKING:
    from intarsia.models import Model


class TrainConfig(Config):
    """How a merged (or, as a control, a dense) model is trained."""

    steps: int = Field(200, ge=1, description="Steps of the optimiser")
    epochs: float | None = Field(None, gt=0, description="Times through the records; replaces steps")
    batch_size: int = Field(16, ge=1, description="Records in a step")
    trains: Literal["all", "offsets", "lora"] = Field(
        "all",
        description="What learns: all weights; only the cross tokens' offsets; or low-rank adapters in the language "
        "model (where there is none, in both towers), the projector and the offsets, added to the weights at the end",
    )
    learning_rate: float = Field(1e-5, gt=0, description="Of the weights at its height, falling to zero by a cosine")
    offset_rate: float = Field(30.0, gt=0, description="Learning rate of the offsets, as a multiple of learning_rate")
    warmup: float = Field(0.05, ge=0, lt=1, description="Share of the steps in which the learning rate rises")
    weight_decay: float = Field(0.05, ge=0, description="Of weight matrices (AdamW); not of norms, biases and offsets")
    clip: float = Field(1.0, gt=0, description="Largest norm of the gradients, of weights and of offsets by themselves")
    anneal: float = Field(
        1 / 3, ge=0, le=1, description="Share of the steps in which the removed rows grow from none to what is planned"
    )
    align: float = Field(
        0.5, ge=0, description="Weight of the alignment loss, from which the cross tokens learn; 0: they stay"
    )
    alignment: Literal["js", "official"] = Field(
        "js", description="Jensen-Shannon divergence, or with the directions of the authors' code"
    )
    distill: float = Field(
        0.0, ge=0, description="Weight of staying near the dense model as it was before (a frozen copy is kept)"
    )
    rank: int = Field(8, ge=1, description="lora: rank of the adapters")
    max_tokens: int = Field(
        64, ge=1, description="Tokens of an answer or caption that are learned; the rest is cut off"
    )
    checkpoint: Path | None = Field(
        None, description="A folder where the training is kept while it runs, and taken up again after a stop"
    )


class TokenTraining(Finding):
    """How the losses went. `task`, `aligned` and `distilled` hold one number a step (empty: there was no such loss)."""

    task: list[float] = Field(default_factory=list)
    aligned: list[float] = Field(default_factory=list)
    distilled: list[float] = Field(default_factory=list)
    pictures: int = 0
    unread: int = 0

    def headline(self) -> dict[str, tuple[Cell | tuple[float, float, float], Column]]:
        tail = self.task[-max(1, len(self.task) // 10) :]
        return {"training_loss": (sum(tail) / len(tail), Column(name="training loss", format=".3f"))}

    def figures(self) -> list[Figure]:
        figures = []
        for title, values in (
            ("Loss of the task while training", self.task),
            ("Alignment of the cross tokens (nats)", self.aligned),
            ("Distance from the dense model", self.distilled),
        ):
            if values:
                x = [float(i + 1) for i in range(len(values))]
                line = [Series(name="training", x=x, y=list(values))]
                figures.append(Figure(title=title, kind="line", x="step", y="loss", series=line, format=".3f"))
        return figures


@technique(
    "tokens.train",
    kind="change",
    family="token merging",
    source="Shi et al. 2024 (CrossGET), §3.2 and §4",
    needs="vision",
    extra="vision",
)
def train(model: Model, config: TrainConfig, *, train: list[Any], seed: int = 0) -> Model:
    """A copy of a merged model, trained with its tokens merged: for its task, and for its cross tokens.

    - train: records of pictures, as the network is asked. Dual encoders (CLIP, SigLIP): with texts; the loss is the
      network's own, contrastive within the batch, pictures or texts that are the same counting as right. Networks that
      answer (BLIP, LLaVA): with questions and answers, or captions. Classifiers: with labels.

    A model that was merged with `cross` learns its cross tokens besides (alignment loss); it shares no gradient with
    the task. The rows that are removed grow from none to the plan's over the first `anneal` of the steps. A dense model
    is trained in the same way without merging: the control that got the same extra steps, which any claim about a
    merged model needs.

    Pictures that cannot be read are left out and counted. The same seed and threads give the same weights. Raises
    `BadInput` for records the network cannot learn from, and for offsets to be trained where there are none."""
    from intarsia.tokens.training.technique import trained

    return trained(model, config, train, seed)
