"""The benchmark of networks of filters: the network it says, families as small as asked, scores by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from bench.compression_cnn import __main__ as bench
from bench.compression_cnn.families import FAMILIES, made
from bench.compression_cnn.pictures import Pictures, digits
from bench.compression_cnn.scores import facts, survey
from intarsia.compression.convolution import Lesson
from intarsia.measure.size import tensor_bytes


@pytest.fixture(scope="module")
def pictures() -> Pictures:
    short = Lesson(epochs=0.5)
    return replace(digits(True), lesson=short, again=short)


def test_the_network_and_the_digits_are_those_of_the_table(pictures):
    assert [len(x) for x in (*pictures.train, *pictures.test)] == [1078, 1078, 719, 719]
    found = facts(pictures.network(0).eval(), pictures.test)
    assert found["parameters"] == 151_274 and found["macs"] == 3_295_872
    spread = (pictures.train[0] - digits(True).train[0]).abs().max()
    assert spread == 0 and float(pictures.train[0].min()) < -0.3  # noise is there, and the same each time


@pytest.mark.parametrize("family", [f for f in FAMILIES if f != "architecture search"])
def test_a_family_makes_what_it_is_asked_for(family, pictures):
    torch.manual_seed(0)
    dense = pictures.network(0).eval()
    few = replace(pictures, train=(pictures.train[0][:128], pictures.train[1][:128]))
    small = made(family, 4, dense, few, seed=0)
    assert tensor_bytes(small) <= tensor_bytes(dense) / 4
    assert not small.training


def test_scores_are_what_they_say():
    base = {"accuracy": 0.9, "parameters": 2e6, "bytes": 8e6, "macs": 1e9, "ms": 4.0}
    row = {"accuracy": 0.81, "parameters": 5e5, "bytes": 2e6, "macs": 5e8, "ms": 1.0}
    found = survey(row, base)
    energy = 1e-3 * 4 + 2e6 * 1.6e-10
    assert found["per_mparam"] == pytest.approx(1.62) and found["per_mb"] == pytest.approx(0.405)
    assert found["per_gmac"] == pytest.approx(1.62) and found["per_joule"] == pytest.approx(0.81 / energy)
    assert found["lpirc"] == pytest.approx(3600 * 0.81 / energy)
    assert found["balanced"] == pytest.approx((0.9 * 2 * 2) ** (1 / 3))
    assert survey(base, base)["balanced"] == pytest.approx(1.0)


def test_losses_are_paired():
    base = [{"accuracy": 0.9}, {"accuracy": 0.8}]
    assert bench._loss([{"accuracy": 0.85}, {"accuracy": 0.85}], base) == pytest.approx(0.0)
