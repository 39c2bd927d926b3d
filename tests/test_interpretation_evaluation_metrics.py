"""Every measure against a naive formula, on models whose every masked variant is known in closed form."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from intarsia.errors import BadInput
from intarsia.interpretation.evaluation import bounds, effects, planted, rationales, removal, simulation, soft
from intarsia.interpretation.evaluation.correlation import kendall, pearson, ranks, spearman
from intarsia.interpretation.evaluation.scoring import Scale, figures, floor, limits_of
from intarsia.interpretation.explained import Choice


class Known:
    """A text of n tokens whose log odds are a known function of which tokens are there."""

    def __init__(self, log_odds, count):
        self.log_odds, self.count = log_odds, count
        self.features, self.choices, self.choice = list(range(count)), [Choice("yes"), Choice("no")], 0

    def log_probs(self, keep=None):
        keep = torch.ones(1, self.count, dtype=torch.bool) if keep is None else keep
        odds = torch.tensor([self.log_odds(row.double()) for row in keep], dtype=torch.float64)
        return torch.stack([odds, -odds], 1).sigmoid().log()

    def value(self, keep=None):
        return self.log_probs(keep)[:, self.choice]

    def p(self, present) -> float:
        """Probability of the choice when exactly these tokens are there."""
        row = torch.zeros(self.count, dtype=torch.float64)
        row[list(present)] = 1
        return 1 / (1 + math.exp(-float(self.log_odds(row))))


WEIGHTS = torch.tensor([0.3, 2.0, -0.7, 1.1, 0.1, -0.2, 0.6], dtype=torch.float64)


def additive(weights=WEIGHTS, bias=-1.0):
    return Known(lambda row: float(row @ weights) + bias, len(weights))


def tangled():
    return Known(lambda row: float(row @ WEIGHTS + 2 * row[0] * row[4] - 1.5 * row[1] * row[3]) - 0.5, 7)


SCORES = torch.tensor([0.5, 0.1, 0.9, -0.3, 0.2, 0.5, -1.0], dtype=torch.float64)
ORDER = [2, 0, 5, 4, 1, 3, 6]  # equal scores in the order of the text


def test_orders_and_sizes():
    assert removal.order(SCORES).tolist() == ORDER
    assert removal.sizes(30, [0.01, 0.05, 0.1, 0.2, 0.5]) == [1, 2, 3, 6, 15]
    assert removal.sizes(1, [0.01, 0.5, 1.0]) == [1, 1, 1]
    masks = removal.tops(removal.order(SCORES), [0, 2, 7])
    assert [m.nonzero()[:, 0].tolist() for m in masks] == [[], [0, 2], list(range(7))]


@pytest.mark.parametrize("make", [additive, tangled])
def test_removal_measures_against_the_formula(make):
    text = make()
    everything = set(range(7))
    fractions = (0.01, 0.2, 0.5)
    tops = [set(ORDER[: max(1, math.ceil(f * 7))]) for f in fractions]
    ranking = removal.order(SCORES)
    comp, suff = removal.comprehensiveness(text, ranking, fractions), removal.sufficiency(text, ranking, fractions)
    whole = text.p(everything)
    assert comp.tolist() == pytest.approx([whole - text.p(everything - t) for t in tops])
    assert suff.tolist() == pytest.approx([whole - text.p(t) for t in tops])
    assert removal.aopc(comp) == pytest.approx(sum(whole - text.p(everything - t) for t in tops) / 3)

    def logit(p):
        return math.log(p / (1 - p))

    drops = [logit(whole) - logit(text.p(everything - t)) for t in tops]
    assert removal.log_odds_drop(text, ranking, fractions) == pytest.approx(sum(drops) / 3)
    gone = [text.p(everything - set(ORDER[:k])) for k in range(8)]
    there = [text.p(set(ORDER[:k])) for k in range(8)]
    assert removal.deletion(text, ranking) == pytest.approx(sum((a + b) / 2 for a, b in itertools.pairwise(gone)) / 7)
    assert removal.insertion(text, ranking) == pytest.approx(sum((a + b) / 2 for a, b in itertools.pairwise(there)) / 7)
    # Three points: none, half (4 of 7, as 3.5 rounds to the even), all.
    assert removal.deletion(text, ranking, points=2) == pytest.approx(
        (gone[0] + gone[4]) / 2 * 4 / 7 + (gone[4] + gone[7]) / 2 * 3 / 7
    )


def test_decision_flips():
    text = additive()  # 3.2 - 1 = 2.2 of log odds; yes
    best = removal.order(WEIGHTS)  # 2.0, 1.1, ...: without 1 it is 0.2, without 1 and 3 -0.9
    assert removal.flip_fraction(text, best) == pytest.approx(2 / 7)
    assert removal.flips_at_first(text, best) == 0
    assert removal.flips_at_first(additive(bias=-2.0), best) == 1
    assert removal.flip_fraction(additive(bias=9.0), best) == 1  # nothing flips it
    text.choices = [Choice("only")]
    assert removal.flip_fraction(text, best) is None and removal.flips_at_first(text, best) is None


@pytest.mark.parametrize("make", [additive, tangled])
def test_bounds_are_the_extremes_over_all_orders_when_the_beam_holds_all_sets(make):
    text = make()
    fractions = (0.01, 0.2, 0.3, 0.5)
    found = bounds.aopc_bounds(text, fractions, width=200)
    for measure, (low, high) in zip((removal.comprehensiveness, removal.sufficiency), found, strict=True):
        # Only sets of up to four tokens matter, so orders of four are enough.
        values = []
        for first in itertools.permutations(range(7), 4):
            ranking = torch.tensor([*first, *(i for i in range(7) if i not in first)])
            values.append(removal.aopc(measure(text, ranking, fractions)))
        assert (low, high) == pytest.approx((min(values), max(values)))
    narrow = bounds.aopc_bounds(text, fractions, width=1)
    for (low, high), (lower, higher) in zip(narrow, found, strict=True):
        assert lower - 1e-9 <= low <= high <= higher + 1e-9
    assert bounds.normalised(0.3, (0.1, 0.5)) == pytest.approx(0.5)
    assert math.isnan(bounds.normalised(0.3, (0.2, 0.2)))


def test_the_weights_of_an_additive_model_are_the_perfect_explanation():
    text = additive()
    scale = Scale(beam=50, full=False, floors=40)
    limits = limits_of(text, scale)
    perfect, worst = figures(text, WEIGHTS, scale, limits), figures(text, -WEIGHTS, scale, limits)
    assert perfect["normalised"] == pytest.approx(1) and worst["normalised"] == pytest.approx(0)
    assert perfect["comprehensiveness_normalised"] == pytest.approx(1)
    assert perfect["sufficiency_normalised"] == pytest.approx(0)
    assert 0.25 < floor(text, scale, limits)["normalised"] < 0.75
    single = effects.effects(text)
    assert effects.tau_loo(WEIGHTS, single) == pytest.approx(1)
    assert effects.monotonicity(WEIGHTS, single) == pytest.approx(1)
    assert effects.violation_rate(WEIGHTS, single) == 0
    assert effects.violation_rate(-WEIGHTS, single) == 1
    better, other = removal.order(WEIGHTS), removal.order(SCORES)
    assert removal.deletion(text, better) < removal.deletion(text, other)
    assert removal.insertion(text, better) > removal.insertion(text, other)


def test_effects_against_the_formula():
    text = tangled()
    everything = set(range(7))
    single = [math.log(text.p(everything)) - math.log(text.p(everything - {i})) for i in range(7)]
    assert effects.effects(text).tolist() == pytest.approx(single)
    signs = sum(math.copysign(1, s) != math.copysign(1, e) for s, e in zip(SCORES, single, strict=True)) / 7
    assert effects.violation_rate(SCORES, torch.tensor(single)) == pytest.approx(signs)
    gap = math.log(text.p(everything)) - math.log(text.p(set()))
    assert effects.completeness_error(text, SCORES) == pytest.approx(abs(float(SCORES.sum()) - gap) / abs(gap))
    exact = torch.full((7,), gap / 7, dtype=torch.float64)
    assert effects.completeness_error(text, exact) == pytest.approx(0, abs=1e-12)
    assert math.isnan(effects.completeness_error(Known(lambda row: 1.0, 3), SCORES[:3]))


def test_sensitivity_n_against_the_formula_and_for_a_linear_value():
    class Linear(Known):
        def value(self, keep=None):
            keep = torch.ones(1, self.count, dtype=torch.bool) if keep is None else keep
            return keep.double() @ WEIGHTS

    perfect = effects.sensitivity_n(Linear(None, 7), WEIGHTS, [1, 2, 4], draws=15)
    assert perfect == pytest.approx({1: 1, 2: 1, 4: 1})
    text = tangled()
    generator = torch.Generator().manual_seed(3)
    sums, drops = [], []
    for _ in range(9):
        chosen = set(torch.randperm(7, generator=generator)[:3].tolist())
        sums.append(sum(float(SCORES[i]) for i in chosen))
        drops.append(math.log(text.p(range(7))) - math.log(text.p(set(range(7)) - chosen)))
    found = effects.sensitivity_n(text, SCORES, [3], draws=9, seed=3)
    assert found[3] == pytest.approx(np.corrcoef(sums, drops)[0, 1], abs=1e-6)


def test_soft_measures_keep_what_the_shares_say():
    class Embedded(Known):
        """The value is a linear function of the embeddings: expectations are known."""

        def embeddings(self):
            return torch.ones(9, 4000)

        def value_at(self, states):
            mean = states[:, self.features].double().mean(-1)  # [n, feature]: the share that was kept
            return (0.1 + 0.1 * mean @ self.weights).log()

    text = Embedded(None, 7)
    text.features = list(range(1, 8))  # the first and the last token are of the template
    text.weights = torch.tensor([1.0, 0, 2, 0, 3, 0, 1], dtype=torch.float64)
    text.value = lambda keep=None: torch.tensor([0.8], dtype=torch.float64).log()
    shares = (SCORES.double() + 1) / 1.9
    assert soft.shares(SCORES).tolist() == pytest.approx(shares.tolist())
    comp, suff = soft.soft(text, SCORES, draws=4)
    assert comp == pytest.approx(0.1 * float(shares @ text.weights), abs=0.01)
    assert suff == pytest.approx(0.1 * float((1 - shares) @ text.weights), abs=0.01)
    assert soft.shares(torch.ones(3)).tolist() == [0.5] * 3


def test_correlations_against_pairs_and_definitions():
    generator = np.random.default_rng(0)
    for ties in (False, True):
        x, y = (generator.integers(0, 5, 12).astype(float) if ties else generator.normal(size=12) for _ in range(2))
        assert pearson(x, y) == pytest.approx(np.corrcoef(x, y)[0, 1])
        assert ranks(x).tolist() == [1 + sum(b < a for b in x) + (sum(b == a for b in x) - 1) / 2 for a in x]
        assert spearman(x, y) == pytest.approx(np.corrcoef(ranks(x), ranks(y))[0, 1])
        both = one = other = 0
        for i, j in itertools.combinations(range(12), 2):
            a, b = np.sign(x[i] - x[j]), np.sign(y[i] - y[j])
            both, one, other = both + a * b, one + abs(a), other + abs(b)
        assert kendall(x, y) == pytest.approx(both / math.sqrt(one * other))
    assert math.isnan(pearson([0.1] * 3, [1, 2, 3])) and math.isnan(kendall([1, 1], [1, 2]))


HUMAN = np.array([0, 1, 1, 0, 0, 1, 0], dtype=bool)


def test_agreement_with_people():
    chosen = rationales.top(SCORES.numpy(), 3)
    assert chosen.nonzero()[0].tolist() == [0, 2, 5]
    assert rationales.token_f1(chosen, HUMAN) == pytest.approx(2 / 3)
    assert rationales.runs(HUMAN) == [(1, 3), (5, 6)]
    # Stretches (0,1), (2,3), (5,6) against (1,3), (5,6): overlaps 0, 1/2, 1; above one half only the last.
    assert rationales.iou_f1(chosen, HUMAN) == pytest.approx(2 * (1 / 3) * (1 / 2) / (1 / 3 + 1 / 2))
    assert rationales.iou_f1(chosen, HUMAN, threshold=0.4) == pytest.approx(2 * (2 / 3) * 1 / (2 / 3 + 1))
    none = np.zeros(7, dtype=bool)
    assert rationales.token_f1(none, none) == rationales.iou_f1(none, none) == 1
    assert rationales.iou_f1(none, HUMAN) == rationales.token_f1(none, HUMAN) == 0
    # Ranked 2 0 5 4 1 3 6: marked at ranks 1, 3 and 5.
    assert rationales.average_precision(SCORES.numpy(), HUMAN) == pytest.approx((1 + 2 / 3 + 3 / 5) / 3)
    assert rationales.precision_at(SCORES.numpy(), HUMAN) == pytest.approx(2 / 3)
    assert rationales.precision_at(SCORES.numpy(), HUMAN, 1) == 1
    assert math.isnan(rationales.auprc(SCORES.numpy(), none))


def test_auprc_is_that_of_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    for scores in (SCORES.numpy(), np.round(np.random.default_rng(1).normal(size=7), 0)):
        precision, recall, _ = metrics.precision_recall_curve(HUMAN, scores)
        # It ends its curve at precision 1; ours holds the first precision down to recall 0.
        precision[-1] = precision[-2]
        assert rationales.auprc(scores, HUMAN) == pytest.approx(metrics.auc(recall, precision))
    assert rationales.auprc(HUMAN.astype(float), HUMAN) == 1
    assert rationales.auprc(np.zeros(7), HUMAN) == pytest.approx(3 / 7)  # nothing is ranked: chance


def test_spans_become_tokens():
    text, tokens = "A bad, bad film", ["A", " bad", ",", " bad", " fi", "lm"]
    assert rationales.token_mask(text, tokens, [(2, 5)]).tolist() == [False, True, False, False, False, False]
    assert rationales.token_mask(text, tokens, [(7, 12)]).tolist() == [False, False, False, True, True, False]
    assert not rationales.token_mask(text, tokens, [(1, 2)]).any()  # the space before a word is not the word


def test_a_simulator_learns_what_goes_with_the_choice_and_nothing_from_noise():
    generator = np.random.default_rng(0)
    said = ["a", "b"] * 30
    telling = [[" Good" if s == "a" else " bad", str(generator.integers(99))] for s in said]
    noise = [[str(generator.integers(9))] for _ in said]
    assert simulation.simulatability(telling, said).mean() == 1
    assert simulation.simulatability(noise, said).mean() < 0.75
    assert np.isnan(simulation.simulatability(noise, ["a"] * 60)).all()
    # One fold by hand: two of three "a" have x, none of two "b".
    reader = simulation.NaiveBayes([["x"], ["X "], ["y"], ["z"], ["z"]], ["a", "a", "a", "b", "b"])
    assert (reader(["x"]), reader(["z"])) == ("a", "b")
    assert reader(["y", "z"]) == "b"  # 3/5 * 2/5 * 1/5 against 2/5 * 1/4 * 3/4


def test_planted_words_are_where_the_rationale_says():
    records = planted.plant(["one two three", "four five", "six", "seven eight"], {"zorp": "up", "quix": "down"})
    for record, text in zip(records, ["one two three", "four five", "six", "seven eight"], strict=True):
        ((start, end),) = record.rationale
        word = record.text[start:end]
        assert record.label == {"zorp": "up", "quix": "down"}[word]
        assert " ".join(w for w in record.text.split() if w != word) == text
    assert sorted(r.label for r in records) == ["down", "down", "up", "up"]
    with pytest.raises(BadInput, match="occurs in a text by itself"):
        planted.plant(["a zorp"], {"zorp": "up", "quix": "down"})
    with pytest.raises(BadInput, match="two labels"):
        planted.plant(["a"], {"zorp": "up"})
    with pytest.raises(BadInput, match="none were given"):
        planted.plant([], {"zorp": "up", "quix": "down"})
