"""`METHODS`: every attribution method by name, and `attribute_one` to apply one to one text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from intarsia.catalog import parse
from intarsia.errors import BadInput, did_you_mean
from intarsia.interpretation.attribution.registry import METHODS, Method, Scored
from intarsia.interpretation.attribution.settings import AttributionConfig

if TYPE_CHECKING:
    from torch import Tensor

    from intarsia.interpretation.explained import Explained


def find_method(name: str) -> Method:
    """The method called `name`, or a `BadInput` with the nearest names."""
    if name not in METHODS:
        raise BadInput(f"no attribution method '{name}'{did_you_mean(name, METHODS)}; there are: {', '.join(METHODS)}")
    return METHODS[name]


def attribute_one(explained: Explained, method: str, seed: int = 0, **settings: Any) -> Tensor:
    """Scores [feature] float64 of one text by a method of `METHODS`: positive speaks for the explained choice.

    `settings` are the method's own (`steps=50`); the unit is the token unless it is given. Raises `BadInput` for an
    unknown method or setting."""
    found = find_method(method)
    config = parse(found.config, {"unit": "token", **settings}, method)
    return found(explained, cast(AttributionConfig, config), seed)


__all__ = ["METHODS", "Method", "Scored", "attribute_one", "find_method"]
