"""What the patchscope benchmark computes from hits, on hits whose figures are known."""

from __future__ import annotations

import numpy as np
import pytest

from bench.patchscopes.tasks import MODES, ORDER, compare_modes, sign_flip
from intarsia.interpretation.patchscopes.relations import TARGET_PROMPTS


def test_modes_are_compared_by_subject() -> None:
    keep = np.zeros((4, 2, 3), dtype=bool)
    keep[0] = True
    more = keep.copy()
    more[1:3, 0, :] = True  # half of the cells of two subjects
    hits = {"one": dict(zip(MODES, (keep, keep, more), strict=True)), "two": dict.fromkeys(MODES, keep)}
    figures, tables = compare_modes(hits, (1, 2), (3, 4, 5))
    assert figures["contamination_tasks"] == 2 and figures["contamination_subjects"] == 8
    assert figures["contamination_keep"] == 0.25 and figures["contamination_trajectory"] == pytest.approx(0.375)
    assert figures["contamination_trajectory_minus_keep"] == pytest.approx(0.125)
    assert (figures["contamination_trajectory_tasks_better"], figures["contamination_drop_tasks_better"]) == (1, 0)
    assert figures["contamination_drop_p"] == 1.0
    assert tables[0][2][0][:5] == ["one", "4", "0.250", "0.250", "0.500"] and tables[0][2][-1][1] == "8"
    assert tables[1][2][2] == ["trajectory", "0.38", "0.38", "0.38"]
    assert compare_modes({}, (1,), (2,)) == ({"contamination_tasks": 0}, [])


def test_signs_are_flipped() -> None:
    # Eight equal differences: only two of the 2^8 sign patterns are as extreme.
    assert sign_flip(np.full(8, 0.5)) == pytest.approx(2 / 256, abs=0.003)
    assert sign_flip(np.array([0.5, -0.5])) == 1.0


def test_every_published_relation_has_its_turn() -> None:
    assert sorted(ORDER) == sorted(TARGET_PROMPTS)
