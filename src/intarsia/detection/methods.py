"""The methods that score texts, by name: those that need no training, and what other packages register.

@register_detector("mine")
def mine(documents, engines):
    return np.array([...])  # [document], higher for text that a machine wrote"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from intarsia.detection.statistics import SCORES, Kept
from intarsia.errors import BadInput, did_you_mean

if TYPE_CHECKING:
    from intarsia.data import Document
    from intarsia.detection.writing.writer import Writer
    from intarsia.models import Model


@dataclass
class Engines:
    """The models that methods may ask. None where there is none of a kind; a method that needs it says so.

    - kept: statistics under the scoring model. paired: under a performer, with the expectation of an observer
      (Binoculars, Fast-DetectGPT with two models).
    - filler: an encoder-decoder that fills gaps (T5). writer: what writes continuations.
    - tokens: scored tokens of a text, from its beginning; None: all. seed: of what is drawn.
    - perturbations: of a text, with fills drawn from the filler's `fill_top_p` (DetectGPT, NPR). regenerations:
      continuations of a text's first half (DNA-GPT).
    - drawn: what methods drew and share with one another, by text and settings; only ever filled by them."""

    kept: Kept | None = None
    paired: Kept | None = None
    filler: Model | None = None
    writer: Writer | None = None
    tokens: int | None = 128
    seed: int = 0
    perturbations: int = 20
    fill_top_p: float = 1.0
    regenerations: int = 10
    drawn: dict[Any, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def need(self, name: str, why: str) -> object:
        """The engine called `name`. Raises `BadInput` where there is none."""
        if (found := getattr(self, name)) is None:
            raise BadInput(f"{why} needs a {ENGINES[name]}")
        return found


ENGINES = {
    "kept": "scoring model",
    "paired": "pair of a performer and an observer model",
    "filler": "model that fills gaps, such as t5-small",
    "writer": "model that writes",
}

Method = Callable[[Sequence["Document"], Engines], np.ndarray]

_methods: dict[str, Method] = {}


def register_detector(name: str, method: Method | None = None) -> Callable[[Method], Method] | Method:
    """Make a method known by a name, as a decorator or with the function. It gets documents and `Engines`, and gives a
    score for each, higher for text that a machine wrote; NaN where it cannot tell."""

    def register(method: Method) -> Method:
        if name in _methods:
            raise BadInput(f"there is a detector '{name}' already")
        _methods[name] = method
        return method

    return register if method is None else register(method)


def methods() -> dict[str, Method]:
    """All methods by name."""
    from intarsia.detection import peers  # noqa: F401 - registers them

    return dict(_methods)


def find_method(name: str) -> Method:
    """The method of a name. Raises `BadInput` with the nearest names."""
    known = methods()
    if name not in known:
        raise BadInput(f"no detection method '{name}'{did_you_mean(name, known)}; known: {', '.join(known)}")
    return known[name]


def _of_statistics(name: str) -> Method:
    def method(documents: Sequence[Document], engines: Engines) -> np.ndarray:
        # Two models where there are two: p is then the observer's.
        two = name in ("curvature", "binoculars") and engines.paired is not None
        kept = engines.paired if two else engines.need("kept", name)
        found = kept([d.text for d in documents], engines.tokens)  # type: ignore[operator]
        return np.array([SCORES[name](one) if len(one) else np.nan for one in found])

    method.__doc__ = SCORES[name].__doc__
    return method


for _name in SCORES:
    register_detector(_name, _of_statistics(_name))
