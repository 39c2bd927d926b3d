"""How lens and diff write shares and tokens for a person."""

from __future__ import annotations


def percent(share: float) -> str:
    """A share as a person says it: `93 %`, `0.4 %`, and neither 0 nor 100 % when it is not exactly that."""
    value = 100 * share
    if 0 < value < 0.1:
        return "under 0.1 %"
    if 99.9 < value < 100:
        return "over 99.9 %"
    return f"{value:.0f} %" if value in (0, 100) or 10 <= value < 98.95 else f"{value:.1f} %"


def one_line(text: str) -> str:
    """Line ends and tabs as signs."""
    return text.replace("\n", "⏎").replace("\t", "⇥")


def visible(token: str) -> str:
    """A token with its spaces, too, as signs."""
    return one_line(token).replace(" ", "␣")
