"""Scores of quality and cost: their formulas, and fronts against counting."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from intarsia.measure import scores
from tests.failing import fails


def test_quality_for_a_resource():
    found = scores.per_resource(0.9, parameters=2e6, size=4e6, macs=3e9, joules=0.5)
    assert found == {
        "per_mparam": pytest.approx(0.45), "per_mb": pytest.approx(0.225), "per_gmac": pytest.approx(0.3),
        "per_joule": pytest.approx(1.8),
    }  # fmt: skip
    assert list(scores.per_resource(0.5, size=1.0)) == ["per_mb"]
    fails(lambda: scores.per_resource(0.5, size=0.0), "per_mb", "positive")
    assert scores.lpirc(0.25, 3600.0) == 0.25 and scores.lpirc(0.5, 7200.0) == 0.25
    assert scores.estimated_joules(2.0, 1e9) == pytest.approx(8.16)


def test_the_contest_s_score():
    whole = scores.dac_sdc(0.8, 1024.0, 60.0)
    assert whole == pytest.approx(10.0)
    assert scores.dac_sdc(0.6, 1024.0, 60.0) == pytest.approx(10 * 0.5)  # a tenth short, five times
    assert scores.dac_sdc(0.1, 1024.0, 60.0) == pytest.approx(10 * 0.1)  # the floor
    assert scores.dac_sdc(0.8, 1024.0, 15.0) == pytest.approx(5.0) and scores.dac_sdc(0.8, 1024.0, 0.0) == 0
    fails(lambda: scores.dac_sdc(0.8, 1.0, 60.0), "over 1 J")


def test_balanced_is_one_for_the_base():
    assert scores.balanced(1.0, 1.0, 1.0) == 1
    assert scores.balanced(1.0, 0.25, 1.0) == pytest.approx(2 ** (1 / 3))
    assert scores.balanced(0.9, 0.5, 2.0) == pytest.approx((0.9 * math.sqrt(2) / math.sqrt(2)) ** (1 / 3))
    fails(lambda: scores.balanced(1.0, 0.0, 1.0), "size")


points = st.lists(st.tuples(*[st.integers(0, 5)] * 3), min_size=0, max_size=8)


@given(points)
def test_the_front_and_its_volume_are_those_of_counting(some):
    kept = scores.front(some)
    for i, one in enumerate(some):
        better = [o for o in some if o != one and all(a >= b for a, b in zip(o, one, strict=True))]
        assert (i in kept) == (not better and one not in some[:i])
    # Unit cubes that some point covers.
    cubes = sum(
        any(all(c < p for c, p in zip(cube, point, strict=True)) for point in some)
        for cube in itertools.product(range(5), repeat=3)
    )
    assert scores.hypervolume(some, (0, 0, 0)) == pytest.approx(cubes)


def test_a_volume_of_two_and_of_four_places():
    assert scores.hypervolume([(2, 1), (1, 2)], (0, 0)) == 3
    draw = np.random.default_rng(0)
    some = draw.random((5, 4))
    sample = draw.random((40_000, 4))
    covered = (sample[:, None] < some[None]).all(-1).any(-1).mean()
    assert scores.hypervolume(some.tolist(), [0.0] * 4) == pytest.approx(covered, abs=0.01)
    assert scores.hypervolume([(1, 1)], (1, 0)) == 0 == scores.hypervolume([], (0, 0))
