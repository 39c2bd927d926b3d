"""A model at the EQ test: each option's score is its share of the likelihood, times ten."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from intarsia.adaptation.eq.finding import EqFinding, EqItem
from intarsia.adaptation.eq.items import SUM, Item
from intarsia.adaptation.eq.scoring import distances, percentile, quotient, similarity
from intarsia.errors import BadInput
from intarsia.measure.intervals import with_interval
from intarsia.measure.labels import LabelTask
from intarsia.measure.likelihood import check_causal, score, softmax
from intarsia.progress import track

if TYPE_CHECKING:
    from intarsia.models import Model

STORY = "{story}"


def examine(
    model: Model, items: Sequence[Item], template: str, calibration: Literal["none", "content-free"], seed: int
) -> EqFinding:
    """See `intarsia.adaptation.eq.technique.eq`."""
    check_causal(model)
    if model.tokenizer is None:
        raise BadInput("the EQ test needs text: this model has no tokenizer (wrap(network, tokenizer))")
    tasks = [task_of(item, template) for item in items]
    rows = [
        shares(model, task, item.story, calibration) for task, item in track(list(zip(tasks, items, strict=True)), "EQ")
    ]
    scores = SUM * np.array(rows)
    human = np.array([item.human for item in items])
    found = distances(scores, human)
    both = np.stack([found, np.ones(len(found))], axis=1)
    s, low, high = with_interval(both, lambda sums: sums[..., 0] / np.maximum(sums[..., 1], 1), [None] * len(found),
                                 seed=seed)  # fmt: skip
    even = float(distances(np.full_like(human, SUM / 4), human).mean())
    eq = quotient(s)
    likeness = None
    if items[0].template is not None:
        likeness = similarity(found.tolist(), [item.template or 0.0 for item in items])
    reading = [
        EqItem(story=i.story, options=list(i.options), scores=row.tolist(), human=list(i.human), distance=float(d))
        for i, row, d in zip(items, scores, found, strict=True)
    ]
    better = "above" if s < even else "below"
    summary = f"EQ is {eq:.0f}, above {percentile(eq):.0f} % of people if theirs are normal (mean distance {s:.2f}), "
    summary += f"{better} the {quotient(even):.0f} of giving every feeling 2.5."
    return EqFinding(
        title=f"EQ test, {len(items)} items", summary=summary, technique="adaptation.eq",
        provenance={"template": template, "calibration": calibration, "seed": seed}, items=reading,
        distance=(s, low, high), eq=(eq, quotient(high), quotient(low)), percentile=percentile(eq),
        similarity=likeness, even=even,
    )  # fmt: skip


def task_of(item: Item, template: str) -> LabelTask:
    """An item as a labelling task: the story, then one of the four words."""
    words = {option: option if template[-1:].isspace() else f" {option}" for option in item.options}
    return LabelTask.parse({"template": template.replace(STORY, "{text}"), "verbalisers": words})


def shares(
    model: Model, task: LabelTask, story: str, calibration: Literal["none", "content-free"] = "none"
) -> np.ndarray:
    """[option]: the model's probabilities of the options' words after a story, when it may write nothing else."""
    return softmax(score(model, task, [story], calibration=calibration).scores[0])
