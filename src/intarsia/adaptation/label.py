"""`adaptation.label`: teach a causal language model a labelling task, with the loss on the label's tokens only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from intarsia.catalog import technique
from intarsia.training.lora import LoraConfig

if TYPE_CHECKING:
    from intarsia.data import LabelledText
    from intarsia.models import Model


class LabelConfig(LoraConfig):
    """Settings of label tuning: LoRA's, and how the label's loss is formed."""

    template: str | None = Field(
        None, description="prompt with {text} (and {context}), ending where the label begins; default: the data's own"
    )
    verbalisers: dict[str, str] | None = Field(None, description="label -> the words the model writes for it")
    max_tokens: int | None = Field(None, ge=1, description="longest prompt; longer texts are cut")
    max_records: int | None = Field(None, ge=1, description="train on so many records, drawn evenly by label")
    class_weight: float = Field(
        0.0, ge=0, le=1, description="weight records by label frequency to minus this power (0: none, 1: inverse)"
    )
    logit_adjustment: float = Field(
        0.0, ge=0, description="tau: tau * log prior is added to the logits in the loss (for macro F1)"
    )
    label_bias: bool = Field(False, description="also train a bias for each label (first tokens must differ)")
    choose_prior: Literal["none", "weighted_f1", "macro_f1"] = Field(
        "none", description="choose on dev how much of the log prior to take off the scores, for this figure"
    )
    fit_temperature: bool = Field(True, description="fit the temperature of the probabilities on dev")
    trunk_cache: Literal["off", "float32", "float16"] = Field(
        "off", description="with layers_from: store the states that enter the first adapted block, in this precision"
    )


@technique(
    "adaptation.label",
    kind="change",
    family="low-rank adaptation",
    source="Hu et al. 2021, LoRA, §4.1; logit adjustment: Menon et al. 2021, §4.2; temperature: Guo et al. 2017, §4.2",
    extra="adapt",
    model="smollm2-135m",
)
def label(
    model: Model,
    config: LabelConfig,
    *,
    train: list[LabelledText],
    dev: list[LabelledText] | None = None,
    label_task: dict[str, Any] | None = None,
    seed: int = 0,
) -> Model:
    """Tune a causal language model to a labelling task by LoRA.

    The prompt is data, not prose; the loss is the cross-entropy of the label's path through the prefix trie of the
    verbalisers, so only label tokens are learnt. With adapters on the upper blocks only, `trunk_cache` stores the
    states that enter them once and trains on the upper blocks alone. The result is a plain network with the adapters
    merged in; the task, its temperature included, travels as `model.extras["label_task"]`, the losses and counts
    as `model.extras["adaptation.label"]`.

    - train, dev: labelled texts; dev fits the temperature (and, if asked, the prior).
    - label_task: prompt and verbalisers that come with the data; else the model's own task, else defaults.

    Raises `BadInput` for no data, a single label, a label of dev that train lacks, or a network that is not causal."""
    from intarsia.adaptation.label_tuning import tune

    return tune(model, config, train, dev, label_task, seed)
