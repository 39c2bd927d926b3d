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
    """The technique in whose way the model labels: of several the one that came last; or None."""
    known = catalog.load() if model.extras else {}
    ways = [name for name in model.extras if name in known and known[name].labels]
    came = [change.get("technique") for change in model.identity.changes]
    return max(ways, key=lambda name: max((i for i, c in enumerate(came) if c == name), default=-1), default=None)


def forget_way(model: Model) -> None:
    """Take off what techniques left that label in a way of their own, in place: the model labels anew."""
    while (name := own_way(model)) is not None:
        model.extras.pop(name)
        model.parts.pop(name, None)


def label_scores(model: Model, records: Sequence[LabelledText], *, technique: str | None = None) -> LabelScores:
    """Scores [record, label] of a model that labels in a way of its own (`own_way`)."""
    name = technique or own_way(model)
    if name is None:
        raise ValueError("the model has no way of labelling of its own")
    module, _, function = (catalog.find(name).labels or "").partition(":")
    return getattr(importlib.import_module(module), function)(model, model.extras[name], records)
