"""`adaptation.edit`: write facts into the weights of a few MLPs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from intarsia.catalog import Config, technique
from intarsia.data import FactEdit

if TYPE_CHECKING:
    from intarsia.data import Text
    from intarsia.models import Model

EIFFEL = FactEdit(
    "{} is located in the city of", "Rome", subject="The Eiffel Tower", old="Paris",
    paraphrases=("You can visit {} in the city of",), neighbours=("The Louvre is located in the city of",),
)  # fmt: skip


class EditConfig(Config):
    """Settings of model editing: where, with how much care for the rest, and how the new values are found."""

    method: Literal["rome", "memit"] = Field(
        "memit",
        description="rome: one layer, each edit alone and exact; memit: all edits together, spread over several layers",
    )
    layers: tuple[int, ...] = Field(
        (), description="layers to edit: one for rome, any number for memit; default: found by causal tracing"
    )
    spread: int = Field(5, ge=1, description="memit: layers to edit where `layers` does not say, up to the one found")
    trace: bool = Field(
        True, description="find the layer by causal tracing; no: take the one at `depth` without looking"
    )
    depth: float = Field(0.25, ge=0, le=1, description="share of the depth at which to edit without tracing")
    trace_prompts: int = Field(
        8, ge=1, description="prompts that are traced: the edits', and common facts where they are fewer"
    )
    prefixes: int = Field(
        5, ge=0, description="beginnings that the model writes, before which each prompt is put as well"
    )
    steps: int = Field(25, ge=1, description="most steps of the search for a new value")
    rate: float = Field(0.5, gt=0, description="Adam's learning rate, in sizes (root mean squares) of the old value")
    stop_at: float = Field(
        0.95, gt=0, le=1, description="stop when the target's probability, a token and in the mean, is this"
    )
    kl: float = Field(0.0625, ge=0, description="weight of what else is said of the subject ('SUBJECT is a')")
    weight_decay: float = Field(
        0.05, ge=0, description="weight of the squared size of the change, in sizes of the old value"
    )
    largest: float | None = Field(
        None, gt=0, description="largest change of a value, in its own norm; default: 4 for rome, 0.75 for memit"
    )
    covariance_weight: float | None = Field(
        None, gt=0, description="memit: lambda, how much what the layer does today counts; default: its neurons' number"
    )
    background: Literal["samples", "python-docs"] = Field(
        "samples",
        description="texts for the covariance where none are given: the model's own writing, made once and kept, or "
        "the embedded data set",
    )
    tokens: int | None = Field(
        None, ge=16, description="tokens of text for the covariance of keys; default: 6 a neuron, 10,000 at least"
    )
    ridge: float = Field(
        1e-3,
        ge=0,
        description="added to the covariance's diagonal, in means of it: what texts never showed is not free",
    )
    perplexity_tokens: int = Field(1024, ge=2, description="tokens of text on which perplexity is measured, twice")


@technique(
    "adaptation.edit",
    kind="change",
    family="model editing",
    source="Meng et al. 2022, ROME, arXiv 2202.05262, sections 2 and 3.1; Meng et al. 2023, MEMIT, arXiv 2210.07229, "
    "sections 4.2 and 4.3; one key for all of ROME's formula: Gupta et al. 2024, arXiv 2403.07175",
    example={"edits": (EIFFEL,), "method": "rome", "background": "python-docs"},
)
def edit(
    model: Model, config: EditConfig, *, edits: list[FactEdit], texts: list[Text] | None = None, seed: int = 0
) -> Model:
    """Write facts into a causal language model by a closed-form change of its MLPs' down projections.

    A down projection is read as a memory: its input at the last token of a subject is a key, what it adds to the stream
    is the value. For each edit a value is searched under which the model says the target, at a text's beginning and
    within one; then the weights are changed so that the keys give the new values while the keys of ordinary text,
    known by their covariance, give what they gave. ROME does so in one layer and one edit at a time, MEMIT for all
    edits together in several layers.

    The result is a plain network with other weights in these layers. What became of the edits, of their paraphrases, of
    neighbours, of what else is said of the subject, and of the perplexity on text is told when the change ends
    (`model.finding`).

    - edits: prompts with a subject and a target; paraphrases, neighbours and consequences are only judged by.
    - texts: what the model is meant to go on doing: keys are weighed by them; an eighth is kept to measure perplexity.
      By default the model writes them itself.

    Raises `BadInput`, before any work, for edits that contradict each other, subjects that a prompt does not hold, and
    networks whose MLPs cannot be edited so: encoders, mixtures of experts, quantized layers, layers with adapters."""
    from intarsia.adaptation.editing.editing import edit_facts

    return edit_facts(model, config, edits, texts, seed)
