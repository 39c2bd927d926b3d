"""Splits: whole groups, kept proportions, no duplicates, the same every time."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from intarsia.data import Chat, LabelledText, Text, TextPair, dedup, shuffled, split
from intarsia.errors import BadInput

SHARES = {"train": 0.8, "dev": 0.1, "test": 0.1}
groups = st.lists(st.integers(0, 30), min_size=60, max_size=200)


@settings(max_examples=30, deadline=None)
@given(groups, st.integers(0, 3))
def test_no_group_is_cut_and_nothing_is_lost(of, seed):
    records = [Text(str(i), group=str(g)) for i, g in enumerate(of)]
    try:
        parts = split(records, SHARES, by="group", seed=seed)
    except BadInput as error:
        assert len(set(of)) < 12 and "groups" in str(error)
        return
    assert sorted(r.text for p in parts.values() for r in p) == sorted(r.text for r in records)
    homes = {name: {r.group for r in part} for name, part in parts.items()}
    assert not homes["train"] & homes["test"] and not homes["train"] & homes["dev"] and not homes["dev"] & homes["test"]


def test_records_without_group_are_their_own_and_shares_are_met():
    parts = split([Text(str(i)) for i in range(1000)], SHARES)
    assert {name: len(part) for name, part in parts.items()} == {"train": 800, "dev": 100, "test": 100}
    assert [int(r.text) for r in parts["test"]] == sorted(int(r.text) for r in parts["test"])


def test_seed_decides_and_repeats():
    records = [Text(str(i)) for i in range(100)]
    assert split(records, SHARES, seed=1) == split(records, SHARES, seed=1)
    assert split(records, SHARES, seed=1) != split(records, SHARES, seed=2)
    assert shuffled(records, 1) == shuffled(records, 1) != records
    assert sorted(shuffled(records, 1), key=lambda r: int(r.text)) == records


def test_stratified_keeps_each_class_in_proportion():
    records = [LabelledText(str(i), "rare" if i % 10 == 0 else "usual") for i in range(200)]
    parts = split(records, {"train": 0.75, "test": 0.25}, by="label")
    assert Counter(r.label for r in parts["test"]) == {"usual": 45, "rare": 5}
    with pytest.raises(BadInput, match="has no label"):
        split([Text("a")], {"train": 1.0}, by="label")


def test_by_text_is_stable_when_records_come_and_go():
    records = [Text(f"text {i}") for i in range(400)]
    before = split(records, SHARES, by="text")
    after = split(records[::3], SHARES, by="text")
    for name, part in after.items():
        assert set(part) <= set(before[name])
    assert 0.7 < len(before["train"]) / 400 < 0.9


@pytest.mark.parametrize("shares", [{}, {"train": 0.5}, {"train": 1.5, "test": -0.5}])
def test_bad_shares(shares):
    with pytest.raises(BadInput, match="sum to 1"):
        split([Text("a")], shares)
    with pytest.raises(BadInput, match="by must be"):
        split([Text("a")], {"train": 1.0}, by="colour")


def test_too_few_groups_is_said():
    with pytest.raises(BadInput, match=r"nothing is left for 'test'.*only 1 whole groups"):
        split([Text("a", "g"), Text("b", "g")], {"train": 0.5, "test": 0.5})


def test_dedup_by_normalised_text():
    records = [Text("Hello,  World!"), Text("hello world"), Text("Hello, Word"), Text("?!"), Text("...")]
    assert dedup(records) == [records[0], records[2], records[3], records[4]]
    chats = [Chat(({"role": "user", "content": c},)) for c in ("Hi", "hi!", "ho")]
    assert dedup(chats) == [chats[0], chats[2]]
    assert len(dedup([TextPair("a", "b"), TextPair("a", "c")])) == 2
    assert len(dedup([LabelledText("yes", "x", context=("a?",)), LabelledText("yes", "x", context=("b?",))])) == 2
