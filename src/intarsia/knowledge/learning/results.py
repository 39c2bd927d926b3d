"""What one snapshot's learning gives: how it went, and how every test so far is answered."""

from __future__ import annotations

import pydantic

from intarsia.knowledge.evaluation.metrics import Ranking, Rankings


class SnapshotResult(pydantic.BaseModel):
    """- before: on the snapshot's own test, new rows initialised and nothing learned yet (None for the first one).
    - tests: on the test of every snapshot up to this one; for each evaluator.
    - curve: (epoch, MRR on held-out facts) as it was learned; best: the epoch that was kept.
    - seconds: wall time of learning, validation included; cpu_seconds: of all threads; validating, validating_cpu: of
      validation alone."""

    name: str
    entities: int
    relations: int
    facts: int
    new_entities: int = 0
    before: Rankings | None = None
    tests: list[Rankings] = []
    curve: list[tuple[int, float]] = []
    epochs: int = 0
    best: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    validating: float = 0.0
    validating_cpu: float = 0.0

    def overall(self, evaluator: str) -> Ranking:
        """Over all tests so far, weighted by their facts."""
        return Ranking.mean([test[evaluator] for test in self.tests])
