"""The attribution methods by name, and the one way to declare a technique from a method and its settings."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from intarsia.catalog import technique
from intarsia.interpretation.attribution.settings import AttributionConfig

if TYPE_CHECKING:
    from torch import Tensor

    from intarsia.interpretation.attribution.finding import Attribution
    from intarsia.interpretation.explained import Explained
    from intarsia.models import Model


@dataclass(frozen=True)
class Scored:
    """What a method found about one text.

    - values: [feature] float64, one score for each token of the text; positive speaks for the choice. The score of a
      larger piece is spread evenly over its tokens.
    - total: what the scores should add up to, for methods with such a promise: the log probability explained less
      that of a text without its words, say. added: what does add up to it, where that is more than `values` (a method
      that gives the prompt's other tokens a share, too).
    - facts: figures worth telling, by name."""

    values: Tensor
    total: float | None = None
    added: float | None = None
    facts: dict[str, float] = field(default_factory=dict)

    @property
    def gap(self) -> float | None:
        """How far the scores are from adding up: |sum - total| / |total|."""
        if self.total is None:
            return None
        added = float(self.values.sum()) if self.added is None else self.added
        return abs(added - self.total) / max(abs(self.total), 1e-12)


@dataclass(frozen=True)
class Method:
    """One way to score the tokens of a text, called as `method(explained, settings, seed)` -> scores [feature].

    - config: the class of its settings; None for `settings` takes its defaults.
    - signed: whether a score says for or against; else only how much.
    - place: `module:function` of the computation, `(explained, settings, seed) -> Scored`."""

    name: str
    config: type[AttributionConfig]
    place: str
    signed: bool = True

    def __call__(self, explained: Explained, settings: AttributionConfig | None = None, seed: int = 0) -> Tensor:
        return self.scored(explained, settings, seed).values

    def scored(self, explained: Explained, settings: AttributionConfig | None = None, seed: int = 0) -> Scored:
        """The scores, and what they should add up to."""
        module, _, function = self.place.partition(":")
        compute: Callable[..., Scored] = getattr(importlib.import_module(module), function)
        return compute(explained, settings or self.config(), seed)


METHODS: dict[str, Method] = {}
EXAMPLE = "The capital of France is the city of"


def declare(
    config: type[AttributionConfig],
    name: str,
    compute: str,
    *,
    source: str,
    place: str,
    family: str = "attribution",
    signed: bool = True,
    extra: str | None = None,
    example: Mapping[str, Any] | None = None,
) -> Callable[..., Attribution]:
    """Register the method `name` and declare the technique `interpretation.<name>` that applies it to texts.

    `config` holds its settings, and its docstring is the technique's. `compute` is the `module:function` behind it."""
    METHODS[name] = Method(name, config, compute, signed)

    def look(model: Model, config: AttributionConfig, *, texts: list[Any] | None = None, seed: int = 0) -> Attribution:
        from intarsia.interpretation.attribution.looking import attribute

        return attribute(model, METHODS[name], config, texts, seed)

    look.__name__ = look.__qualname__ = name
    look.__doc__ = inspect.getdoc(config)
    look.__module__ = config.__module__
    look.__annotations__["config"] = config
    return technique(
        f"interpretation.{name}",
        kind="look",
        family=family,
        source=source,
        place=place,
        extra=extra,
        example={"texts": [EXAMPLE], **(example or {})},
    )(look)
