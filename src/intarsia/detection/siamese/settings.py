"""Settings of the Siamese detector and of the encoder for single texts."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from intarsia.errors import BadInput
from intarsia.training.lora import LoraConfig

HeadName = Literal["diff", "abs", "full", "single"]
Loss = Literal["bce", "contrastive"]
Pooling = Literal["mean", "cls"]
Tune = Literal["last2", "all", "lora", "none"]

# Peak learning rates of the encoder by what is tuned, where none is given. A frozen one has none: the head's counts.
RATES = {"last2": 2e-4, "all": 2e-5, "lora": 1e-3}


class SiameseConfig(LoraConfig):
    """Settings of the Siamese detector; what is LoRA's (rank, alpha, ...) counts with `tune: lora` only.

    Defaults are those of the implementation note to Dou et al. 2024; the paper's own could not be read."""

    head: HeadName = Field(
        "diff",
        description="what the classifier reads of the vectors u (inquiry) and v (reference): diff: u - v; abs: |u - v|,"
        " the paper's form; full: u, v and |u - v|; single: u alone, without a reference",
    )
    loss: Loss = Field(
        "bce",
        description="bce: cross-entropy of a classifier; contrastive: no classifier, machine texts are pulled to their "
        "reference and human texts pushed away from it",
    )
    pooling: Pooling = Field("mean", description="a text's vector: mean over its tokens, or the first token's state")
    tune: Tune = Field(
        "last2",
        description="which part of the encoder learns: last2: the last two blocks; all; lora: low-rank adapters, merged"
        " in the end; none: the classifier alone, which takes no time (give it many epochs)",
    )
    learning_rate: float | None = Field(  # type: ignore[assignment]
        None, gt=0, description="AdamW's peak learning rate of the encoder; default: 2e-4 last2, 2e-5 all, 1e-3 lora"
    )
    head_rate: float = Field(3e-3, gt=0, description="peak learning rate of the classifier")
    weight_decay: float = Field(0.01, ge=0, description="AdamW's weight decay")
    batch_size: int = Field(16, ge=1, description="pairs (single: texts) in a step")
    epochs: float = Field(6, gt=0, description="times through the pairs; with few, |u - v| has not learned yet")
    max_tokens: int = Field(256, ge=1, description="tokens of a text that are read; the rest is left out")
    references: int = Field(3, ge=1, description="references that a text is paired with in training")

    def check(self) -> None:
        """Raise `BadInput` for settings that contradict one another."""
        if self.loss == "contrastive" and self.head == "single":
            raise BadInput("loss contrastive compares a text with its reference: give a head other than single")
        if self.loss == "contrastive" and self.tune == "none":
            raise BadInput("loss contrastive trains the encoder alone, and tune none leaves it as it is: tune last2")

    def for_training(self) -> SiameseConfig:
        """With the learning rate that the training loop is to use."""
        rate = self.learning_rate or RATES.get(self.tune, self.head_rate)
        return self.model_copy(update={"learning_rate": self.head_rate if self.tune == "none" else rate})
