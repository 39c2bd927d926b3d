"""Factors are the best there are, by trying others in float64; ranks keep their budget; refits are never worse."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

import intarsia as ia
from intarsia.compression.factorization.crossing import crossed
from intarsia.compression.factorization.factoring import RIDGES, chosen_ridge, directions, factors, metric, refitted
from intarsia.compression.factorization.ranks import chosen, harm_of, rank_of, saves
from intarsia.compression.linears import linears
from intarsia.compression.searching.sensitivity import sensitivity
from intarsia.compression.statistics import LayerStats, collect
from intarsia.compression.walking import Walk
from tests.tiny import tiny

SHAPES = [(12, 20), (20, 12), (16, 16), (7, 30), (30, 7)]


def drawn(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def inputs_of(width: int, tokens: int = 200) -> torch.Tensor:
    """Correlated, of sizes that lie orders of magnitude apart: [tokens, width]."""
    return drawn(3, tokens, width) @ drawn(4, width, width) * torch.logspace(-2, 1, width, dtype=torch.float64)


def stats_of(x: torch.Tensor) -> LayerStats:
    return LayerStats(x.T @ x / len(x), x.abs().mean(0), x.abs().amax(0), len(x))


def windows(rows: int = 6, tokens: int = 24) -> list[list[int]]:
    return torch.randint(10, 250, (rows, tokens), generator=torch.Generator().manual_seed(0)).tolist()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rank", [1, 3, 6])
def test_whitened_factors_are_the_optimum_of_the_outputs(shape, rank):
    weight, x = drawn(1, *shape), inputs_of(shape[1])
    left, right = factors(weight, x.T @ x / len(x), rank)
    assert left.shape == (shape[0], rank) and right.shape == (rank, shape[1])
    torch.testing.assert_close(left.T @ left, torch.eye(rank, dtype=torch.float64))
    lost = (x @ (weight - left @ right).T).square().sum()
    # Eckart and Young: no matrix of this rank is nearer to the outputs than what is left of their singular values.
    bound = torch.linalg.svdvals(x @ weight.T)[rank:].square().sum()
    torch.testing.assert_close(lost, bound, rtol=1e-8, atol=1e-8 * float((x @ weight.T).square().sum()))
    for seed in range(20):  # and none of these is, near it or far
        size = 10.0 ** -(seed % 5)
        other = (left + size * drawn(seed, *left.shape)) @ (right + size * drawn(50 + seed, *right.shape))
        assert (x @ (weight - other).T).square().sum() >= lost * (1 - 1e-9)


@pytest.mark.parametrize("shape", SHAPES)
def test_unit_moments_give_the_plain_decomposition(shape):
    weight = drawn(1, *shape)
    u, s, v = torch.linalg.svd(weight, full_matrices=False)
    wanted = u[:, :4] * s[:4] @ v[:4]
    x = torch.eye(shape[1], dtype=torch.float64) * shape[1] ** 0.5
    for moment in (metric("plain", shape[1], None), metric("whitened", shape[1], stats_of(x), damping=0)):
        left, right = factors(weight, moment, 4)
        torch.testing.assert_close(left @ right, wanted)


@pytest.mark.parametrize("shape", SHAPES)
def test_asvd_is_its_scaled_decomposition(shape):
    weight, x = drawn(1, *shape), inputs_of(shape[1])
    scale = x.abs().mean(0).sqrt()
    u, s, v = torch.linalg.svd(weight * scale, full_matrices=False)
    wanted = u[:, :5] * s[:5] @ v[:5] / scale
    left, right = factors(weight, metric("asvd", shape[1], stats_of(x)), 5)
    torch.testing.assert_close(left @ right, wanted)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dead", [0, 4])
def test_full_rank_is_the_matrix_itself(shape, dead):
    weight, x = drawn(1, *shape), inputs_of(shape[1])
    x[:, :dead] = 0
    for damping in (0, 1e-4):
        left, right = factors(weight, metric("whitened", shape[1], stats_of(x), damping), min(shape))
        torch.testing.assert_close(x @ (left @ right).T, x @ weight.T)
        if damping or not dead:
            torch.testing.assert_close(left @ right, weight)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("ridge", [0.0, 0.1, 10.0])
def test_a_refit_is_the_least_squares_it_says_and_never_worse(shape, ridge):
    weight, x = drawn(1, *shape), inputs_of(shape[1])
    z = x + 0.3 * drawn(9, *x.shape) @ drawn(10, shape[1], shape[1])  # what the layer is given now
    left, right = factors(weight, z.T @ z / len(z), 4)
    new = refitted(weight, left, right, z.T @ z / len(z), x.T @ z / len(x), ridge)

    def missed(a: torch.Tensor) -> float:
        return float((x @ weight.T - z @ right.T @ a.T).square().sum())

    assert missed(new) < missed(left)
    # Naive: the same least squares with the ridge as rows of its own.
    code = z @ right.T
    hold = (ridge * code.square().sum(0)).sqrt().diag()
    nothing = torch.zeros(4, shape[0], dtype=torch.float64)
    given, wanted = torch.cat([code, hold]), torch.cat([x @ weight.T - code @ left.T, nothing])
    torch.testing.assert_close(new, left + torch.linalg.lstsq(given, wanted).solution.T, rtol=1e-6, atol=1e-8)


def test_the_rank_of_a_share_is_the_largest_that_fits():
    for out, width in itertools.product((1, 7, 32, 576), (3, 48, 1536)):
        for share in (0.1, 0.5, 0.8, 0.95):
            rank = rank_of((out, width), share)
            assert rank * (out + width) <= share * out * width * (1 + 1e-9) < (rank + 1) * (out + width) * (1 + 1e-9)
            assert rank == 0 or saves((out, width), rank)
    assert not saves((32, 32), 16) and saves((32, 32), 15) and not saves((32, 32), 0)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_harms_of_all_ranks_are_those_of_each_by_itself(name):
    model = tiny(name)
    layers = [layer for layer in linears(model) if layer.block == 1]
    heard = sensitivity(model, layers, windows())
    for layer in layers:
        moment = metric("whitened", layer.shape[1], heard.stats[layer.name])
        basis = directions(layer.weight, moment)
        energy = harm_of(layer, "whitened", heard.stats[layer.name], None)
        curve = harm_of(layer, "whitened", heard.stats[layer.name], heard)
        assert len(curve) == min(layer.shape) + 1
        h = heard.stats[layer.name].moment.double()
        for rank in (0, 1, 5, min(layer.shape)):
            weight = layer.weight.double()
            change = basis[:, :rank] @ basis[:, :rank].T @ weight - weight
            naive = float(torch.trace(change @ h @ change.T) / torch.trace(weight @ h @ weight.T))
            assert float(curve[rank]) == pytest.approx(heard.of(layer.name, change), rel=1e-3, abs=1e-7)
            assert float(energy[rank]) == pytest.approx(naive, rel=1e-4, abs=1e-7)
        assert (curve[:-1] >= 0).all() and (energy.diff() <= 1e-12).all()


@pytest.mark.parametrize("keep", [0.2, 0.5, 0.8, 0.97])
def test_chosen_ranks_keep_the_budget_and_beat_one_share_for_all(keep):
    model = tiny("llama").copy()
    layers = linears(model)
    heard = sensitivity(model, layers, windows())
    found = chosen(layers, keep, "whitened", heard.stats, heard)
    spent = sum(found.of[x.name] * sum(x.shape) if x.name in found.of else x.weight.numel() for x in layers)
    whole = sum(layer.weight.numel() for layer in layers)
    assert (keep - 0.06) * whole < spent <= keep * whole
    assert all(saves(layer.shape, found.of[layer.name]) for layer in layers if layer.name in found.of)
    told = sum(float(harm_of(x, "whitened", heard.stats[x.name], heard)[found.of[x.name]]) for x in layers
               if x.name in found.of)  # fmt: skip
    assert found.predicted == pytest.approx(told) and found.predicted < found.uniform
    # Layers that nothing reached stay as they are, rather than pay for the others.
    fewer = {name: stats for name, stats in heard.stats.items() if "layers.2" not in name}
    seen = chosen(layers, keep, "whitened", fewer)
    assert seen.unseen == {layer.name for layer in layers if "layers.2" in layer.name} and not seen.unseen & set(
        seen.of
    )


def test_crossed_moments_are_those_of_both_networks_inputs():
    model = tiny("llama")
    new = model.copy()
    with torch.no_grad():  # the block below is another one now
        new.network.model.layers[0].mlp.down_proj.weight.mul_(-2)
    rows = [row[: 10 + 3 * i] for i, row in enumerate(windows(4))]
    before, now = Walk(model, rows, still=True), Walk(new, rows)
    old, fresh = ([x for x in linears(m) if x.block == 1] for m in (model, new))
    below = iter(before.blocks(None))
    for index in now.blocks(None):
        next(below)
        if index == 1:
            found = {name: fit for name, (fit, _) in crossed(before, now, list(zip(old, fresh, strict=True))).items()}
            break
    stats = [collect(m, some, rows) for m, some in ((model, old), (new, fresh))]
    site = "layers.1.mlp_act"
    x, z = (torch.cat([ia.read(m, [row], site)[site][0] for row in rows]).double() for m in (model, new))
    down = "model.layers.1.mlp.down_proj"
    torch.testing.assert_close(found[down].cross.double(), x.T @ z / len(x), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found[down].moment.double(), z.T @ z / len(z), rtol=1e-4, atol=1e-6)
    assert found[down].count == sum(map(len, rows))
    for layer in fresh:
        torch.testing.assert_close(found[layer.name].moment, stats[1][layer.name].moment, rtol=1e-4, atol=1e-6)
    attention = "model.layers.1.self_attn."
    assert found[attention + "q_proj"] is found[attention + "v_proj"] is not found[attention + "o_proj"]


def test_held_out_tokens_are_the_last_of_each_batch_and_together_they_are_all():
    model = tiny("llama")
    before, now = Walk(model, windows(4), still=True), Walk(model.copy(), windows(4))
    layers = [[x for x in linears(walk.model) if x.block == 0] for walk in (before, now)]
    for _ in zip(before.blocks(None), now.blocks(None), strict=True):
        pairs = list(zip(*layers, strict=True))
        whole = crossed(before, now, pairs)
        parts = crossed(before, now, pairs, held=0.25)
        break
    count = sum(map(len, windows(4)))
    for name, (fit, rest) in parts.items():
        assert (fit.count, rest.count) == (count - count // 4, count // 4) and whole[name][1].count == 0
        for key in ("moment", "cross"):
            torch.testing.assert_close(
                getattr(fit.joined(rest), key), getattr(whole[name][0], key), rtol=1e-4, atol=1e-6
            )
    rows = next(now.given(layers[1]))["model.layers.0.mlp.down_proj"][-(count // 4) :].double()
    torch.testing.assert_close(
        parts["model.layers.0.mlp.down_proj"][1].moment.double(), rows.T @ rows / len(rows), rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize(("tokens", "noise"), [(30, 0.3), (400, 0.3), (40, 8.0)])
def test_the_ridge_is_the_best_on_text_that_the_fit_has_not_seen(tokens, noise):
    torch.manual_seed(tokens)
    weight = torch.randn(24, 20, dtype=torch.float64)
    left, right = factors(weight, torch.eye(20, dtype=torch.float64), 10)
    x = torch.randn(tokens + 200, 20, dtype=torch.float64)
    z = x + noise * torch.randn_like(x)  # what changed below
    fit, held = ((z[some].T @ z[some] / len(z[some]), x[some].T @ z[some] / len(z[some]))
                 for some in (slice(0, tokens), slice(tokens, None)))  # fmt: skip

    def lost(new):  # naively, on the tokens held out
        return float((x[tokens:] @ weight.T - z[tokens:] @ right.T @ new.T).square().sum(1).mean())

    found = chosen_ridge(weight, left, right, fit, held)
    each = {ridge: lost(refitted(weight, left, right, *fit, ridge)) for ridge in RIDGES}
    assert each[found] == min(each.values()) < lost(left)
    # Where the fit was made on another kind of thing none helps.
    other = torch.randn(6, 20, dtype=torch.float64)
    wrong = other.T @ other / 6, -5 * other.T @ other / 6
    assert chosen_ridge(weight, left, right, wrong, held) == math.inf


def test_a_walk_that_stands_still_gives_the_states_of_one_that_runs_again():
    model = tiny("gpt2")
    walks = [Walk(model, windows(3), still=still) for still in (True, False)]
    for _ in zip(*(walk.blocks(None) for walk in walks), strict=True):
        seen = [walk.look([x for x in linears(model) if x.block == walk.index]) for walk in walks]
        for name in seen[0]:
            torch.testing.assert_close(seen[0][name].moment, seen[1][name].moment)
    assert all(torch.equal(a, b) for a, b in zip(walks[0].states, walks[1].states, strict=True))
