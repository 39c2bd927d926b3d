"""Metrics of answers: what each record adds, and the figure of the sums, so that every one has its interval.

Sources: ROUGE-L: Lin 2004, §3. F1 averages: as `intarsia.measure.classification`."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from intarsia.data.splits import normalised_text
from intarsia.errors import BadInput, did_you_mean, first_line

if TYPE_CHECKING:
    import numpy as np

CLASSES = {"accuracy": "accuracy", "macro_f1": "macro_f1", "wf1": "weighted_f1"}
EACH = ("exact", "contains", "rouge", "regex", "json_valid")
NAMES = (*CLASSES, *EACH, "judge", "python:module:function")
WITHOUT_GOLD = ("json_valid", "judge")
OTHER = "(another)"
Judge = Callable[[str, str, Mapping[str, Any]], float]


@dataclass(frozen=True)
class Metric:
    """A figure of answers. name: as it was asked for. each: value of one answer, from answer, gold and record; None for
    those of classes (`statistic` of a confusion matrix) and for a judge's, which come from a model."""

    name: str
    each: Judge | None = None
    statistic: str = ""

    @property
    def needs_gold(self) -> bool:
        """Whether it compares with the set's own answers."""
        return not (self.name in WITHOUT_GOLD or self.name.startswith(("python:", "regex:")))


def metric_of(name: str) -> Metric:
    """The metric that a name asks for: `accuracy`, `macro_f1`, `wf1` (answers as classes); `exact` (space folded, JSON
    by value), `contains` (words, not marks or case), `rouge` (ROUGE-L), `regex` (the gold value is a pattern that is
    searched for) or `regex:PATTERN`, `json_valid`, `judge`, `python:module:function`.

    Raises `BadInput` for a name that is none, a pattern that is none, and a function that cannot be imported;
    `MissingExtra` for `rouge` without rouge-score."""
    if name in CLASSES:
        return Metric(name, statistic=CLASSES[name])
    if name == "judge":
        return Metric(name)
    if name == "rouge":
        from intarsia.measure.generation import rouge_scorer

        scorer = rouge_scorer()
        return Metric(name, lambda answer, gold, row: scorer.score(gold, answer)["rougeL"].fmeasure)
    if name.startswith("regex:"):
        pattern = _pattern(name.removeprefix("regex:"))
        return Metric(name, lambda answer, gold, row: float(pattern.search(answer) is not None))
    if name.startswith("python:"):
        return Metric(name, _own(name))
    known: dict[str, Judge] = {"exact": _exact, "contains": _contains, "regex": _regex, "json_valid": _json_valid}
    if name not in known:
        raise BadInput(f"no metric '{name}'{did_you_mean(name, NAMES)}; there are {', '.join(NAMES)}")
    return Metric(name, known[name])


def _exact(answer: str, gold: str, row: Mapping[str, Any]) -> float:
    if " ".join(answer.split()) == " ".join(gold.split()):
        return 1.0
    if gold[:1] in "{[":
        try:
            return float(json.loads(answer) == json.loads(gold))
        except ValueError:
            pass
    return 0.0


def _contains(answer: str, gold: str, row: Mapping[str, Any]) -> float:
    return float(f" {normalised_text(gold)} " in f" {normalised_text(answer)} ")


def _regex(answer: str, gold: str, row: Mapping[str, Any]) -> float:
    return float(_pattern(gold).search(answer) is not None)


def _json_valid(answer: str, gold: str, row: Mapping[str, Any]) -> float:
    try:
        json.loads(answer)
    except ValueError:
        return 0.0
    return 1.0


def _pattern(source: str) -> re.Pattern[str]:
    try:
        return re.compile(source)
    except re.error as error:
        raise BadInput(f"'{source}' is no regular expression: {error}") from None


def _own(name: str) -> Judge:
    from intarsia.prompting.execute.flows.loading import module_of

    place, _, attribute = name.removeprefix("python:").rpartition(":")
    if not place or not attribute:
        raise BadInput(f"'{name}' is no metric: give python:module:function or python:FILE.py:function")
    function = getattr(module_of(place), attribute, None)
    if not callable(function):
        raise BadInput(f"{place}: no function '{attribute}', which --metric {name} asks for")
    takes = len(inspect.signature(function).parameters)
    if takes not in (2, 3):
        raise BadInput(f"{name}: takes {takes} parameters: give a function of (answer, gold) or (answer, gold, record)")

    def each(answer: str, gold: str, row: Mapping[str, Any]) -> float:
        given = (answer, gold, row)[:takes]
        try:
            return float(function(*given))
        except Exception as error:
            raise BadInput(
                f"{name}: {type(error).__name__}: {first_line(error)} (for the answer {answer[:60]!r})"
            ) from error

    return each


def as_class(answer: str, classes: Sequence[str]) -> str:
    """The class that an answer says: the same but for case, marks and space; else `OTHER`."""
    if answer in classes:
        return answer
    folded = normalised_text(answer)
    return next((one for one in classes if normalised_text(one) == folded), OTHER)


def confusion(golds: Sequence[str], answers: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """What each record adds to a confusion matrix, [record, true, answered], and the classes."""
    import numpy as np

    classes = sorted(set(golds))
    said = [as_class(answer, classes) for answer in answers]
    if OTHER in said:
        classes.append(OTHER)
    number = {name: i for i, name in enumerate(classes)}
    out = np.zeros((len(golds), len(classes), len(classes)))
    for i, (gold, answer) in enumerate(zip(golds, said, strict=True)):
        out[i, number[gold], number[answer]] = 1
    return out, classes


def statistic_of(metric: Metric) -> Callable[[np.ndarray], np.ndarray]:
    """From sums to the figure: of confusion matrices, or of (value, count)."""
    if metric.statistic:
        from intarsia.measure import classification

        return getattr(classification, metric.statistic)
    return mean


def mean(sums: np.ndarray) -> np.ndarray:
    """Of sums (value, count) in the last place."""
    import numpy as np

    return sums[..., 0] / np.maximum(sums[..., 1], 1)


def parts_of(metric: Metric, golds: Sequence[str], answers: Sequence[str], values: Sequence[float]) -> np.ndarray:
    """What each record adds to the figure."""
    import numpy as np

    if metric.statistic:
        return confusion(golds, answers)[0]
    return np.array([[value, 1.0] for value in values])
