"""The matching benchmark: its peer does what it is a peer of, and its figures are figures."""

from __future__ import annotations

import pytest
import torch

from bench.tokens import matching
from bench.tokens.official import reduce_as_published
from intarsia.tokens.ensemble import combine
from intarsia.tokens.matching import complete


def test_the_peer_is_the_paper_s_policy():
    """Without a guide every importance is 0, so that ties go by index in both; then with sizes above one."""
    g = torch.Generator().manual_seed(0)
    stream, keys = torch.randn(3, 22, 6, generator=g), torch.randn(3, 22, 16, generator=g)
    sizes = torch.randint(1, 4, (3, 22), generator=g).float()
    blocked = torch.zeros(3, 22, dtype=torch.bool)
    blocked[:, [0, 21]] = True
    rows, left = reduce_as_published(stream, sizes, keys, torch.zeros(3, 16), 7, (0, 21))
    step = combine(stream, sizes, complete(keys, 7, blocked=blocked), form="official")
    assert torch.allclose(rows, step.rows, atol=1e-5)
    assert torch.equal(left, torch.zeros(3, 15).scatter_add(1, step.into, sizes))


def test_the_peer_is_guided():
    """Rows whose keys point where the guide looks are not merged away."""
    g = torch.Generator().manual_seed(1)
    keys = torch.randn(1, 20, 8, generator=g) + torch.tensor([3.0, 0, 0, 0, 0, 0, 0, 0])
    keys[0, 4:9, 0] += 30
    stream = torch.arange(20.0)[None, :, None].repeat(1, 1, 2)
    guide = torch.eye(8)[:1]
    rows, _ = reduce_as_published(stream, torch.ones(1, 20), keys, guide, 3, (0,))
    assert set(range(4, 9)) - {6} <= set(rows[0, :, 0].round(decimals=3).tolist()) | {6.0}


def test_similarity_of_pairs_is_their_cosine():
    metric = torch.randn(2, 12, 5, generator=torch.Generator().manual_seed(2))
    pairs = complete(metric, 4)
    assert matching.similarity_of(pairs, metric) == pytest.approx(float(pairs.score.mean()), abs=1e-6)


def test_quality_sets_tome_at_0_and_greedy_at_100():
    metric = torch.randn(3, 40, 16, generator=torch.Generator().manual_seed(3))
    figures, rows = matching.quality({"noise": metric})
    assert len(rows) == len(matching.SHARES) and all(len(row) == len(matching.QUALITY_COLUMNS) for row in rows)
    assert figures["greedy_gap_closed_least"] <= figures["greedy_gap_closed"] < 1.1
    assert figures["greedy_gap_closed"] > figures["greedy_gap_closed_crossget"]


@pytest.mark.real
def test_features_are_of_pictures():
    features = matching.image_features(4)
    if not features:
        pytest.skip("needs the data set vision_language")
    assert {tuple(metric.shape) for metric in features.values()} == {(4, 64, 32), (4, 196, 48)}
    assert all(metric.isfinite().all() for metric in features.values())
