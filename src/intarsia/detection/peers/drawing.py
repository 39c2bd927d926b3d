"""What the peers draw is dear: what two of them draw alike is drawn once."""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from intarsia.detection.methods import Engines
    from intarsia.detection.statistics import Kept

T = TypeVar("T")


def drawn(engines: Engines, of: tuple[object, ...], settings: Hashable, make: Callable[[], T]) -> T:
    """What `make` gives, made once for these engines.

    - of: the objects it is drawn from (a model, a writer), told apart by identity. settings: the text, the seed, ..."""
    key = (tuple(map(id, of)), settings)
    if key not in engines.drawn:
        # Held here, an object's id cannot become another's.
        engines.drawn[key] = (of, make())
    return engines.drawn[key][1]


def unkept(kept: Kept) -> Kept:
    """The same statistics, not written to the file: nobody asks for a drawn text again."""
    loose = copy.copy(kept)
    loose.path = None
    return loose
