"""The figures of `measure.quality`, as typed data: what was measured, with intervals."""

from __future__ import annotations

import pydantic

Interval = tuple[float, float, float]
"""A value with the two ends of its 95 % interval."""


class ClassQuality(pydantic.BaseModel):
    """One label: precision, recall, F1 with interval, and how often it occurs."""

    label: str
    precision: float
    recall: float
    f1: Interval
    support: int


class LabelQuality(pydantic.BaseModel):
    """Predictions of one set of labelled texts.

    - accuracy, weighted_f1, macro_f1: value and 95 % bootstrap interval over groups. Macro averages over the labels
      that occur in truth or prediction.
    - ece: expected calibration error of the top probability, ten equal bins (Guo et al. 2017, eq. 3).
    - floor_*: always answering with the set's most frequent label.
    - confusion: [true label, predicted label] counts.
    - raw_*: the same predictions without calibration, bias and prior.
    - truth, answers, group_of: per text the true label, the answer and the group, as numbers: what a paired comparison
      with another model needs."""

    n: int
    groups: int
    accuracy: Interval
    weighted_f1: Interval
    macro_f1: Interval
    ece: float
    floor_label: str
    floor_accuracy: float
    floor_weighted_f1: float
    raw_accuracy: float
    raw_weighted_f1: float
    mass: float | None
    cut: int
    classes: list[ClassQuality]
    confusion: list[list[int]]
    truth: list[int] = []
    answers: list[int] = []
    group_of: list[int] = []


class TextQuality(pydantic.BaseModel):
    """- perplexity: exp of the mean loss in nats per token, with its interval over groups of texts.
    - bits_per_byte: the same loss per byte of the scored texts: comparable between tokenizers.
    - tokens: how many were predicted; texts: from how many texts; windows: forwards' rows.
    - skipped: texts left out, because they have a single token or lie beyond the token limit."""

    perplexity: Interval
    bits_per_byte: float
    tokens: int
    texts: int
    windows: int
    skipped: int


class GenerationQuality(pydantic.BaseModel):
    """Greedy generation against targets.

    - exact_match: share of outputs equal to the target, white space folded.
    - rouge_l: mean F-measure of the longest common subsequence (Lin 2004, §3), words stemmed.
    - samples: the first few (prompt, wanted, written). cut: prompts that lost their beginning to fit."""

    n: int
    exact_match: Interval
    rouge_l: Interval
    cut: int
    samples: list[tuple[str, str, str]]
