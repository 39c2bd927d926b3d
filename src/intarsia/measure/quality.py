"""`measure.quality`: how good a model is at what its data asks for: labels, text or generation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from intarsia.catalog import Config, technique
from intarsia.measure.quality_finding import Quality

if TYPE_CHECKING:
    from intarsia.data import Record, Text
    from intarsia.models import Model


class QualityConfig(Config):
    """Settings of `measure.quality`."""

    calibration: Literal["task", "batch", "content-free", "none"] = Field(
        "task", description="zero-shot calibration of label scores; task: as the label task says"
    )
    limit: int | None = Field(None, ge=1, description="measure on so many test records, drawn at random")
    perplexity_on: Literal["text", "none"] = Field("none", description="also measure perplexity on the split `text`")
    window: int = Field(512, ge=2, description="tokens seen at once when measuring perplexity")
    stride: int | None = Field(None, ge=1, description="tokens a window moves (default: half a window)")
    text_tokens: int | None = Field(20_000, ge=1, description="most tokens to measure perplexity on")
    max_new_tokens: int = Field(64, ge=1, description="longest generated answer")
    draws: int = Field(2000, ge=100, description="bootstrap draws behind each interval")
    exports: bool = Field(True, description="also measure the model's exports for other engines")


@technique(
    "measure.quality",
    kind="look",
    family="quality",
    source="label likelihood: Zhao et al. 2021, §4; ECE: Guo et al. 2017, eq. 3; ROUGE-L: Lin 2004, §3; "
    "bootstrap: Efron & Tibshirani 1993, ch. 13",
    gives="Quality",
    extra="quality",
)
def quality(
    model: Model,
    config: QualityConfig,
    *,
    test: list[Record],
    text: list[Text] | None = None,
    label_task: dict[str, Any] | None = None,
    seed: int = 0,
) -> Quality:
    """Measure a model on its test split; the kind of record decides what is measured.

    - labelled texts: accuracy, weighted and macro F1, calibration error, per class, against the majority floor. A
      model without a label task of its own takes the data's, and scores zero-shot.
    - texts: perplexity. Prompts with targets: exact match and ROUGE-L of greedy answers.
    - exports for other engines (`model.exports`) are measured too, in rows of their own.

    All intervals are 95 % bootstrap intervals over the records' groups. Raises `BadInput` for an empty test split or
    records that none of this fits."""
    from intarsia.measure.quality_run import measure

    return measure(model, config, test, text, label_task, seed)
