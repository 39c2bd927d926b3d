"""`Plan`: what is done to the tokens of one tower, as plain data that can be saved."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Kind = Literal["vision", "text", "decoder"]


@dataclass(frozen=True)
class Plan:
    """The settings of one tower, ready to be carried out.

    - kind: `vision`; `text` (a tower that is pooled); `decoder` (pictures among the tokens of a language model).
    - removed: rows that each block takes away; shares: in a decoder, the share of the pictures' rows that each does.
    - follow: in a decoder, whether the vision tower's merged rows are one row here from the first block on.
    - patch: side of a patch in pixels, to tell patches from class and register tokens.
    - trim: in a text tower, whether padding behind the longest text of the batch is dropped before the first block.
    - restore, last: as in `intarsia.sites.recomposing.Rule`."""

    kind: Kind
    removed: tuple[int, ...] = ()
    shares: tuple[float, ...] = ()
    matcher: str = "dominance"
    importance: str = "none"
    strength: float = 0.0
    temperature: float | None = None
    ensemble: str = "convex"
    norm: bool = False
    proportional: bool = True
    follow: bool = False
    patch: tuple[int, int] | None = None
    trim: bool = False
    restore: bool = True
    last: int | None = None
    seed: int = 0
    cross: int = 0
    """Width of the tower's learned cross tokens, one a block; 0: it has none."""
    facts: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As saved beside the weights."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Plan:
        """As `to_json` wrote it."""
        lists = {k: tuple(v) for k, v in value.items() if isinstance(v, list)}
        return cls(**{**value, **lists})
