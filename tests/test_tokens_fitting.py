"""The training loop: what learns, what stays, how rows are annealed, and a stop that changes nothing."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from intarsia.errors import BadInput, IntarsiaError
from intarsia.sites.dense import dense
from intarsia.sites.recomposing import installed
from intarsia.tokens import merge
from intarsia.tokens.alignment import Alignment
from intarsia.tokens.losses import answering, pairing
from intarsia.tokens.training import annealed, fit
from intarsia.tokens.training.fitting import pace
from tests.sites_help import plain
from tests.tiny import tiny
from tests.tokens_help import no_notes
from tests.training_help import KINDS, config, feed, guided, toy, weights


@pytest.fixture(autouse=True)
def quiet():
    with no_notes():
        yield


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_falls_and_the_merged_state_stays(kind):
    model = merge(tiny(kind), keep=0.6, cross=True)
    plans = {name: o.rule.plan for name, o in installed(model.network).items()}
    task = pairing if kind in ("clip", "siglip") else answering
    found = fit(model.network, toy(kind), task, config(steps=15))
    assert found.task[-1] < 0.9 * found.task[0]
    assert len(found.aligned) == 15
    assert {name: o.rule.plan for name, o in installed(model.network).items()} == plans
    assert not model.network.training and all(p.grad is None for p in model.network.parameters())
    assert installed(model.network)["vision"].rule.offsets.abs().max() > 0


def test_the_same_seed_gives_the_same_weights_and_another_does_not():
    after = []

    def task(network, batch):  # (the tiny networks have no dropout of their own)
        return pairing(network, {**batch, "pixel_values": torch.nn.functional.dropout(batch["pixel_values"])})

    for seed in (0, 0, 1):
        model = merge(tiny("clip"), keep=0.6)
        torch.manual_seed(len(after))  # what was drawn before does not count
        fit(model.network, toy("clip"), task, config(steps=3), seed=seed)
        after.append(torch.cat([p.detach().flatten() for p in model.network.parameters()]))
    assert torch.equal(after[0], after[1]) and not torch.equal(after[0], after[2])


def test_removed_rows_grow_to_the_plan_and_come_back_when_stopped():
    model = merge(tiny("clip"), removed=(5, 4, 2))
    rule = installed(model.network)["vision"].rule
    plan, seen = rule.plan, []

    def task(network, batch):
        seen.append(rule.plan.removed)
        if len(seen) == 8:
            raise KeyboardInterrupt
        return pairing(network, batch).loss

    with pytest.raises(KeyboardInterrupt):
        fit(model.network, toy("clip"), task, config(steps=12, anneal=0.5))
    totals = [sum(removed) for removed in seen]
    assert totals[0] == 0 and totals == sorted(totals) and 0 < totals[3] < 11
    assert seen[6:] == [(5, 4, 2)] * 2
    assert rule.plan is plan and not model.network.training
    assert all(p.requires_grad for p in model.network.parameters())


@pytest.mark.parametrize("kind", ["blip", "llava"])
def test_nothing_removed_yet_means_dense_also_after_a_merged_forward(kind):
    """What reads the tower must not take the rows of the forward before for this one's."""
    model, x = merge(tiny(kind), keep=0.6), feed(kind)
    wanted = plain(tiny(kind), x)
    assert not torch.allclose(plain(model, x), wanted, atol=1e-4)
    with annealed(model.network) as remove:
        remove(0.0)
        torch.testing.assert_close(plain(model, x), wanted)
    assert not torch.allclose(plain(model, x), wanted, atol=1e-4)


def test_shares_of_a_language_model_are_annealed_too():
    model = merge(tiny("llava"), keep=1.0, decoder_keep=0.5)
    rule = installed(model.network)["text"].rule
    share = max(rule.plan.shares)
    with annealed(model.network) as remove:
        remove(0.5)
        assert max(rule.plan.shares) == pytest.approx(share / 2)
    assert max(rule.plan.shares) == share


def test_a_dense_network_gets_the_same_steps():
    model = tiny("clip")
    found = fit(model.network, toy("clip"), pairing, config(steps=10))
    assert found.task[-1] < found.task[0] and not found.aligned


