"""`adaptation.instruct`: instruction tuning on conversations, with the loss on the answers only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from intarsia.catalog import technique
from intarsia.training.lora import LoraConfig

if TYPE_CHECKING:
    from intarsia.data import Chat, TextPair
    from intarsia.models import Model


class InstructConfig(LoraConfig):
    """Settings of instruction tuning."""

    learning_rate: float = Field(5e-4, gt=0, description="AdamW's peak learning rate")
    max_tokens: int | None = Field(None, ge=2, description="longest conversation; what lies beyond is cut")


@technique(
    "adaptation.instruct",
    kind="change",
    family="low-rank adaptation",
    source="Hu et al. 2021, LoRA, §4.1; loss on answers: Ouyang et al. 2022, InstructGPT, app. C",
    extra="adapt",
)
def instruct(
    model: Model, config: InstructConfig, *, train: list[Chat | TextPair], dev: list[Chat | TextPair] | None = None,
    seed: int = 0,
) -> Model:  # fmt: skip
    """Tune a causal language model on conversations by LoRA.

    Conversations are written with the tokenizer's own chat template. The loss is on what the assistant says and on the
    token that ends its turn, and on nothing else. The result is a plain network with the adapters merged in; losses and
    counts travel as `model.extras["adaptation.instruct"]`.

    - train: conversations, or prompts with targets (read as one user turn and one answer).
    - dev: if given, its loss before and after is recorded.

    Raises `BadInput` for no data, no answers, a tokenizer without a chat template, or a network that is not causal."""
    from intarsia.adaptation.instruction_tuning import tune

    return tune(model, config, train, dev, seed)
