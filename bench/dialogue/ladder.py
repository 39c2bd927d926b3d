"""The ladder of `adaptation.plan` on two tasks: emotions of dialogue turns, and chapters of Python's docstrings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import intarsia as ia
from bench.dialogue.contenders import MODEL
from intarsia.adaptation import plan
from intarsia.data import Dataset
from intarsia.report import print_finding


def run(name: str, task: Dataset, keep: Path | None, only: Sequence[str] | None, *, quick: bool) -> None:
    """Every rung for at most two minutes (quick: twenty seconds), a thousand records to learn from."""
    limits: dict[str, Any] = {"minutes": 2.0, "train_limit": 1000, "dev_limit": 300}
    if quick:
        limits = {"minutes": 0.33, "train_limit": 200, "dev_limit": 100, "test_limit": 100}
    if only:
        limits["rungs"] = tuple(only)
    found = plan(
        ia.load(MODEL), train=task["train"], dev=task["dev"], test=task["test"],
        label_task=task.facts.get("label_task"), keep=None if keep is None else keep / f"ladder-{name}", **limits,
    )  # fmt: skip
    print(f"\n{name}")
    print_finding(found)
