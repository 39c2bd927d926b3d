"""Conformal p-values, rates, and banks: what they promise, they keep."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from intarsia.detection.calibration import conformal
from intarsia.detection.calibration.banks import Bank, judge, standardised
from intarsia.detection.combining import LONG, SHORT, Weights
from tests.failing import fails


def test_p_values_count_those_that_score_as_high():
    bank = np.array([1.0, 2.0, 2.0, 5.0])
    assert conformal.p_values(np.array([0, 2, 3, 5, 9]), bank).tolist() == [1, 0.8, 0.4, 0.4, 0.2]
    assert conformal.p_values(np.array([3.0]), np.zeros(0)).tolist() == [1.0]


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.2])
def test_no_more_people_are_flagged_than_the_budget_says(rate):
    draw = np.random.default_rng(0)
    flagged = []
    for _ in range(4000):
        scores = draw.standard_t(3, 151)  # of heavy tails, so that no normal distribution is presumed
        flagged.append(conformal.p_values(scores[:1], scores[1:])[0] <= rate)
    wrong, low, _ = conformal.rate_interval(sum(flagged), len(flagged), 0.999)
    assert low <= rate and wrong > rate / 3


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=60), st.floats(0.005, 0.5))
@settings(max_examples=100, deadline=None)
def test_the_threshold_is_where_p_values_reach_the_rate(bank, rate):
    bank = np.array(bank)
    limit = conformal.threshold(bank, rate)
    assert math.isinf(limit) == (len(bank) < conformal.wanted(rate))
    if math.isfinite(limit):
        assert conformal.p_values(np.array([np.nextafter(limit, np.inf)]), bank)[0] <= rate + 1e-12
        assert conformal.p_values(np.array([limit]), bank)[0] > rate - 1e-12


def test_how_many_texts_a_rate_wants():
    assert [conformal.wanted(rate) for rate in (0.5, 0.05, 0.01, 0.001)] == [1, 19, 99, 999]
    for rate in (0.05, 0.01):
        assert conformal.smallest_rate(conformal.wanted(rate)) <= rate + 1e-12
    for rate in (0, 1, -1):
        fails(lambda rate=rate: conformal.wanted(rate), "between 0 and 1")


def test_rates_have_exact_intervals():
    assert conformal.rate_interval(0, 100)[2] == pytest.approx(1 - 0.025 ** (1 / 100))
    rate, low, high = conformal.rate_interval(5, 100)
    assert (rate, round(low, 4), round(high, 4)) == (0.05, 0.0164, 0.1128)
    assert conformal.rate_interval(7, 7)[2] == 1.0 and math.isnan(conformal.rate_interval(0, 0)[0])
    assert conformal.predictive_value(0.05, 0.6, 0.01) == pytest.approx(0.76, abs=0.001)
    assert math.isnan(conformal.predictive_value(0.5, 0, 0))


def test_of_many_windows_few_are_flagged_wrongly():
    p = np.array([0.001, 0.2, 0.012, 0.03, 0.9])
    # 0.03 <= 0.1 * 3 / 5 is the last that holds.
    assert conformal.benjamini_hochberg(p, 0.1).tolist() == [True, False, True, True, False]
    assert not conformal.benjamini_hochberg(np.array([0.2, 0.3]), 0.1).any()
    assert conformal.benjamini_hochberg(np.zeros(0), 0.1).tolist() == []


def bank_of(values, words) -> Bank:
    return Bank("d", ("a", "b"), {200: values}, np.asarray(words))


def test_a_text_is_judged_among_the_bank_with_itself():
    draw = np.random.default_rng(1)
    values, words = draw.normal(size=(30, 2)), np.full(30, 90)
    weights = np.array([0.5, 2.0])
    text = np.array([1.0, 2.0])
    found = bank_of(values, words).judge(text[None], np.array([90]), 200, weights[None])
    everybody = np.concatenate([values, text[None]])
    sums = np.log1p(np.exp((everybody - everybody.mean(0)) / everybody.std(0))) @ weights
    z, people = (text - values.mean(0)) / values.std(0), (values - values.mean(0)) / values.std(0)
    np.testing.assert_allclose(found.z[0], z)
    theirs = np.log1p(np.exp(people)) @ weights
    assert found.score[0] == pytest.approx((np.log1p(np.exp(z)) @ weights - theirs.mean()) / theirs.std())
    assert found.p[0] == (1 + (sums[:-1] >= sums[-1]).sum()) / 31
    # One of the bank ties with itself, and one that nobody reaches has the smallest p there is.
    assert judge(values, words, values[:1], words[:1], weights[None]).p[0] >= 2 / 31
    assert judge(values, words, np.array([[99.0, 99.0]]), words[:1], weights[None]).p[0] == 1 / 31


def test_voices_without_weight_are_not_heard():
    draw = np.random.default_rng(1)
    values, words = draw.normal(size=(30, 2)), np.full(30, 90)
    silent = np.array([[1.0, np.nan]])
    found = judge(values, words, silent, words[:1], np.array([[1.0, 0.0]]))
    assert np.isfinite(found.score[0]) and found.p[0] < 1
    # A voice that the bank has no values of is not heard either, and a text of which nothing is heard is nobody's.
    bank = np.column_stack([values[:, 0], np.full(30, np.nan)])
    again = judge(bank, words, silent, words[:1], np.array([[1.0, 3.0]]))
    assert (again.score[0], again.p[0]) == (found.score[0], found.p[0]) and again.counts[0, 1] == 0
    assert judge(bank, words, silent, words[:1], np.array([[0.0, 3.0]])).p[0] == 1


def test_sums_are_standardised_and_joined():
    draw = np.random.default_rng(5)
    values, words, text = draw.normal(size=(40, 3)), np.full(40, 90), np.array([2.5, -0.5, 0.1])
    weights = np.array([[1.0, 0.0, 0.2], [0.0, 3.0, 0.2], [0.0, 0.0, 0.0]])  # the last sum hears nobody

    def scores(standard, people):
        """Of each text among people: log of the sum of exp of what each sum says in people's spreads."""
        total = 0.0
        for w in weights[:2]:
            told, theirs = np.log1p(np.exp(standard)) @ w, np.log1p(np.exp(people)) @ w
            total = total + np.exp((told - theirs.mean()) / theirs.std())
        return np.log(total)

    found = judge(values, words, text[None], words[:1], weights)
    z, people = (text - values.mean(0)) / values.std(0), (values - values.mean(0)) / values.std(0)
    theirs = scores(people, people)
    assert found.score[0] == pytest.approx((scores(z, people) - theirs.mean()) / theirs.std())
    everybody = np.vstack([values, text])
    all_z = (everybody - everybody.mean(0)) / everybody.std(0)
    ranked = scores(all_z, all_z)
    assert found.p[0] == (1 + (ranked[:-1] >= ranked[-1]).sum()) / 41
    # What a voice counts for is the slope of the score by its evidence.
    for voice in range(3):
        more = z.copy()
        more[voice] = np.log(np.expm1(np.log1p(np.exp(z[voice])) + 1e-6))
        slope = (scores(more, people) - scores(z, people)) / 1e-6 / theirs.std()
        assert found.counts[0, voice] == pytest.approx(slope, rel=1e-3)
    # It stands out in one sum alone: joined it stands out, in their plain mean it would less.
    one = np.array([[1.0, 1.0, 0.2]])
    assert found.score[0] > judge(values, words, text[None], words[:1], one).score[0]


