"""What the methods are worth on WORLD, a small real graph, and the default on a corner of the installed Python."""

from __future__ import annotations

from pathlib import Path

import pytest

from intarsia.data import read_snapshots, shared_data
from intarsia.knowledge import KnowledgeGraph, ask, compare, grow, retrieve

needs_world = pytest.mark.skipif(shared_data("lkge") is None, reason="INTARSIA_DATA has no lkge")


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> KnowledgeGraph:
    graph = KnowledgeGraph(tmp_path_factory.mktemp("real") / "world")
    graph.append(read_snapshots(shared_data("lkge") / "WORLD.tar.xz"))
    return graph


@pytest.mark.real
@needs_world
def test_the_default_answers_held_out_facts_better_than_lkge_and_finetuning(world):
    small = {"learning_rate": 1e-3, "batch_size": 256, "patience": 10}
    default = compare(world, methods=["distil"], sample=200).courses[0]
    others = compare(world, methods=["lkge", "finetune"], sample=200, epochs=60, **small)
    for evaluator in ("old", "all"):
        mine = default.overall(evaluator).mrr
        assert mine > 0.25
        assert mine > max(course.overall(evaluator).mrr for course in others.courses) + 0.02
    lkge, finetune = (others.of(name)[0] for name in ("lkge", "finetune"))
    assert lkge.forgetting()[0] < finetune.forgetting()[0]


@pytest.mark.real
@needs_world
def test_a_grown_world_can_be_asked(world):
    found = grow(world, width=64)
    assert found.results[-1].overall("all").mrr > 0.2 and len(found.answered) == 10
    asked = ask(world, head="triple_frontier.n.01", relation="part_of")
    assert {row.name for row in asked.answers if row.known} >= {"paraguay.n.01", "brazil.n.01"}
    near = retrieve(world, text="Which rivers flow through Brazil and Peru?")
    assert [row.entity for row in near.linked] == ["brazil.n.01", "peru.n.01"]
    assert any("amazon.n.03" in (row.head, row.tail) for row in near.facts)


@pytest.mark.slow
def test_the_installed_python_is_learned_and_asked(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = grow(KnowledgeGraph.open("python"))
    assert len(found.results) >= 5 and found.results[-1].overall("old").mrr > 0.25
    assert any(row.rank == 1 for row in found.answered)
