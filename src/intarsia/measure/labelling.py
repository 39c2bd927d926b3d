"""How a model labels records: in the way of the technique that taught it, where that has one; else by the likelihood
of each label's words."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from intarsia import catalog

if TYPE_CHECKING:
    from intarsia.data import LabelledText
    from intarsia.measure.likelihood import LabelScores
    from intarsia.models import Model


def own_way(model: Model) -> str | None:
    """The technique in whose way the model labels, or None."""
    known = catalog.load() if model.extras else {}
    return next((name for name in reversed(list(model.extras)) if name in known and known[name].labels), None)


def label_scores(model: Model, records: Sequence[LabelledText], *, technique: str | None = None) -> LabelScores:
    """Scores [record, label] of a model that labels in a way of its own (`own_way`)."""
    name = technique or own_way(model)
    if name is None:
        raise ValueError("the model has no way of labelling of its own")
    module, _, function = (catalog.find(name).labels or "").partition(":")
    return getattr(importlib.import_module(module), function)(model, model.extras[name], records)