def test_the_promise_holds_for_joined_sums():
    """Of people's texts no more than the budget are flagged, whatever the sums."""
    draw = np.random.default_rng(6)
    weights, hits = np.array([[1.0, 0.0], [0.3, 2.0]]), 0
    for _ in range(150):
        values = draw.standard_t(3, size=(24, 2))
        p = judge(values[:19], np.full(19, 90), values[19:], np.full(5, 90), weights).p
        hits += int((p <= 0.1).sum())
    assert 40 < hits < 110  # 750 texts at 10 %


def test_length_is_no_sign_of_a_machine():
    """A voice that grows with length, and steadies with it, as a mean over tokens does: a text that is longer than most
    must not be flagged for it."""
    draw = np.random.default_rng(2)
    words = draw.integers(50, 400, 400)

    def voice(n):
        return np.log(n) + draw.normal(size=len(n)) * 4 / np.sqrt(n)

    z = standardised(voice(words)[:, None], words)[:, 0]
    short, long = z[words < 100], z[words > 300]
    assert abs(short.mean()) < 0.25 and abs(long.mean()) < 0.25
    assert abs(short.std() - 1) < 0.25 and abs(long.std() - 1) < 0.25
    bank = Bank("d", ("a",), {700: voice(words)[:, None]}, words)
    long_ones = np.full(600, 390)
    p = bank.judge(voice(long_ones)[:, None], long_ones, 700, np.array([[1.0]])).p
    assert 0.02 < (p <= 0.05).mean() < 0.09


def test_weights_are_never_negative_and_go_with_length():
    draw = np.random.default_rng(3)
    n = 4000
    machine = draw.random(n) < 0.5
    words = draw.choice([30.0, 400.0], n)
    z = draw.normal(size=(n, 3))
    z[:, 0] += 2.0 * (machine & (words < 100))  # tells in short texts
    z[:, 1] += 2.0 * (machine & (words > 100))  # tells in long ones
    z[:, 2] -= 1.0 * machine  # speaks against its meaning
    weights = Weights.fit(("a", "b", "c"), z, words, machine, np.ones(n))
    assert (weights.short >= 0).all() and (weights.long >= 0).all()
    assert weights.short[0] > 1 > 0.2 > weights.short[1] and weights.long[1] > 1 > 0.2 > weights.long[0]
    assert weights.short[2] == weights.long[2] == 0
    middle = weights.of(int(np.sqrt(SHORT * LONG)))
    np.testing.assert_allclose(middle, (weights.short + weights.long) / 2, rtol=0.05)
    assert weights.of(60, ("b",))[0] == 0


def test_weights_are_where_the_loss_is_least():
    draw = np.random.default_rng(4)
    n = 500
    z, machine, words = draw.normal(size=(n, 2)), draw.random(n) < 0.5, draw.uniform(50, 300, n)
    z[:, 0] += machine
    importance = draw.uniform(0.5, 1.5, n)
    found = Weights.fit(("a", "b"), z, words, machine, importance)

    def loss(short, long):
        share = np.clip(np.log(words / SHORT) / np.log(LONG / SHORT), 0, 1)
        total = ((1 - share)[:, None] * short + share[:, None] * long) * np.log1p(np.exp(z))
        best = min(
            (importance / importance.sum()) @ np.logaddexp(0, -np.where(machine, 1, -1) * (b + total.sum(1)))
            for b in np.linspace(-3, 1, 321)
        )
        return best + 1e-2 * (short @ short + long @ long)

    least = loss(found.short, found.long)
    for at in range(2):
        for step in (-0.1, 0.1):
            for which in (0, 1):
                moved = [found.short.copy(), found.long.copy()]
                moved[which][at] = max(0.0, moved[which][at] + step)
                assert loss(*moved) >= least - 1e-4
