"""From records to texts that can be explained, and from figures of each text to a mean with its interval."""

from __future__ import annotations

import copy
import dataclasses
import math
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from intarsia.errors import BadInput
from intarsia.interpretation import states
from intarsia.interpretation.evaluation.settings import EvaluationConfig, method_settings
from intarsia.interpretation.explained import Explained, explain_text
from intarsia.measure.intervals import with_interval

if TYPE_CHECKING:
    from intarsia.models import Model

Interval = tuple[float, float, float]


def prepare(
    model: Model, records: Sequence[Any] | None, config: EvaluationConfig, seed: int, what: str
) -> tuple[list[Any], list[Explained]]:
    """The records drawn, and each as an `Explained`. Raises `BadInput` when there is none."""
    chosen = states.choose(records or [], config.max_texts, seed, what)
    shortened = [cut(model, record, config.max_tokens) for record in chosen]
    states.tell_cut(sum(a is not b for a, b in zip(chosen, shortened, strict=True)), len(chosen), config.max_tokens)
    explained = [
        explain_text(model, record, target=config.target, new_tokens=config.new_tokens, removal=config.removal)
        for record in shortened
    ]
    return shortened, explained


def cut(model: Model, record: Any, limit: int) -> Any:
    """The record with its text cut after `limit` tokens; the very same record where it is not longer."""
    text = states.text_of(record)
    if model.tokenizer is None or not model.tokenizer.is_fast:
        return record  # explain_text says what is missing
    encoded = model.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    offsets = encoded["offset_mapping"]
    if len(offsets) <= limit:
        return record
    short = text[: offsets[limit - 1][1]]
    if isinstance(record, str):
        return short
    changed: dict[str, Any] = {"text": short}
    if spans := getattr(record, "rationale", ()):
        changed["rationale"] = tuple((a, min(b, len(short))) for a, b in spans if a < len(short))
    return dataclasses.replace(record, **changed)


def text_seed(seed: int, number: int) -> int:
    """The seed of the text at index `number` (the first one's is `seed`). With one seed for all, random orders of texts
    of equal length would be the same order, and their mean over texts would be no estimate of chance."""
    return seed + 1009 * number


def groups_of(records: Sequence[Any]) -> list[str | None]:
    """What each record belongs to."""
    return [getattr(record, "group", None) for record in records]


def interval(values: Sequence[float], groups: Sequence[str | None], seed: int = 0) -> Interval | None:
    """Mean over the texts that have a value, with its 95 % bootstrap interval over groups of texts; None when none
    has."""
    known = [(v, g) for v, g in zip(values, groups, strict=True) if not math.isnan(v)]
    if not known:
        return None
    kept = np.array([v for v, _ in known])
    if len(known) == 1:
        return float(kept[0]), float(kept[0]), float(kept[0])
    totals = np.stack([kept, np.ones_like(kept)], axis=1)
    return with_interval(totals, lambda s: s[..., 0] / s[..., 1].clip(1), [g for _, g in known], seed=seed)


def above(gain: Interval | None, better: str = "higher") -> bool:
    """Whether a gain over chance lies wholly on the good side of zero."""
    return gain is not None and (gain[1] > 0 if better == "higher" else gain[2] < 0)


class Asker:
    """Scores texts by one method of the attribution room and counts what it costs.

    - seconds, forwards, backwards: summed over the texts asked so far with `count=True`."""

    def __init__(self, method: str, settings: Mapping[str, str] | None = None):
        from intarsia.catalog import parse
        from intarsia.interpretation.attribution.methods import find_method

        self.method = find_method(method)
        self.config: Any = parse(
            self.method.config, {"unit": "token", **method_settings(dict(settings or {}), method)}, method
        )
        self.seconds, self.forwards, self.backwards, self.asked = 0.0, 0, 0, 0

    def __call__(self, explained: Explained, seed: int = 0, *, count: bool = False) -> Tensor:
        return self.scored(explained, seed, count=count).values

    def scored(self, explained: Explained, seed: int = 0, *, count: bool = False) -> Any:
        """Scores and what they should add up to. A method that is counted starts without remembered variants."""
        asked = copy.copy(explained)
        asked._values = {} if count else explained._values
        asked.log_probs()
        asked.forwards = asked.backwards = 0
        begin = time.perf_counter()
        scored = self.method.scored(asked, self.config, seed)
        if count:
            self.seconds += time.perf_counter() - begin
            # Attention methods read the network without asking for its output: that is a forward, too.
            self.forwards += max(asked.forwards, int(self.method.name != "random"))
            self.backwards += asked.backwards
            self.asked += 1
            explained._values.update(asked._values)
        scored = dataclasses.replace(scored, values=scored.values.detach().double().cpu())
        if scored.values.isnan().any():
            raise BadInput(f"{self.method.name}: a score is not a number: the model's output is, too, or its gradient")
        return scored