@pytest.mark.parametrize("kind", KINDS)
def test_only_offsets_learn_when_only_they_are_to_and_the_guides_come_nearer(kind):
    model = merge(tiny(kind), keep=0.6, cross=True)
    before = weights(model)
    task = pairing if kind in ("clip", "siglip") else answering
    found = fit(model.network, toy(kind), task, config(steps=10, trains="offsets", anneal=0))
    changed = {name for name, value in weights(model).items() if not torch.equal(value, before[name])}
    assert changed == {name for name in before if name.endswith("offsets")}
    assert found.aligned[-1] < 0.95 * found.aligned[0]


def test_distillation_pulls_back_to_the_dense_model():
    model = merge(tiny("clip"), keep=0.5)
    x = toy("clip")(0)

    def no_task(network, batch):
        outcome = pairing(network, batch)
        return replace(outcome, loss=outcome.loss * 0)

    with torch.no_grad(), dense():
        target = pairing(model.network, x).pooled[0]

    def near():
        with torch.no_grad():
            return torch.cosine_similarity(pairing(model.network, x).pooled[0], target).mean().item()

    before = near()
    found = fit(model.network, lambda step: x, no_task, config(steps=12, distill=1.0, anneal=0))
    assert near() > before and found.distilled[-1] < 0.5 * found.distilled[0]


def test_batches_may_be_an_iterable_that_is_long_enough():
    model = tiny("clip")
    batch = toy("clip")(0)
    assert len(fit(model.network, iter([batch] * 6), pairing, config()).task) == 6
    with pytest.raises(BadInput, match="ended after 2 of 6 steps"):
        fit(model.network, [batch] * 2, pairing, config())


def test_a_training_goes_on_where_it_was_stopped(tmp_path: Path, monkeypatch):
    from intarsia.tokens.training import keeping

    monkeypatch.setattr(keeping, "EVERY", -1.0)
    settings = config(steps=8, distill=0.5, checkpoint=tmp_path / "kept")
    whole = merge(tiny("clip"), keep=0.6, cross=True)
    wanted = fit(whole.network, toy("clip"), pairing, settings.model_copy(update={"checkpoint": None}))

    def stops(network, batch, count=[0]):  # noqa: B006
        count[0] += 1
        if count[0] == 9:  # the teacher is asked as well
            raise KeyboardInterrupt
        return pairing(network, batch)

    first = merge(tiny("clip"), keep=0.6, cross=True)
    with pytest.raises(KeyboardInterrupt):
        fit(first.network, toy("clip"), stops, settings)
    again = merge(tiny("clip"), keep=0.6, cross=True)
    found = fit(again.network, toy("clip"), pairing, settings)
    assert found == wanted
    for name, value in weights(whole).items():
        assert torch.equal(weights(again)[name], value), name
    with pytest.raises(BadInput, match="another training"):
        fit(merge(tiny("clip"), keep=0.6, cross=True).network, toy("clip"), pairing, settings, seed=5)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_text("mine")
    with pytest.raises(BadInput, match="holds no training"):
        elsewhere = settings.model_copy(update={"checkpoint": tmp_path / "other"})
        fit(merge(tiny("clip"), keep=0.6, cross=True).network, toy("clip"), pairing, elsewhere)


def test_a_loss_that_is_no_number_stops_the_training():
    model = tiny("clip")
    with pytest.raises(IntarsiaError, match="is nan at step 1: lower learning_rate"):
        fit(model.network, toy("clip"), lambda n, b: pairing(n, b).loss * math.nan, config())
    assert not model.network.training


def test_the_pace_rises_and_falls():
    paces = [pace(step, 100, 0.1) for step in range(100)]
    assert paces[0] == pytest.approx(0.1) and max(paces) == paces[9] == 1.0
    assert all(a >= b for a, b in itertools.pairwise(paces[9:])) and 0 < paces[-1] < 0.01
    assert pace(0, 1, 0.0) == 1.0


def test_half_precision_and_nothing_to_learn_are_refused():
    half = tiny("clip").network.half()
    with pytest.raises(BadInput, match="float16"):
        fit(half, toy("clip"), pairing, config())
    frozen = tiny("clip").network.requires_grad_(False)
    with pytest.raises(BadInput, match="wants a gradient"):
        fit(frozen, toy("clip"), pairing, config())
    with pytest.raises(BadInput, match="align above 0"):
        fit(guided("clip").network, toy("clip"), pairing, config(trains="offsets", align=0))
    with pytest.raises(BadInput, match="merge it with cross"):
        fit(merge(tiny("clip"), keep=0.6).network, toy("clip"), pairing, config(trains="offsets"))
    with pytest.raises(BadInput, match="merge it with cross"):
        Alignment(tiny("clip").network)
