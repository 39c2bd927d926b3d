"""Statistics of tokens under a language model, against loops in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from intarsia.detection.statistics import SCORES, Kept, rank_shares, token_statistics
from intarsia.detection.statistics.tokens import PREFIXES
from tests.failing import fails
from tests.tiny import tiny

TEXTS = ["The cat sat on the mat, and then it slept.", "Oh", "Rain fell all day long on the old stone bridge."]


@pytest.fixture(scope="module")
def model():
    return tiny("llama")


def naive(model, text: str, reference=None) -> dict[str, list[float]]:
    """Token by token, with Python's own sums."""
    ids = model.tokenizer(text)["input_ids"]
    out: dict[str, list[float]] = {name: [] for name in ("l", "r", "m", "s2", "h")}
    with torch.no_grad():
        q = model.network(torch.tensor([ids])).logits[0].double()
        p = q if reference is None else reference.network(torch.tensor([ids])).logits[0].double()
    for i in range(1, len(ids)):
        log_q, log_p = torch.log_softmax(q[i - 1], -1).tolist(), torch.log_softmax(p[i - 1], -1).tolist()
        mean = sum(math.exp(a) * b for a, b in zip(log_p, log_q, strict=True))
        out["l"].append(log_q[ids[i]])
        out["r"].append(1 + sum(value > log_q[ids[i]] for value in log_q))
        out["m"].append(mean)
        out["s2"].append(sum(math.exp(a) * b * b for a, b in zip(log_p, log_q, strict=True)) - mean**2)
        out["h"].append(-sum(math.exp(a) * a for a in log_p))
    return out


@pytest.mark.parametrize("two", [False, True])
def test_statistics_are_those_of_a_loop(model, two):
    other = tiny("llama", seed=7) if two else None
    for text, found in zip(TEXTS, token_statistics(model, TEXTS, reference=other), strict=True):
        wanted = naive(model, text, other)
        assert len(found) == len(wanted["l"])
        for name, field in (("l", "log_probability"), ("m", "mean"), ("s2", "variance"), ("h", "entropy")):
            np.testing.assert_allclose(getattr(found, field), wanted[name], atol=2e-4, err_msg=field)
        assert found.rank.tolist() == wanted["r"]


def test_every_score_is_its_formula(model):
    (found,) = token_statistics(model, TEXTS[:1])
    of = {name: np.array(values) for name, values in naive(model, TEXTS[0]).items()}
    log_q, r, m, s2, h = (of[name] for name in ("l", "r", "m", "s2", "h"))
    wanted = {
        "loglik": log_q.mean(), "rank": -r.mean(), "logrank": -np.log(r).mean(), "lrr": -log_q.sum() / np.log(r).sum(),
        "neg_entropy": -h.mean(), "neg_var": -s2.mean(), "top1": (r == 1).mean(), "top10": (r <= 10).mean(),
        "curvature": (log_q.sum() - m.sum()) / math.sqrt(s2.sum()), "binoculars": -log_q.sum() / m.sum(),
    }  # fmt: skip
    assert set(wanted) == set(SCORES)
    for name, value in wanted.items():
        assert SCORES[name](found) == pytest.approx(value, rel=1e-3), name
    # One model as performer and observer over the same positions: mean(-l) / mean(H), and the sign for machines.
    assert SCORES["binoculars"](found) == pytest.approx(-(-log_q).mean() / h.mean(), rel=1e-3)
    shares = [((r > low) & (r <= high)).mean() for low, high in ((0, 10), (10, 100), (100, 1000), (1000, np.inf))]
    np.testing.assert_allclose(rank_shares(found), shares)


def test_the_analytic_curvature_is_that_of_draws(model):
    (found,) = token_statistics(model, TEXTS[:1])
    ids = torch.tensor([model.tokenizer(TEXTS[0])["input_ids"]])
    with torch.no_grad():
        log_q = torch.log_softmax(model.network(ids).logits[0, :-1].double(), -1)
    torch.manual_seed(0)
    drawn = torch.distributions.Categorical(logits=log_q).sample((20_000,))
    totals = log_q.gather(1, drawn.T).sum(0)
    sampled = (found.log_probability.sum() - totals.mean()) / totals.std()
    assert SCORES["curvature"](found) == pytest.approx(float(sampled), abs=0.05)


def test_ranks_that_are_all_one_divide_by_no_zero(model):
    (found,) = token_statistics(model, TEXTS[:1])
    certain = found.part(found.rank == found.rank)
    certain.rank[:] = 1
    assert math.isfinite(SCORES["lrr"](certain)) and SCORES["logrank"](certain) == 0


