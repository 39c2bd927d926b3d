"""What went over the wires: exact counts, the same from the runtime and from a replay of its routing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from typing import Literal

Phase = Literal["prefill", "decode"]
PHASES: tuple[Phase, ...] = ("prefill", "decode")


@dataclass
class Counters:
    """One rank's share of the traffic in one phase; bytes and rows are those that it sent to other ranks.

    - collectives: exchanges that all ranks took part in (each rank counts them).
    - messages: other ranks that got at least one row in an exchange, summed over exchanges.
    - rows: hidden states sent: one for a (token, device), on the way out and on the way back.
    - payload_bytes: those rows' hidden states.
    - metadata_bytes: what travels with them (experts, weights, request), the counts, and the chosen tokens.
    - kv_bytes: keys and values sent to keep contexts coherent, or to move a request to its home.
    - padding_bytes: room in fused exchanges that no row filled."""

    collectives: int = 0
    messages: int = 0
    rows: int = 0
    payload_bytes: int = 0
    metadata_bytes: int = 0
    kv_bytes: int = 0
    padding_bytes: int = 0

    def __add__(self, other: Counters) -> Counters:
        return Counters(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)})

    @property
    def bytes(self) -> int:
        """Everything sent."""
        return self.payload_bytes + self.metadata_bytes + self.kv_bytes + self.padding_bytes

    def to_dict(self) -> dict[str, int]:
        """The fields by name."""
        return asdict(self)


@dataclass
class Traffic:
    """One rank's counters, prefill and decode apart, and how many tokens were generated meanwhile (by all ranks).

    - prompt_tokens, new_tokens: tokens that ran in prefill and in decode steps."""

    prefill: Counters = field(default_factory=Counters)
    decode: Counters = field(default_factory=Counters)
    prompt_tokens: int = 0
    new_tokens: int = 0

    def of(self, phase: Phase) -> Counters:
        """The counters of one phase."""
        return self.prefill if phase == "prefill" else self.decode

    def to_dict(self) -> dict[str, object]:
        """Nested by phase."""
        return asdict(self)


@dataclass(frozen=True)
class Totals:
    """Traffic of all ranks in one phase, per token.

    - collectives: per step; everything else: summed over ranks and divided by the tokens that ran.
    - max_bytes: of the rank that sent most, divided likewise."""

    tokens: int
    collectives: int
    messages: float
    rows: float
    payload_bytes: float
    metadata_bytes: float
    kv_bytes: float
    padding_bytes: float
    max_bytes: float

    @property
    def bytes(self) -> float:
        """Everything sent for a token."""
        return self.payload_bytes + self.metadata_bytes + self.kv_bytes + self.padding_bytes


def totals(ranks: Iterable[Traffic], phase: Phase = "decode") -> Totals:
    """All ranks' traffic of one phase per token."""
    each = list(ranks)
    tokens = each[0].new_tokens if phase == "decode" else each[0].prompt_tokens
    counters = [rank.of(phase) for rank in each]
    whole, count = sum(counters, Counters()), max(1, tokens)
    return Totals(
        tokens, counters[0].collectives, whole.messages / count, whole.rows / count, whole.payload_bytes / count,
        whole.metadata_bytes / count, whole.kv_bytes / count, whole.padding_bytes / count,
        max(c.bytes for c in counters) / count,
    )  # fmt: skip
