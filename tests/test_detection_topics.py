"""Topics stay whole, however documents are divided."""

from __future__ import annotations

import pytest

from intarsia.detection.topics import by_topic, drawn, topics_of
from intarsia.errors import BadInput
from tests.test_detection_siamese import doc, toy


def test_a_split_keeps_topics_and_shared_texts_together():
    documents = [*toy(8), doc("a nice words of people", "human", "t7")]  # the first topic's text stands in t7 too
    train, dev = by_topic(documents, 0.25, seed=3)
    assert sorted(map(id, train + dev)) == sorted(map(id, documents))
    assert not {d.group for d in train} & {d.group for d in dev}
    assert ("t0" in {d.group for d in dev}) == ("t7" in {d.group for d in dev})
    assert 0.1 <= len(dev) / len(documents) <= 0.4
    assert [d for d in documents if d in train] == train
    again = by_topic(documents, 0.25, seed=3)
    assert again == (train, dev) and by_topic(toy(8), 0.25, seed=0) != by_topic(toy(8), 0.25, seed=1)
    with pytest.raises(BadInput, match="dev_share"):
        by_topic(documents, 1.0)
    with pytest.raises(BadInput, match="all documents are of one topic"):
        by_topic(toy(1), 0.5)


def test_topics_that_share_a_text_are_one():
    some = [doc("a", "human", "x"), doc("b", "human", "y"), doc("A!", "machine", "y"), doc("c", "human", None)]
    assert topics_of(some) == [0, 0, 0, 3]
    assert topics_of([]) == []


def test_a_part_is_drawn_topic_by_topic():
    topics = [i // 5 for i in range(60)]
    mine = drawn(topics, 0.5, seed=1)
    whole = [{m for m, t in zip(mine, topics, strict=True) if t == k} for k in range(12)]
    assert sum(mine) == 30 and all(len(kinds) == 1 for kinds in whole)
    assert drawn(topics, 0.5, seed=2) != mine == drawn(topics, 0.5, seed=1)
    assert drawn([1, 1, 1], 0.5) == [False] * 3 and drawn([], 0.5) == []
    with pytest.raises(BadInput, match="nothing is left"):
        drawn([1, 2], 0.01)
