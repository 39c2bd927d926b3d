"""Documents a second, with the language model for every one and only where the words leave doubt."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from bench.common import show
from bench.detection.sets import Set
from intarsia.detection.checking.checker import Checker, bank_of
from intarsia.detection.learning import learn
from intarsia.detection.statistics import Kept


def run(sets: dict[str, Set], kept: Kept, rate: float, *, quick: bool) -> None:
    """CPU time of one thread on abstracts, nine of ten by people; statistics are read anew."""
    one = sets["arxiv"]
    detector = learn([s.corpus() for name, s in sets.items() if s.learned and name != "arxiv"], kept)
    detector.hold(kept)
    bank = bank_of(detector, one.bank, "arxiv", "en")
    count = 10 if quick else 60
    documents = [*one.people[: count * 9 // 10], *one.machine[: count // 10]]
    rows = []
    for title, settings in (
        ("words alone", {"read": False}),
        ("language model in doubt (--triage)", {"triage": True}),
        ("language model for all", {}),
    ):
        with tempfile.TemporaryDirectory() as folder:
            detector.hold(Kept(kept.model, path=Path(folder) / "statistics.sqlite"))  # nothing is read yet
            checker = Checker(detector, bank, rate, passages=0, **settings)
            began = time.process_time()
            found = checker(documents)
            spent = time.process_time() - began
        read = sum(c.read for c in found)
        hit = sum(c.verdict == "machine_like" for c in found)
        each = f"{1000 * spent / len(documents):.0f} ms"
        rows.append([title, f"{len(documents) / spent:.1f}", each, str(read), str(hit)])
    columns = ["", "documents a CPU second", "a document", "read by the language model", "flagged"]
    show(f"{len(documents)} abstracts, verdicts with intervals, no passages", columns, rows)
