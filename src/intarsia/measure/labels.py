"""`LabelTask`: a classification task as a language model reads it: a prompt, and a word for each label.

The prompt is data, not prose: after tuning an instruction carries no information, and costs most of the tokens.
A task travels with the weights as `model.extras["label_task"]`."""

from __future__ import annotations

import math
import re
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import pydantic

from intarsia.data.dialogues import labelled
from intarsia.errors import BadInput, Note, did_you_mean

if TYPE_CHECKING:
    from intarsia.data import LabelledText
    from intarsia.models import Model

KEY = "label_task"
DEFAULT_TEMPLATE = "{text}\nLabel:"


class LabelTask(pydantic.BaseModel):
    """A prompt, its labels and how their scores become probabilities.

    - template: the prompt, with `{text}` and, where earlier turns matter, `{context}`. It ends where the verbaliser
      begins, so without a trailing space.
    - verbalisers: label -> the words the model would write, with their leading space.
    - prior, prior_weight: label probabilities and tau: tau * log prior is added to the calibrated scores.
    - bias: added to the scores, by label, in the order of `labels`.
    - temperature: scores are divided by it before the softmax.
    - calibration: `batch` subtracts each label's mean log-score over all texts scored together, `content-free` its
      score on an empty text, `none` nothing (right after tuning).
    - max_tokens: the longest prompt; a longer text is cut (None: the network's context).
    - end: closes a verbaliser that another one begins with (`new`, `new york`), so that labels exclude each other."""

    model_config = pydantic.ConfigDict(extra="ignore", validate_assignment=True)

    template: str = DEFAULT_TEMPLATE
    labels: list[str] = []
    verbalisers: dict[str, str]
    prior: list[float] | None = None
    prior_weight: float = 1.0
    bias: list[float] | None = None
    temperature: float = pydantic.Field(1.0, gt=0)
    calibration: Literal["batch", "content-free", "none"] = "batch"
    max_tokens: int | None = pydantic.Field(None, gt=0)
    context_separator: str = "\n"
    end: str = "\n"

    @pydantic.model_validator(mode="after")
    def _check(self) -> LabelTask:
        if not self.labels:
            self.__dict__["labels"] = list(self.verbalisers)
        if self.template.count("{text}") != 1:
            raise ValueError("the template wants {text} exactly once")
        if self.template.count("{context}") > 1:
            raise ValueError("the template takes {context} once at most")
        if len(self.labels) < 2 or len(set(self.labels)) < len(self.labels):
            raise ValueError(f"wants two labels or more, each once; given: {self.labels}")
        if set(self.labels) != set(self.verbalisers):
            raise ValueError(f"labels and verbalisers differ in {sorted(set(self.labels) ^ set(self.verbalisers))}")
        if empty := [label for label, words in self.verbalisers.items() if not words.strip()]:
            raise ValueError(f"the label '{empty[0]}' has an empty verbaliser")
        for words in self.verbalisers.values():
            if words.startswith(" ") and self.template.endswith(" "):
                raise ValueError("the template ends with a space and the verbalisers begin with one: drop the former")
        for name in ("prior", "bias"):
            values = getattr(self, name)
            if values is not None and len(values) != len(self.labels):
                raise ValueError(f"{name} has {len(values)} values for {len(self.labels)} labels")
        if self.prior is not None and min(self.prior) <= 0:
            raise ValueError("prior probabilities must be above zero")
        return self

    @classmethod
    def of(cls, model: Model) -> LabelTask | None:
        """The task that travels with a model, or None."""
        return cls.parse(model.extras[KEY]) if KEY in model.extras else None

    @classmethod
    def parse(cls, data: Mapping[str, Any] | LabelTask) -> LabelTask:
        """A task from plain data. Raises `BadInput` with the first thing that is wrong."""
        if isinstance(data, cls):
            return data
        try:
            return cls.model_validate(dict(data))
        except pydantic.ValidationError as error:
            first = error.errors()[0]
            at = ".".join(str(part) for part in first["loc"])
            raise BadInput(
                f"label task{': ' + at if at else ''}: {first['msg'].removeprefix('Value error, ')}"
            ) from None

    @classmethod
    def from_records(
        cls,
        records: Sequence[LabelledText],
        *,
        template: str | None = None,
        verbalisers: Mapping[str, str] | None = None,
        prior: bool = True,
        **settings: Any,
    ) -> LabelTask:
        """A task with sensible defaults from labelled records.

        A label's verbaliser is a space and the label in lower case, with `_`, `-` and `/` read as spaces. Two labels
        that come out the same keep their own spelling, with a warning. The prior is the share of each label, add-one
        smoothed. Raises `BadInput` for no records or a single label."""
        records = labelled(records)
        counts = Counter(record.label for record in records)
        if not counts:
            raise BadInput("a label task wants labelled texts; none were given")
        labels = sorted(counts)
        if len(labels) < 2:
            raise BadInput(
                f"a label task wants two labels or more; all {len(records)} texts are labelled '{labels[0]}'"
            )
        words = _default_verbalisers(labels) | dict(verbalisers or {})
        if template is None:
            template = "{context}\n" + DEFAULT_TEMPLATE if any(r.context for r in records) else DEFAULT_TEMPLATE
        total = len(records) + len(labels)
        share = [(counts[label] + 1) / total for label in labels] if prior else None
        return cls.parse({"template": template, "labels": labels, "verbalisers": words, "prior": share, **settings})

    @classmethod
    def zero_shot(cls, labels: Sequence[str], template: str = DEFAULT_TEMPLATE) -> LabelTask:
        """A task from the labels' own names and a prompt, for a model that was not tuned to any.

        Raises `BadInput` for fewer than two labels or a template without `{text}`."""
        return cls.parse({"template": template, "verbalisers": _default_verbalisers(list(labels))})

    def attach(self, model: Model) -> None:
        """Write the task into `model.extras`."""
        model.extras[KEY] = self.model_dump(mode="json")

    def render(self, text: str, context: Sequence[str] = ()) -> str:
        """The prompt of one text. Braces in the text are left alone."""
        # One pass over the template, so that a text which contains "{context}" stays what it is.
        values = {"{text}": text, "{context}": self.context_separator.join(context)}
        return re.sub(r"\{text\}|\{context\}", lambda found: values[found.group()], self.template)

    def index(self, records: Sequence[LabelledText], where: str = "the data") -> list[int]:
        """Label numbers of records. Raises `BadInput` that names a label the task does not know."""
        return label_numbers(self.labels, records, where)

    def log_prior(self) -> list[float] | None:
        """tau * log prior, by label, or None without one."""
        if self.prior is None or self.prior_weight == 0:
            return None
        total = sum(self.prior)
        return [self.prior_weight * math.log(p / total) for p in self.prior]


def label_numbers(labels: Sequence[str], records: Sequence[LabelledText], where: str = "the data") -> list[int]:
    """Numbers of records' labels among `labels`. Raises `BadInput` that names a label which is not there."""
    position = {label: i for i, label in enumerate(labels)}
    for record in records:
        if record.label not in position:
            raise BadInput(
                f"{where} has the label '{record.label}', which the task does not know"
                f"{did_you_mean(record.label, labels)}; its labels: {', '.join(labels)}"
            )
    return [position[record.label] for record in records]


def _default_verbalisers(labels: Sequence[str]) -> dict[str, str]:
    words = {label: " " + " ".join(re.sub(r"[_\-/]+", " ", label).lower().split()) for label in labels}
    twice = {w for w, n in Counter(words.values()).items() if n > 1}
    clashing = [label for label in labels if words[label] in twice or not words[label].strip()]
    if clashing:
        warnings.warn(
            f"labels {', '.join(map(repr, clashing))} come out as the same word; they keep their own spelling "
            "(give verbalisers to choose better ones)",
            Note,
            stacklevel=3,
        )
        words |= {label: " " + label for label in clashing}
    return words
