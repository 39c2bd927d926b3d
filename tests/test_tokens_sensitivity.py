"""The schedule by measured sensitivity: rows go where they cost least, and the work asked for is left."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from intarsia.data import ImageText
from intarsia.errors import BadInput
from intarsia.measure import count_macs
from intarsia.tokens import merge
from intarsia.tokens.macs import TowerShape, tower_macs
from intarsia.tokens.sensitivity import spend
from tests.test_tokens_merge import features, pictures, wide

SHAPE = TowerShape(tokens=17, layers=3, width=32, mlp_weights=2 * 32 * 64)


def test_rows_go_where_they_cost_nothing():
    drift = np.array([[0.2, 0.5], [0.0, 0.0], [0.3, 0.9]])
    found = spend(SHAPE, 0.9, (2, 6), drift)
    assert found[0] == found[2] == 0 and found[1] > 0
    assert tower_macs(SHAPE, found) <= 0.9 * tower_macs(SHAPE, (0, 0, 0))


def test_a_block_that_is_cheap_at_first_is_left_when_it_gets_dear():
    drift = np.array([[0.001, 0.9], [0.05, 0.1], [0.05, 0.1]])
    found = spend(SHAPE, 0.75, (2, 6), drift)
    assert found[0] == 2 and found[1] > 0


def test_it_is_near_the_best_of_all_allocations():
    """Every allocation there is, by the same interpolated prices: the greedy one costs little more than the best."""
    rng = np.random.default_rng(0)
    for _ in range(5):
        drift = np.sort(rng.random((3, 2)) * 0.2, axis=1)
        grid = (2, 6)

        def price(removed, drift=drift, grid=grid):
            points = np.concatenate([np.zeros((3, 1)), drift], axis=1)
            slopes = np.maximum.accumulate(np.diff(points, axis=1) / np.diff([0, *grid]), axis=1)
            return sum(min(r, 2) * slopes[i, 0] + max(r - 2, 0) * slopes[i, 1] for i, r in enumerate(removed))

        goal = 0.75 * tower_macs(SHAPE, (0, 0, 0))
        allowed = [
            r
            for r in itertools.product(range(9), repeat=3)
            if r[1] <= (16 - r[0]) // 2 and r[2] <= (16 - r[0] - r[1]) // 2 and tower_macs(SHAPE, r) <= goal
        ]
        best = min(map(price, allowed))
        assert price(spend(SHAPE, 0.75, grid, drift)) <= 1.35 * best + 0.02


def test_only_every_second_block_and_never_more_than_half():
    found = spend(SHAPE, 0.3, (2, 6), np.zeros((3, 2)), every=2)
    assert found[1] == 0 and found[0] == 8 and found[2] == (17 - 8 - 1) // 2


def test_measured_on_pictures(tmp_path):
    from PIL import Image

    records = []
    for i in range(4):
        noise = torch.randint(0, 255, (64, 64, 3), generator=torch.Generator().manual_seed(i))
        Image.fromarray(noise.numpy().astype("uint8")).save(tmp_path / f"{i}.png")
        records.append(ImageText(str(tmp_path / f"{i}.png")))
    model, x = wide(), pictures()
    less = merge(model, keep=0.6, schedule="sensitivity", images=records)
    again = merge(model, keep=0.6, schedule="sensitivity", images=records)
    assert again.extras == less.extras
    share = count_macs(lambda: features(less, x)).macs / count_macs(lambda: features(model, x)).macs
    assert abs(share - 0.6) < 0.05
    with pytest.raises(BadInput, match="pictures"):
        merge(model, keep=0.6, schedule="sensitivity", images=[])
