"""Multiply-accumulates by formula against published figures, and schedules that meet a share of them."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from intarsia.errors import BadInput
from intarsia.tokens.macs import TowerShape, kept_share, tower_macs
from intarsia.tokens.schedules import SCHEDULES, removal

BASE = TowerShape(197, 12, 768, embedding=196 * 768**2)


def constant(tokens, r, protected, layers=12):
    removed = []
    for _ in range(layers):
        removed.append(min(r, (tokens - protected) // 2))
        tokens -= removed[-1]
    return removed


def clip(image, text):
    """CLIP ViT-B/16 as CrossGET counts it: a cross row in both towers as soon as anything is removed."""
    if not (image or text):
        return tower_macs(BASE) + tower_macs(TowerShape(77, 12, 512))
    vision = TowerShape(198, 12, 768, embedding=196 * 768**2, matching_width=768)
    words = TowerShape(78, 12, 512, matching_width=512)
    return tower_macs(vision, constant(198, image, 2)) + tower_macs(words, constant(78, text, 3))


@pytest.mark.parametrize(("image", "text", "official"), [(0, 0, 20.57), (16, 0, 12.04), (0, 6, 19.27), (16, 6, 10.61)])
def test_the_official_counter_is_met(image, text, official):
    assert clip(image, text) / 1e9 == pytest.approx(official, rel=0.005)


def test_rows_left_by_a_constant_schedule():
    assert 198 - sum(constant(198, 16, 2)) == 12 and 78 - sum(constant(78, 6, 3)) == 8


def test_macs_by_hand():
    shape = TowerShape(10, 2, 4, attention_weights=50, mlp_weights=100, embedding=7, matching_width=3)
    first = 10 * 50 + 2 * 100 * 4 + 110 * 3 + 8 * 100
    second = 8 * 50 + 2 * 64 * 4 + 8 * 100
    assert tower_macs(shape, (2, 0)) == 7 + first + second
    assert tower_macs(shape) == tower_macs(shape, (0, 0))
    assert kept_share(shape, (2, 0)) == tower_macs(shape, (2, 0)) / tower_macs(shape)
    with pytest.raises(BadInput, match="lists 1 blocks, the tower has 2"):
        tower_macs(shape, (1,))


# ---- schedules


@pytest.mark.parametrize("keep", [0.9, 0.75, 0.5, 0.34])
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("every", [1, 2, 3])
def test_the_share_is_met(schedule, keep, every):
    removed = removal(BASE, keep, schedule, every=every)
    # One row more or less in some block is what the share can be tuned by.
    assert kept_share(BASE, removed) == pytest.approx(keep, abs=0.003)
    assert all(r == 0 for layer, r in enumerate(removed) if layer % every)


def test_their_forms():
    flat, falling, front = (removal(BASE, 0.75, schedule) for schedule in ("constant", "decreasing", "front"))
    assert max(flat) - min(flat) <= 1
    assert falling[0] == 11 and falling[-1] == 1 and sum(falling[:6]) > 2 * sum(falling[6:])
    assert front[0] > falling[0] and sum(front[:3]) > sum(front[3:])


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_what_is_possible(data):
    tokens, layers = data.draw(st.integers(2, 300)), data.draw(st.integers(1, 24))
    blocked, every = data.draw(st.integers(0, 3)), data.draw(st.integers(1, 4))
    shape = TowerShape(tokens, layers, 64)
    schedule = data.draw(st.sampled_from(list(SCHEDULES)))
    keep = data.draw(st.floats(0.05, 1.0))
    try:
        removed = removal(shape, keep, schedule, blocked=blocked, every=every)
    except BadInput as error:
        assert "leaves at least" in str(error) and keep < 1
        return
    assert len(removed) == layers
    rows = tokens
    for layer, r in enumerate(removed):
        assert 0 <= r <= max(rows - blocked, 0) // 2
        assert r == 0 or (layer % every == 0 and rows - r - blocked >= 2)
        rows -= r


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_keeping_all_removes_nothing(schedule):
    assert removal(BASE, 1, schedule) == removal(BASE, 1.0, schedule) == (0,) * 12


def test_an_explicit_list():
    shape = TowerShape(65, 6, 128)
    assert removal(shape, 0.5, [16, 14, 10, 6, 4, 2]) == (16, 14, 10, 6, 4, 2)
    with pytest.raises(BadInput, match="has 2 entries, the tower has 6"):
        removal(shape, 0.5, [1, 2])
    with pytest.raises(BadInput, match="block 1 is to remove 20 of 35 rows: it can remove 0 to 17"):
        removal(shape, 0.5, [30, 20, 0, 0, 0, 0])


@pytest.mark.parametrize("keep", [0, -0.5, 1.01, float("nan")])
def test_keep_outside_its_range(keep):
    with pytest.raises(BadInput, match="above 0 and at most 1"):
        removal(BASE, keep)


def test_bad_input():
    with pytest.raises(BadInput, match=r"unknown schedule 'constnat' \(did you mean constant\?\)"):
        removal(BASE, 0.5, "constnat")
    with pytest.raises(BadInput, match=r"keep is 0\.01, but the schedule 'constant' leaves at least"):
        removal(BASE, 0.01)
    with pytest.raises(BadInput, match="every is 0"):
        removal(BASE, 0.5, every=0)
