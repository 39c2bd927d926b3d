"""Attribution by taking words away: against naive sums over subsets, on games with known answers and on networks."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from intarsia.errors import BadInput
from intarsia.interpretation.attribution.methods import METHODS, attribute_one
from intarsia.interpretation.attribution.scores.surrogates import coalitions, ridge
from intarsia.interpretation.attribution.units import pieces
from intarsia.interpretation.explained import explain_text, neutral_token
from tests.tiny import tiny


class Game:
    """What a method sees of a text, with a value for each set of tokens that is given by a function."""

    def __init__(self, value, count: int, words=None):
        self.function, self.features = value, list(range(count))
        self.words = words or [[i] for i in range(count)]
        self.tokens = [f" w{i}" for i in range(count)]

    def value(self, keep=None):
        keep = torch.ones(1, len(self.features), dtype=torch.bool) if keep is None else keep
        rows = [frozenset(row.nonzero()[:, 0].tolist()) for row in keep]
        return torch.tensor([self.function(row) for row in rows], dtype=torch.float64)


def table_game(count: int, seed: int = 0) -> Game:
    """A game with a random value for each set."""
    generator = np.random.default_rng(seed)
    members = [frozenset(s) for n in range(count + 1) for s in itertools.combinations(range(count), n)]
    values = {s: float(generator.normal()) for s in members}
    return Game(values.__getitem__, count)


def shapley(game, count: int) -> list[float]:
    """The definition: weighted gains over all sets without the player."""
    out = []
    for i in range(count):
        others, total = [j for j in range(count) if j != i], 0.0
        for n in range(count):
            weight = math.factorial(n) * math.factorial(count - n - 1) / math.factorial(count)
            for s in itertools.combinations(others, n):
                total += weight * (game(frozenset(s) | {i}) - game(frozenset(s)))
        out.append(total)
    return out


def test_all_agree_on_a_game_that_is_a_sum():
    parts = [0.5, -2.0, 0.0, 1.25, 3.0]
    game = Game(lambda s: 7 + sum(parts[i] for i in s), 5)
    settings = {"lime": {"ridge": 0.0}, "occlusion": {"window": 1}, "kernel_shap": {"samples": 20}}
    for name in ("leave_one_out", "occlusion", "lime", "kernel_shap", "partition_shap", "shapley_sampling"):
        scores = attribute_one(game, name, **settings.get(name, {}))
        np.testing.assert_allclose(scores, parts, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("count", [1, 2, 5, 6])
def test_kernel_shap_over_all_subsets_is_shapley(count):
    game = table_game(count)
    expected = shapley(game.function, count)
    np.testing.assert_allclose(attribute_one(game, "kernel_shap", samples=2**count + 4), expected, atol=1e-9)


def test_kernel_shap_on_a_network_is_captums_shapley_values():
    attr = pytest.importorskip("captum.attr")
    explained = explain_text(tiny("llama"), "abcde", removal="token")
    inside = attr.ShapleyValues(lambda keep: explained.value(keep.bool()))
    expected = inside.attribute(torch.ones(1, 5), perturbations_per_eval=1)[0]
    np.testing.assert_allclose(attribute_one(explained, "kernel_shap"), expected, atol=1e-5)
    expected = shapley(lambda s: float(explained.value(torch.tensor([[i in s for i in range(5)]]))), 5)
    np.testing.assert_allclose(attribute_one(explained, "kernel_shap"), expected, atol=1e-9)


def test_sampled_coalitions_have_the_kernels_mass():
    present, weights = coalitions(12, 100, seed=3)
    assert len(present) == 100
    outer = torch.isin(present.sum(1), torch.tensor([1, 11]))
    assert int(outer.sum()) == 24  # all of the outermost sizes
    kernel = [11 / (k * (12 - k)) for k in range(1, 12)]
    assert float(weights[outer].sum()) == pytest.approx(kernel[0] + kernel[-1])
    assert float(weights.sum()) == pytest.approx(sum(kernel))
    assert torch.equal(present[24::2], ~present[25::2])


def test_sampled_kernel_shap_and_sampled_orders_come_near():
    game = table_game(10)
    expected = np.array(shapley(game.function, 10))
    for name, settings in (("kernel_shap", {"samples": 900}), ("shapley_sampling", {"orders": 2000})):
        scores = attribute_one(game, name, seed=1, **settings).numpy()
        assert np.abs(scores - expected).max() < 0.12, name
        assert scores.sum() == pytest.approx(expected.sum())


def test_partition_shap_is_owens_value():
    game = table_game(4)

    def gain(player: int, others: set[int]) -> float:
        return game.function(frozenset(others | {player})) - game.function(frozenset(others))

    partner, other_half = {0: 1, 1: 0, 2: 3, 3: 2}, {0: {2, 3}, 1: {2, 3}, 2: {0, 1}, 3: {0, 1}}
    expected = [
        np.mean([gain(i, set(a) | set(b)) for a in ((), other_half[i]) for b in ((), (partner[i],))]) for i in range(4)
    ]
    np.testing.assert_allclose(attribute_one(game, "partition_shap"), expected, atol=1e-12)
    coarse = attribute_one(game, "partition_shap", evaluations=2)  # the halves alone
    left = 0.5 * (gain_of(game, {0, 1}, set()) + gain_of(game, {0, 1}, {2, 3}))
    np.testing.assert_allclose(coarse[:2], [left / 2] * 2)
    assert coarse.sum() == pytest.approx(sum(expected))


def gain_of(game: Game, group: set[int], others: set[int]) -> float:
    return game.function(frozenset(group | others)) - game.function(frozenset(others))


def test_partition_shap_keeps_words_and_sentences_together():
    game = Game(lambda s: float({0, 1, 2} <= s), 6, words=[[0, 1, 2], [3], [4, 5]])
    np.testing.assert_allclose(attribute_one(game, "partition_shap").sum(), 1)
    scores = attribute_one(game, "partition_shap", unit="word")
    np.testing.assert_allclose(scores, [1 / 3] * 3 + [0] * 3)


def test_lime_is_a_weighted_ridge_regression():
    linear = pytest.importorskip("sklearn.linear_model")
    generator = torch.Generator().manual_seed(0)
    x = (torch.rand(40, 6, generator=generator) > 0.5).double()
    y, weights = torch.randn(40, generator=generator).double(), torch.rand(40, generator=generator).double()
    mine, intercept = ridge(x, y, weights, 0.7)
    theirs = linear.Ridge(alpha=0.7).fit(x.numpy(), y.numpy(), sample_weight=weights.numpy())
    np.testing.assert_allclose(mine, theirs.coef_, atol=1e-9)
    assert float(intercept) == pytest.approx(theirs.intercept_)


def test_lime_tells_how_well_a_line_fits():
    fit = "fit of the linear model (R²)"
    flat = Game(lambda s: float(len(s)), 6)
    bent = Game(lambda s: float(len(s) % 2), 6)
    method = METHODS["lime"]
    assert method.scored(flat, method.config(ridge=0.0)).facts[fit] == pytest.approx(1)
    assert method.scored(bent).facts[fit] < 0.5


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3", "neox"])
def test_leave_one_out_and_occlusion_are_the_naive_differences(family):
    model = tiny(family, dtype=torch.float64)
    explained = explain_text(model, "ab cd", removal="attention")
    ids = torch.tensor([explained.ids])
    answer = int(model.network(ids).logits[0, -1].argmax())

    def value(gone: set[int]) -> float:
        fed, mask = ids.clone(), torch.ones_like(ids)
        for i in gone:
            fed[0, i], mask[0, i] = neutral_token(model), 0
        places = torch.arange(ids.shape[1])[None]
        with torch.no_grad():
            logits = model.network(fed, attention_mask=mask, position_ids=places).logits
        return float(logits[0, -1].log_softmax(-1)[answer])

    whole = value(set())
    expected = [whole - value({i}) for i in range(5)]
    np.testing.assert_allclose(attribute_one(explained, "leave_one_out"), expected, atol=1e-9)
    windows = [whole - value({i, i + 1, i + 2}) for i in range(3)]
    covering = [[w for i, w in enumerate(windows) if i <= piece < i + 3] for piece in range(5)]
    expected = [np.mean(w) / 3 for w in covering]
    np.testing.assert_allclose(attribute_one(explained, "occlusion", window=3), expected, atol=1e-9)


def test_a_stride_leaves_no_piece_uncovered():
    game = Game(lambda s: float(len(s)), 7)
    np.testing.assert_allclose(attribute_one(game, "occlusion", window=2, stride=2), [1] * 7)


def test_the_unit_decides_what_goes_together():
    explained = explain_text(tiny("llama"), 'He said "no." Then left! Why', target="x", removal="delete")
    words = ["".join(explained.tokens[i] for i in group) for group in pieces(explained, "word")]
    assert words == ["He", " said", ' "no."', " Then", " left!", " Why"]
    sentences = ["".join(explained.tokens[i] for i in group) for group in pieces(explained, "sentence")]
    assert sentences == ['He said "no."', " Then left!", " Why"]
    scores = attribute_one(explained, "leave_one_out", unit="sentence")
    short = explain_text(tiny("llama"), 'He said "no." Why', target="x", removal="delete")
    middle = pieces(explained, "sentence")[1]
    assert float(scores[middle].sum()) == pytest.approx(float(explained.value() - short.value()), abs=1e-5)
    assert scores[middle].unique().numel() == 1


def test_random_scores_depend_on_the_seed_alone():
    explained = explain_text(tiny("llama"), "some text")
    one, again, other = (attribute_one(explained, "random", seed=s) for s in (0, 0, 1))
    assert torch.equal(one, again) and not torch.equal(one, other)


def test_bad_input():
    explained = explain_text(tiny("llama"), "some text")
    with pytest.raises(BadInput, match=r"no attribution method 'lima'.*lime"):
        attribute_one(explained, "lima")
    with pytest.raises(BadInput, match=r"unknown setting 'sample'.*samples"):
        attribute_one(explained, "lime", sample=3)
