"""The work behind `measure.quality`: choose what to measure, for the network and for its exports."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from intarsia.data import LabelledText, Text, TextPair, labelled
from intarsia.errors import BadInput
from intarsia.measure.classification import judge
from intarsia.measure.generation import judge_generation
from intarsia.measure.labelling import label_scores, own_way
from intarsia.measure.labels import LabelTask, label_numbers
from intarsia.measure.likelihood import score
from intarsia.measure.quality_finding import Quality, QualityRow
from intarsia.measure.quality_parts import LabelQuality, TextQuality
from intarsia.measure.windows import perplexity

if TYPE_CHECKING:
    from intarsia.measure.quality import QualityConfig
    from intarsia.models import Model


def measure(
    model: Model,
    config: QualityConfig,
    test: Sequence[Any],
    text: Sequence[Text] | None,
    label_task: Mapping[str, Any] | None,
    seed: int,
) -> Quality:
    """See `intarsia.measure.quality.quality`."""
    if not test:
        raise BadInput("measure.quality: the test split is empty")
    kinds = {LabelledText if isinstance(record, LabelledText) else type(record) for record in test}
    if len(kinds) > 1 or not kinds <= {LabelledText, Text, TextPair}:
        names = ", ".join(sorted(kind.__name__ for kind in kinds))
        raise BadInput(f"measure.quality wants LabelledText, Text or TextPair records, all alike (given: {names})")
    if kinds == {LabelledText} and (way := own_way(model)):
        row = QualityRow(engine="", label=_own(model, config, way, test, seed))
        if config.perplexity_on == "text":
            row.text = _text(model, config, _wanted(text), seed, None)
        return _found(config, seed, [row], None)
    if kinds == {LabelledText}:
        test = labelled(test, "test")
    if config.limit is not None and len(test) > config.limit:
        chosen = sorted(random.Random(seed).sample(range(len(test)), config.limit))
        test = [test[i] for i in chosen]
    task = _task(model, test, label_task) if kinds == {LabelledText} else None
    engines: list[tuple[str, Any]] = [("", None)]
    if config.exports and model.exports:
        from intarsia.models.runtime import open_runtime

        opened = [(name, open_runtime(path)) for name, path in sorted(model.exports.items())]
        engines += [(name, runtime) for name, runtime in opened if hasattr(runtime, "logits")]  # no encoders
    rows = []
    for name, runtime in engines:
        row = QualityRow(engine=name)
        if task is not None:
            row.label = _label(model, config, task, test, seed, runtime)
        elif kinds == {TextPair}:
            row.generation = judge_generation(
                model, test, max_new_tokens=config.max_new_tokens, draws=config.draws, seed=seed, runtime=runtime
            )
        else:
            row.text = _text(model, config, test, seed, runtime)
        if row.text is None and config.perplexity_on == "text":
            row.text = _text(model, config, _wanted(text), seed, runtime)
        rows.append(row)
    return _found(config, seed, rows, task)


def _wanted(text: Sequence[Text] | None) -> Sequence[Text]:
    if not text:
        raise BadInput("perplexity_on is 'text', but the data has no split 'text'")
    return text


def _found(config: QualityConfig, seed: int, rows: list[QualityRow], task: LabelTask | None) -> Quality:
    return Quality(
        title="Quality",
        summary=summary(rows[0]),
        technique="measure.quality",
        provenance={
            "seed": seed,
            "config": config.model_dump(mode="json"),
            "task": task.model_dump() if task else None,
        },
        rows=rows,
    )


def _task(model: Model, test: Sequence[LabelledText], label_task: Mapping[str, Any] | None) -> LabelTask:
    """The model's own task; else the data's; else defaults made from the test labels (without their frequencies)."""
    task = LabelTask.of(model) or (LabelTask.parse(label_task) if label_task else None)
    task = task or LabelTask.from_records(test, prior=False)
    task.index(test, "test")
    return task


def _label(
    model: Model, config: QualityConfig, task: LabelTask, test: Sequence[LabelledText], seed: int, runtime: Any
) -> LabelQuality:
    calibration = None if config.calibration == "task" else config.calibration
    found = score(model, task, test, calibration=calibration, runtime=runtime)
    return judge(
        task.labels,
        np.array(task.index(test, "test")),
        found.probabilities,
        found.raw,
        [record.group for record in test],
        mass=found.mass,
        cut=found.cut,
        draws=config.draws,
        seed=seed,
    )


def _own(model: Model, config: QualityConfig, way: str, test: Sequence[LabelledText], seed: int) -> LabelQuality:
    """Of a model that labels in a way of its own: unlabelled turns are context, and all are labelled together."""
    found = label_scores(model, test, technique=way)
    places = [i for i, record in enumerate(test) if record.label]
    if not places:
        raise BadInput("measure.quality: no record of the test split has a label")
    if config.limit is not None and len(places) > config.limit:
        places = sorted(random.Random(seed).sample(places, config.limit))
    judged = [test[i] for i in places]
    return judge(
        found.labels,
        np.array(label_numbers(found.labels, judged, "test")),
        found.probabilities[places],
        found.raw[places],
        [record.group for record in judged],
        cut=found.cut,
        draws=config.draws,
        seed=seed,
    )


def _text(model: Model, config: QualityConfig, texts: Sequence[Any], seed: int, runtime: Any) -> TextQuality:
    return perplexity(
        model,
        [record.text for record in texts],
        [record.group for record in texts],
        window=config.window,
        stride=config.stride,
        max_tokens=config.text_tokens,
        draws=config.draws,
        seed=seed,
        runtime=runtime,
    )


def summary(row: QualityRow) -> str:
    """One or two sentences a person understands at a glance."""
    parts = []
    if row.label:
        value, low, high = row.label.weighted_f1
        floor = row.label.floor_weighted_f1
        verdict = "clearly above" if low > floor else "not clearly above" if high > floor else "below"
        parts.append(
            f"Weighted F1 is {value:.1%} ({low:.1%} to {high:.1%}) on {row.label.n} texts, {verdict} the "
            f"{floor:.1%} of always answering '{row.label.floor_label}'."
        )
    if row.generation:
        exact, rouge = row.generation.exact_match[0], row.generation.rouge_l[0]
        parts.append(f"{exact:.1%} of {row.generation.n} answers match exactly; ROUGE-L is {rouge:.3f}.")
    if row.text:
        value, low, high = row.text.perplexity
        parts.append(f"Perplexity is {value:.2f} ({low:.2f} to {high:.2f}) over {row.text.tokens:,} tokens.")
    return " ".join(parts)
