"""The ridge solve against the formula written out, and against its limits."""

from __future__ import annotations

import pytest
import torch

from intarsia.errors import BadInput
from intarsia.interpretation.ridge import Ridge, fit_affine


def data(rows: int = 60, width: int = 7, out: int = 3, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, width, generator=generator) * 3 + 40
    y = torch.randn(rows, out, generator=generator) - 5
    return x, y


@pytest.mark.parametrize("penalty", [0.0, 1e-3, 0.5])
def test_it_is_the_formula(penalty: float) -> None:
    x, y = data()
    matrix, bias = fit_affine(x, y, penalty)
    xc, yc = x.double() - x.double().mean(0), y.double() - y.double().mean(0)
    gram = xc.T @ xc
    wanted = torch.linalg.inv(gram + penalty * gram.diagonal().mean() * torch.eye(7)) @ xc.T @ yc
    assert torch.allclose(matrix, wanted, atol=1e-10)
    assert torch.allclose(bias, y.double().mean(0) - x.double().mean(0) @ wanted, atol=1e-9)


def test_without_a_penalty_it_is_least_squares_with_a_one_appended() -> None:
    x, y = data()
    ones = torch.ones(len(x), 1, dtype=torch.float64)
    wanted = torch.linalg.lstsq(torch.cat([x.double(), ones], 1), y.double()).solution
    matrix, bias = fit_affine(x, y, 0.0)
    assert torch.allclose(torch.cat([matrix, bias[None]]), wanted, atol=1e-8)


def test_batches_and_several_outputs_change_nothing() -> None:
    x, y = data(out=4)
    sums = Ridge()
    for rows in torch.arange(len(x)).split(11):
        sums.add(x[rows], y[rows])
    matrix, bias = sums.solve(0.1)
    for half in (slice(0, 2), slice(2, 4)):
        one, its = fit_affine(x, y[:, half], 0.1)
        assert torch.allclose(matrix[:, half], one, atol=1e-10) and torch.allclose(bias[half], its, atol=1e-9)


def test_fewer_rows_than_columns_still_fit_the_rows() -> None:
    x, y = data(rows=5)
    matrix, bias = fit_affine(x, y, 0.0)
    assert torch.allclose(x.double() @ matrix + bias, y.double(), atol=1e-6)


def test_what_cannot_be_fitted_says_so() -> None:
    x, y = data(rows=1)
    with pytest.raises(BadInput, match="1 rows"):
        fit_affine(x, y)
    with pytest.raises(BadInput, match="equal rows"):
        fit_affine(x, data()[1])
    with pytest.raises(BadInput, match="negative"):
        fit_affine(*data(), penalty=-1.0)
