"""Texts that end an answer: found as it comes, and held back while one may have begun."""

from __future__ import annotations

from collections.abc import Sequence


class Stopper:
    """Lets text through up to the first stop text.

    - stopped: whether one came; nothing is let through after it.

    Each call looks at the new text and at as many characters before it as the longest stop text has: linear in all."""

    def __init__(self, stops: Sequence[str]):
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""
        self.stopped = False

    def feed(self, text: str) -> str:
        """The text that can be told now that `text` came."""
        if self.stopped:
            return ""
        if not self._stops:
            return text
        text = self._held + text
        cut = min((at for stop in self._stops if (at := text.find(stop)) >= 0), default=-1)
        if cut >= 0:
            self.stopped, self._held = True, ""
            return text[:cut]
        held = begun(text, self._stops)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]

    def end(self) -> str:
        """What was held back, now that nothing more comes."""
        held, self._held = self._held, ""
        return held


def begun(text: str, stops: Sequence[str]) -> int:
    """Characters at the end of `text` that a stop text may go on from."""
    return max((n for stop in stops for n in range(1, len(stop)) if text.endswith(stop[:n])), default=0)
