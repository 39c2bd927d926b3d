"""In which version of Python a name of the standard library came: a table, since an interpreter does not say."""

from __future__ import annotations

import sys
from pathlib import Path

OLDEST = 2
"""The minor version that stands for everything up to it: the table begins after it."""
LABEL = "Python 3."
_TABLE = Path(__file__).with_name("since.txt")


class Versions:
    """Minor versions of Python 3 by name. What is not in the table came with its owner, or by 3.2."""

    def __init__(self) -> None:
        self.told: dict[str, int] = {}
        for line in _TABLE.read_text(encoding="utf-8").splitlines():
            if line and not line.startswith("#"):
                head, _, names = line.partition(":")
                version, _, owner = head.partition(" ")
                for name in names.split():
                    self.told[f"{owner}.{name}" if owner else name] = int(version.removeprefix("3."))

    def of(self, name: str) -> int:
        """The minor version that a name came in, `OLDEST` or later; at most the running interpreter's, which has it."""
        return min(self.said(name), sys.version_info.minor)

    def said(self, name: str) -> int:
        """What the table says; later than the running interpreter for what was carried back into a patch of it."""
        if name.startswith(LABEL):
            return int(name.removeprefix(LABEL))
        parts = name.split(".")
        return max(self.told.get(".".join(parts[:n]), OLDEST) for n in range(1, len(parts) + 1))


def label(version: int) -> str:
    """How a version is called in the graph."""
    return f"{LABEL}{version}"
