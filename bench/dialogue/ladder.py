"""The ladder of `adaptation.plan` on two tasks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from intarsia.data import Dataset


def run(data: Dataset, keep: Path | None, only: Sequence[str] | None, *, quick: bool) -> None:
    """Filled in with the ladder."""
