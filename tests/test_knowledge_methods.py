"""Every way to learn runs in the one loop, resumes to the same bits, and keeps what it promises to keep."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest
import torch

from intarsia.errors import BadInput
from intarsia.knowledge import METHODS, SCORERS, GrowingGraph, Learner
from intarsia.knowledge.grow import Method as Growable
from intarsia.knowledge.learning import learner as learning
from intarsia.knowledge.methods import method_called
from intarsia.models.saved import Saved
from tests.knowledge_help import small_graph

EPOCHS = 4


def made(name: str, graph: GrowingGraph, seed: int = 3, **given) -> Learner:
    method = method_called(name)
    scorer = "complex" if method.settings.scorer == "auto" else method.settings.scorer
    settings = method.defaults().with_(**{"scorer": scorer, "width": 8, "epochs": EPOCHS, "batch_size": 16, **given})
    return Learner(graph, method, settings, seed=seed)


def learned(learner: Learner) -> Learner:
    for _ in range(len(learner.graph) - len(learner.results)):
        learner.take()
    return learner


def same(a: Learner, b: Learner) -> bool:
    assert a.tables is not None and b.tables is not None
    return torch.equal(a.tables.entities, b.tables.entities) and torch.equal(a.tables.relations, b.tables.relations)


def figures(learner: Learner) -> list:
    timed = {"seconds", "cpu_seconds", "validating", "validating_cpu"}
    return [result.model_dump(exclude=timed) for result in learner.results]


@pytest.mark.parametrize("name", METHODS)
def test_a_method_learns_every_snapshot_and_answers_every_test_so_far(name: str):
    learner = learned(made(name, small_graph()))
    for i, result in enumerate(learner.results):
        assert len(result.tests) == i + 1
        assert all(0 < test["all"].mrr <= test["old"].mrr <= 1 for test in result.tests)
        assert result.tests[i]["all"] == result.tests[i]["old"]
    assert learner.tables is not None
    assert len(learner.tables.entities) == 30 and torch.isfinite(learner.tables.entities).all()


@pytest.mark.parametrize("name", METHODS)
def test_the_same_seed_gives_the_same_vectors_and_another_seed_others(name: str):
    graph = small_graph(snapshots=2)
    first = learned(made(name, graph))
    assert same(first, learned(made(name, graph)))
    assert not same(first, learned(made(name, graph, seed=4)))


@pytest.mark.parametrize("name", METHODS)
def test_after_a_stop_between_snapshots_it_goes_on_as_if_there_had_been_none(name: str):
    graph = small_graph()
    whole = learned(made(name, graph))
    stopped = made(name, graph)
    stopped.take()
    later = made(name, graph)
    later.restore(Saved.from_bytes(stopped.state().to_bytes()))
    assert same(learned(later), whole) and figures(later) == figures(whole)


@pytest.mark.parametrize("name", METHODS)
def test_snapshots_that_have_nothing_to_learn(name: str):
    graph = small_graph()
    bare = tuple(replace(graph.snapshots[i], train=graph.snapshots[i].train[:0]) for i in (0, 1))
    learner = learned(made(name, replace(graph, snapshots=(*bare, graph.snapshots[2]))))
    assert len(learner.results) == 3 and learner.results[0].facts == 0


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("at", [0, 1])
def test_after_a_stop_in_the_middle_it_goes_on_as_if_there_had_been_none(name: str, at: int, monkeypatch):
    if at and not METHODS[name].relearns:
        pytest.skip("nothing is learned after the first snapshot")
    monkeypatch.setattr(learning, "SAVE_EVERY", -1)
    graph = small_graph(snapshots=2)
    whole = learned(made(name, graph, patience=50))
    stopped, kept = made(name, graph, patience=50), []
    for _ in range(at):
        stopped.take()

    def save(saved: Saved) -> None:
        kept.append(saved.to_bytes())
        if len(kept) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped.take(save=save)
    later = made(name, graph, patience=50)
    if at:
        first = made(name, graph, patience=50)
        first.take()
        later.restore(Saved.from_bytes(first.state().to_bytes()))
    later.take(interrupted=Saved.from_bytes(kept[-1]))
    assert same(learned(later), whole) and figures(later) == figures(whole)


def test_a_checkpoint_of_another_snapshot_is_refused():
    graph, kept = small_graph(snapshots=2), []
    learner = made("finetune", graph)
    learning_save, learning.SAVE_EVERY = learning.SAVE_EVERY, -1
    try:
        learner.take(save=kept.append)
    finally:
        learning.SAVE_EVERY = learning_save
    with pytest.raises(BadInput, match="belongs to snapshot 0"):
        learner.take(interrupted=kept[0])


@pytest.mark.parametrize("name", ["pnn", "fastkge"])
def test_frozen_rows_stay_to_the_bit_so_nothing_drifts(name: str):
    learner = made(name, small_graph())
    before = None
    for _ in range(3):
        learner.take()
        assert learner.tables is not None
        now = learner.tables.copy()
        if before is not None:
            assert torch.equal(now.entities[: len(before.entities)], before.entities)
            assert torch.equal(now.relations[: len(before.relations)], before.relations)
        before = now
    assert [r["old"].mrr for r in learner.results[2].tests[:2]] == [
        learner.results[j].tests[j]["old"].mrr for j in range(2)
    ]


@pytest.mark.parametrize("name", ["mean", "lan"])
def test_inductive_methods_learn_nothing_after_the_first_snapshot(name: str):
    learner = learned(made(name, small_graph()))
    assert [result.epochs > 0 for result in learner.results] == [True, False, False]


@pytest.mark.parametrize("name", ["mean", "lan", "si"])
def test_what_is_carried_on_is_of_the_best_epoch(name: str, monkeypatch):
    """The encoder of MEAN and LAN, the way to the vectors of SI."""
    graph, rising = small_graph(snapshots=1), [0.1, 0.3, 0.2, 0.2, 0.2]

    def validate(learner, growing, course):
        course.result.curve.append((course.epoch, rising[course.epoch - 1]))
        return course.epoch < 3

    monkeypatch.setattr(Learner, "_validate", validate)
    longer, shorter = (learned(made(name, graph, epochs=epochs, learning_rate=0.1)) for epochs in (5, 2))
    assert same(longer, shorter)
    assert longer.results[0].tests == shorter.results[0].tests
    for one, other in zip(longer.parts, shorter.parts, strict=True):
        torch.testing.assert_close(one.state, other.state, rtol=0, atol=0)


def test_retraining_starts_afresh_and_learns_all_facts():
    results = learned(made("retrain", small_graph())).results
    assert [result.facts for result in results] == [20, 40, 60]
    assert [result.facts for result in learned(made("snapshot", small_graph())).results] == [20, 20, 20]


def test_adagrads_sums_go_on_with_the_rows():
    graph = small_graph(snapshots=2)
    learner = made("distil", graph)
    learner.take()
    first = [sums.clone() for sums in learner.squares]
    learner.take()
    assert [len(sums) for sums in learner.squares] == [20, 8]
    for before, now in zip(first, learner.squares, strict=True):
        assert (now[: len(before)] >= before).all()


@pytest.mark.parametrize("scorer", SCORERS)
@pytest.mark.parametrize("loss", ["margin", "self-adversarial", "softmax"])
def test_every_scorer_learns_by_every_loss(scorer: str, loss: str):
    graph = small_graph(snapshots=1, train=60)
    facts = torch.from_numpy(graph.snapshots[0].train)

    def reciprocal_rank(epochs: int, rate: float) -> float:
        given = {"scorer": scorer, "loss": loss, "epochs": epochs, "learning_rate": rate, "patience": 50, "margin": 2}
        learner = made("finetune", graph, **given)
        learner.take()
        assert learner.tables is not None
        e, r, s = learner.tables.entities.detach(), learner.tables.relations.detach(), learner.scorer
        queries = s.ask(s.place(e[facts[:, 0]]), r[2 * facts[:, 1]]).contiguous()
        scores = s.similarity.pairs(queries, s.place(e).contiguous())
        better = (scores > scores.gather(1, facts[:, 2:])).sum(1)
        return float((1 / (1 + better)).mean())

    assert reciprocal_rank(20, 0.1) > reciprocal_rank(1, 1e-12) + 0.1


def test_a_rate_that_is_far_too_large_is_told_of():
    with pytest.raises(BadInput, match="smaller learning_rate"):
        learned(made("finetune", small_graph(), loss="softmax", scorer="complex", learning_rate=1e30))


def test_methods_of_the_command_are_those_whose_vectors_answer():
    assert set(get_args(Growable)) == set(METHODS) - {"lan"}


def test_unknown_methods_options_and_widths_are_told_of():
    with pytest.raises(BadInput, match="no method 'distill' \\(did you mean distil"):
        method_called("distill")
    with pytest.raises(BadInput, match="has no option 'alpa'"):
        method_called("lkge").defaults().tuned({"alpa": 1.0}, "lkge")
    with pytest.raises(BadInput, match="even width"):
        made("finetune", small_graph(), scorer="rotate", width=7)
