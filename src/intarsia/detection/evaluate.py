"""`detection.evaluate`: how good detectors are on texts whose writers are known."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from intarsia.catalog import Config, technique
from intarsia.detection.documents import Documents

if TYPE_CHECKING:
    from intarsia.detection.evaluating.finding import Evaluated


class EvaluateConfig(Config):
    """Settings of an evaluation."""

    detectors: tuple[str, ...] = Field(("english",), description="folders of detectors, or such that come along")
    methods: tuple[str, ...] = Field(
        (), description="methods without training beside them: loglik, logrank, lrr, neg_entropy, curvature, "
        "binoculars, detectgpt, npr, dna_gpt, ..."
    )  # fmt: skip
    fpr: float = Field(0.01, gt=0, lt=1, description="budget at which texts are flagged")
    scorer: str = Field("smollm2-135m", description="methods: the language model that scores")
    observer: str | None = Field(None, description="methods: the observer beside it, for binoculars and curvature")
    filler: str | None = Field(None, description="methods: the T5 that perturbs, for detectgpt and npr")
    writer: str | None = Field(None, description="methods: what writes on, for dna_gpt: a model, or URL#model")
    tokens: int | None = Field(128, ge=16, description="methods: tokens of a text that are scored")


@technique(
    "detection.evaluate",
    kind="look",
    family="detection",
    source="own protocol: threshold from people's texts of the domain; intervals: Clopper & Pearson 1934, Efron & "
    "Tibshirani 1993",
    needs="documents",
    extra="detect",
    example={"subject": "corpus", "methods": ("loglik", "logrank")},
)
def evaluate(documents: Documents, config: EvaluateConfig, *, seed: int = 0) -> Evaluated:
    """Measure detectors on labelled documents: AUROC, texts found and people flagged at your budget, by domain, by
    generator and prompt, and by group of writers.

    In each domain a half of people's texts (or the split `cal`) is the bank that sets the threshold; the other half and
    the machines' texts are judged. All detectors see the same texts.

    - DOCUMENTS: as for `detection train`.

    Raises `BadInput` for documents without labels, and unknown detectors or methods."""
    from intarsia.detection.evaluating.run import look

    return look(documents, config, seed)
