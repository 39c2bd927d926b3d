"""The formulas of lens and diff against naive float64 ones."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from intarsia.interpretation import divergence
from intarsia.interpretation.model_diff import similarity


def _log_p(seed: int, rows: int = 7, width: int = 23, scale: float = 4.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.log_softmax(scale * torch.randn(rows, width, generator=generator), -1)


def test_divergences_match_the_naive_formulas() -> None:
    log_p, log_q = _log_p(0), _log_p(1)
    p, q = log_p.double().exp(), log_q.double().exp()
    for row in range(len(p)):
        pairs = list(zip(p[row].tolist(), q[row].tolist(), strict=True))
        naive = sum(a * math.log(a / b) for a, b in pairs)
        assert divergence.kl(log_p, log_q)[row].item() == pytest.approx(naive, abs=1e-5)
        moved = sum(abs(a - b) for a, b in pairs) / 2
        assert divergence.total_variation(log_p.exp(), log_q.exp())[row].item() == pytest.approx(moved, abs=1e-6)
        spread = -sum(a * math.log(a) for a, _ in pairs)
        assert divergence.entropy(log_p.exp(), log_p)[row].item() == pytest.approx(spread, abs=1e-5)
        order = sorted(range(len(pairs)), key=lambda i: -log_p[row, i].item())
        ids = torch.full((len(p),), 5)
        assert divergence.rank(log_p, ids)[row].item() == order.index(5) + 1


@given(st.integers(0, 10_000), st.floats(0.1, 30))
@settings(max_examples=40, deadline=None)
def test_divergence_laws(seed: int, scale: float) -> None:
    log_p, log_q = _log_p(seed, scale=scale), _log_p(seed + 1, scale=scale)
    p, q = log_p.exp(), log_q.exp()
    assert (divergence.kl(log_p, log_p) == 0).all()
    assert (divergence.kl(log_p, log_q) >= 0).all()
    there, back = divergence.total_variation(p, q), divergence.total_variation(q, p)
    assert torch.equal(there, back)
    # Pinsker's inequality ties the two together.
    assert (there <= torch.sqrt(divergence.kl(log_p, log_q) / 2) + 1e-4).all()


def test_tokens_excluded_by_both_models_do_not_count() -> None:
    log_p = torch.tensor([[0.5, 0.5, 0.0]]).log()
    log_q = torch.tensor([[0.25, 0.75, 0.0]]).log()
    assert divergence.kl(log_p, log_q).item() == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(2 / 3), abs=1e-6)
    assert divergence.entropy(log_p.exp(), log_p).item() == pytest.approx(math.log(2), abs=1e-6)


def test_share_carrying_half() -> None:
    assert divergence.share_carrying(torch.tensor([9.0, 1, 1, 1, 1, 1, 1, 1, 1, 1])) == pytest.approx(0.1)
    assert divergence.share_carrying(torch.ones(10)) == pytest.approx(0.5)
    assert divergence.share_carrying(torch.zeros(10)) == 0


def test_top_overlap_ignores_order() -> None:
    a, b = torch.tensor([[1, 2, 3, 4], [1, 2, 3, 4]]), torch.tensor([[4, 3, 2, 1], [1, 9, 8, 2]])
    assert divergence.top_overlap(a, b).tolist() == [1.0, 0.5]


def test_distances_of_vectors() -> None:
    a, b = (
        torch.tensor([[3.0, 4.0], [1.0, 0.0], [0.0, 0.0], [0.0, 0.0]]),
        torch.tensor([[3.0, 4.0], [0.0, 1.0], [0.0, 0.0], [2.0, 0.0]]),
    )
    assert similarity.relative_l2(a, b).tolist() == pytest.approx([0, math.sqrt(2), 0, 1])
    assert similarity.cosine(a, b)[:3].tolist() == pytest.approx([1, 0, 1])


def _naive_unbiased_cka(x: torch.Tensor, y: torch.Tensor) -> float:
    """HSIC_1 term by term, in plain loops over traces (Song et al. 2012, equation 5)."""
    n = len(x)

    def hsic(k: torch.Tensor, m: torch.Tensor) -> float:
        ones = torch.ones(n, 1, dtype=torch.float64)
        first = torch.trace(k @ m)
        second = (ones.T @ k @ ones) * (ones.T @ m @ ones) / ((n - 1) * (n - 2))
        third = 2 / (n - 2) * (ones.T @ k @ m @ ones)
        return float((first + second - third) / (n * (n - 3)))

    k, m = x.double() @ x.double().T, y.double() @ y.double().T
    k, m = k - torch.diag(k.diag()), m - torch.diag(m.diag())
    return hsic(k, m) / math.sqrt(hsic(k, k) * hsic(m, m))


def test_cka_matches_the_naive_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 40, 12, generator=generator), torch.randn(3, 40, 7, generator=generator)
    y[0] += x[0, :, :7]
    found = similarity.linear_cka(x + 5, y)  # far from the origin: centring must not matter
    assert found.shape == (2, 3)
    for i in range(2):
        for j in range(3):
            assert found[i, j].item() == pytest.approx(_naive_unbiased_cka(x[i] + 5, y[j]), abs=1e-8)
    assert found[0, 0] > 0.3


@given(st.integers(0, 10_000), st.floats(0.01, 100))
@settings(max_examples=30, deadline=None)
def test_cka_does_not_mind_rotation_scale_and_shift(seed: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(1, 30, 8, generator=generator, dtype=torch.float64)
    rotation, _ = torch.linalg.qr(torch.randn(8, 8, generator=generator, dtype=torch.float64))
    y = torch.randn(1, 30, 5, generator=generator, dtype=torch.float64)
    turned = scale * x @ rotation + 3
    assert similarity.linear_cka(x, turned).item() == pytest.approx(1, abs=1e-9)
    assert similarity.linear_cka(turned, y).item() == pytest.approx(similarity.linear_cka(x, y).item(), abs=1e-8)
    assert torch.equal(similarity.linear_cka(x, y), similarity.linear_cka(y, x).T)


def test_cka_of_unrelated_wide_activations_is_near_zero() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(1, 64, 512, generator=generator), torch.randn(1, 64, 512, generator=generator)
    assert abs(similarity.linear_cka(x, y).item()) < 0.1  # the biased estimate gives about 0.9 here
    assert torch.isnan(similarity.linear_cka(torch.ones(1, 64, 8), y)).all()