def test_windows_score_every_token_once_and_long_context_changes_little(model):
    text = " ".join(TEXTS) * 4
    (whole,) = token_statistics(model, [text], window=128)
    (parts,) = token_statistics(model, [text], window=64, context=32)
    assert len(parts) == len(model.tokenizer(text)["input_ids"]) - 1
    np.testing.assert_array_equal(parts.spans[:60], whole.spans[:60])
    np.testing.assert_allclose(parts.log_probability[:60], whole.log_probability[:60], atol=1e-4)
    assert (parts.log_probability < 0).all() and (parts.rank >= 1).all()
    assert parts.spans[-1, 1] == len(text)
    fails(lambda: token_statistics(model, [text], window=20, context=32), "scores nothing")


def test_the_beginning_alone_is_the_beginning_of_the_whole(model):
    (whole,) = token_statistics(model, TEXTS[:1])
    (first,) = token_statistics(model, TEXTS[:1], most=12)
    assert len(first) == 12
    np.testing.assert_allclose(first.log_probability, whole.log_probability[:12], atol=1e-4)
    np.testing.assert_array_equal(first.spans, whole.spans[:12])


def test_mean_states_are_those_of_the_network(model):
    (found,) = token_statistics(model, TEXTS[:1])
    ids = torch.tensor([model.tokenizer(TEXTS[0])["input_ids"]])
    with torch.no_grad():
        states = model.network(ids, output_hidden_states=True).hidden_states
    depths = [max(1, round((len(states) - 1) * share)) for share in (1 / 3, 1 / 2, 2 / 3, 5 / 6)]
    side_by_side = torch.cat([states[depth][0] for depth in depths], -1)
    for count, state in zip(found.prefixes, found.states, strict=True):
        np.testing.assert_allclose(state, side_by_side[1 : count + 1].mean(0).numpy(), atol=1e-4)
    assert set(found.prefixes) <= {*PREFIXES, len(found)} and len(found) in found.prefixes
    np.testing.assert_array_equal(found.state(10_000), found.states[-1])


def test_no_text_and_one_token_and_odd_signs(model):
    empty, one, odd = token_statistics(model, ["", "a", "🎈 漢字 \x00"])
    assert len(empty) == len(one) == 0 and np.isnan(empty.state()).all()
    assert len(odd) > 3 and np.isfinite(odd.log_probability).all()
    assert token_statistics(model, []) == []


def test_batches_do_not_mix_texts(model):
    together = token_statistics(model, TEXTS * 5)
    for text, found in zip(TEXTS * 5, together, strict=True):
        (alone,) = token_statistics(model, [text])
        np.testing.assert_allclose(found.log_probability, alone.log_probability, atol=1e-4)


def test_who_cannot_score_is_refused(model):
    fails(lambda: token_statistics(tiny("bert-encoder"), TEXTS), "causal language model")
    bare = model.copy()
    bare.tokenizer = None
    fails(lambda: token_statistics(bare, TEXTS), "no tokenizer")


def test_what_was_read_is_kept_and_never_read_again(model, tmp_path, monkeypatch):
    kept = Kept(model, path=tmp_path / "kept.sqlite")
    before = kept([*TEXTS, TEXTS[0]], 16)
    assert len(before[0]) == 16 and before[0] is before[3]
    from intarsia.detection.statistics import kept as module

    def never(*_, **__):
        raise AssertionError("read again")

    monkeypatch.setattr(module, "token_statistics", never)
    after = Kept(model, path=tmp_path / "kept.sqlite")(TEXTS, 16)
    for old, new in zip(before, after, strict=False):
        np.testing.assert_allclose(new.log_probability, old.log_probability, rtol=1e-6)
        np.testing.assert_array_equal(new.rank, old.rank)
        np.testing.assert_allclose(new.states, old.states, atol=2e-3)
    with pytest.raises(AssertionError, match="read again"):
        Kept(tiny("llama", seed=7), path=tmp_path / "kept.sqlite")(TEXTS, 16)  # another model's
    assert TEXTS[0].encode() not in (tmp_path / "kept.sqlite").read_bytes()


def test_a_whole_that_is_kept_serves_its_beginning(model, tmp_path, monkeypatch):
    kept = Kept(model, path=tmp_path / "kept.sqlite")
    (whole,) = kept(TEXTS[:1])
    from intarsia.detection.statistics import kept as module

    monkeypatch.setattr(module, "token_statistics", lambda *_, **__: pytest.fail("read again"))
    (first,) = kept(TEXTS[:1], 10)
    np.testing.assert_allclose(first.log_probability, whole.log_probability[:10], rtol=1e-6)
