"""The durable graph: ids for good, whole batches or nothing, held-out facts, and what a kill leaves behind."""

from __future__ import annotations

import errno
import os
import signal
import sqlite3
import subprocess
import sys
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from intarsia.data import Fact, FactSnapshot
from intarsia.errors import IntarsiaError
from intarsia.knowledge import GrowConfig, KnowledgeGraph, grow, kernels
from intarsia.knowledge.graph.growing import GrowingGraph
from intarsia.knowledge.store import Added
from intarsia.knowledge.store import store as store_module
from intarsia.knowledge.store.database import PART, get_blob, put_blob, transaction
from intarsia.knowledge.store.names import near_names
from intarsia.knowledge.store.place import place_of
from intarsia.models.saved import Saved
from intarsia.progress import listening
from tests.failing import fails

ROOT = Path(__file__).parent.parent


def chain(first: int, last: int) -> list[Fact]:
    """Facts whose names are in no order of the alphabet."""
    return [Fact(f"n{i * 7 % 100}", f"r{i % 2}", f"n{(i + 1) * 7 % 100}") for i in range(first, last)]


def dense(first: int, last: int) -> list[Fact]:
    """Facts over few entities, so that many may be held out."""
    return [Fact(f"a{i % 8}", f"r{i % 3}", f"b{i // 8}") for i in range(first, last)]


@pytest.fixture
def graph(tmp_path) -> KnowledgeGraph:
    return KnowledgeGraph.open(tmp_path / "graph")


@pytest.fixture(autouse=True)
def nothing_to_compile(monkeypatch):
    monkeypatch.setattr(kernels, "_fast", lambda tensor: None)


def again(graph: KnowledgeGraph) -> KnowledgeGraph:
    """The same folder, as another process would see it."""
    return KnowledgeGraph.open(graph.path)


def same(one: GrowingGraph, two: GrowingGraph) -> bool:
    def plain(graph: GrowingGraph):
        parts = [
            (s.name, s.entities, s.relations, s.train.tolist(), s.valid.tolist(), s.test.tolist())
            for s in graph.snapshots
        ]
        return graph.entities, graph.relations, graph.descriptions, parts

    return plain(one) == plain(two)


def saved(value: float, rows: int = 3) -> Saved:
    return Saved({"entities": torch.full((rows, 2), value), "relations": torch.zeros(2, 2)}, {"scorer": "complex"})


def breaking(facts: list[Fact], error: type[BaseException] = RuntimeError):
    yield from facts
    raise error("broken")


# ---- ids


def test_ids_stay_over_growth_and_reopening(graph):
    graph.add(chain(0, 20))
    graph.close_snapshot()
    entities, relations = graph.names.entities(), graph.names.relations()
    graph.close()
    other = again(graph)
    assert (other.names.entities(), other.names.relations()) == (entities, relations)
    other.add([Fact("a", "first", "n0"), *chain(15, 30)])
    other.close_snapshot()
    grown = again(graph)
    assert (
        grown.names.entities()[: len(entities)] == entities and grown.names.relations()[: len(relations)] == relations
    )
    assert grown.names.entity("a") == len(entities) and grown.names.relation("first") == len(relations)


def test_names_are_in_the_order_of_their_ids_after_reopening(graph):
    graph.add([Fact("zebra", "zooms", "yak"), Fact("ant", "adores", "zebra"), Fact("bee", "zooms", "ant")])
    graph.close()
    names = again(graph).names
    assert names.entities() == ["zebra", "yak", "ant", "bee"] and names.relations() == ["zooms", "adores"]
    assert [names.entity(name) for name in names.entities()] == [0, 1, 2, 3]


def test_a_stored_graph_is_the_graph_of_its_facts(graph):
    snapshots = [
        FactSnapshot("one", chain(0, 20), chain(20, 23), chain(23, 26), {"n0": "the first"}),
        FactSnapshot("two", [Fact("x", "r9", "n0")], test=[Fact("n0", "r9", "y")], descriptions={"y": "the last"}),
        FactSnapshot("three", chain(30, 31)),
    ]
    assert graph.append(snapshots) == Added(29, 0)
    wanted = GrowingGraph.of(snapshots)
    assert same(graph.growing(), wanted) and same(again(graph).growing(), wanted)


def test_facts_stay_in_the_order_of_arrival_also_after_known_ones(graph):
    facts = chain(0, 12)
    graph.add(facts[:2])
    graph.add([*facts[:2], *facts[8:6:-1]])
    graph.add([*facts[:2], *facts[2:5], facts[8]])
    graph.add(facts[5:7])
    graph.close_snapshot()
    wanted = [*facts[:2], *facts[8:6:-1], *facts[2:7]]
    assert same(again(graph).growing(), GrowingGraph.of([FactSnapshot("0", wanted)]))


def test_known_facts_are_counted_and_passed_over(graph):
    assert graph.add(chain(0, 6)) == Added(6, 0)
    assert graph.add([*chain(3, 8), *chain(6, 9)]) == Added(3, 5)
    graph.close_snapshot()
    assert graph.add(chain(0, 4), split="test") == Added(0, 4)
    assert graph.close_snapshot() is None
    assert [stage.facts for stage in again(graph).stages()] == [9]


# ---- whole batches or nothing


def test_batches_are_durable_while_others_are_still_to_come(graph, monkeypatch):
    monkeypatch.setattr(store_module, "BATCH", 5)
    seen = []

    def watched():
        for i, fact in enumerate(chain(0, 17)):
            if i % 5 == 0 and i:
                seen.append(again(graph).stages()[0].facts)
            yield fact

    graph.add(watched())
    assert seen == [0, 5, 10] or seen == [5, 10, 15]
    assert again(graph).stages()[0].facts == 17


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_facts_before_an_error_stay_in_whole_batches(graph, monkeypatch, error):
    monkeypatch.setattr(store_module, "BATCH", 5)
    with pytest.raises(error):
        graph.add(breaking(chain(0, 13), error))
    for one in (graph, again(graph)):
        assert one.stages()[0].facts == 10 and one.stages()[0].open
        assert len(one.names.entities()) == 11
    assert graph.add(chain(0, 15)) == Added(5, 10)
    graph.close_snapshot()
    assert same(again(graph).growing(), GrowingGraph.of([FactSnapshot("0", chain(0, 15))]))


def test_names_of_a_batch_that_failed_can_be_used_again(graph, monkeypatch):
    graph.add(chain(0, 3))
    with pytest.raises(sqlite3.IntegrityError):
        graph.add([*chain(3, 6), Fact("new", "r0", None)])
    assert graph.names.entities() == again(graph).names.entities() and len(graph.names.entities()) == 4
    graph.add([Fact("new", "fresh", "n0"), *chain(3, 6)])
    graph.close_snapshot()
    wanted = [*chain(0, 3), Fact("new", "fresh", "n0"), *chain(3, 6)]
    assert same(again(graph).growing(), GrowingGraph.of([FactSnapshot("0", wanted)]))


def test_a_snapshot_is_appended_whole_or_not_at_all(graph, monkeypatch):
    insert = KnowledgeGraph._insert

    def broken(self, facts, index, split):
        added = insert(self, facts, index, split)
        if index == 1 and split == 1:
            raise RuntimeError("broken")
        return added

    snapshots = [
        FactSnapshot("a", chain(0, 5)),
        FactSnapshot("b", chain(5, 9), chain(9, 11)),
        FactSnapshot("c", chain(11, 12)),
    ]
    monkeypatch.setattr(KnowledgeGraph, "_insert", broken)
    with pytest.raises(RuntimeError):
        graph.append(snapshots)
    assert [stage.name for stage in again(graph).stages()] == ["a"]
    assert graph.names.entities() == again(graph).names.entities() and len(graph.names.entities()) == 6
    monkeypatch.undo()
    assert graph.append(snapshots) == Added(7, 0)  # the same call again goes on
    assert same(again(graph).growing(), GrowingGraph.of(snapshots))


def test_snapshots_that_fail_to_come_leave_those_before(graph):
    def coming():
        yield FactSnapshot("a", chain(0, 5))
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError):
        graph.append(coming())
    assert [(s.name, s.facts, s.open) for s in again(graph).stages()] == [("a", 5, False)]


def test_snapshots_of_another_graph_are_refused(graph):
    graph.append([FactSnapshot("a", chain(0, 5)), FactSnapshot("b", chain(5, 9))])
    fails(lambda: graph.append([FactSnapshot("a", []), FactSnapshot("c", [])]), "snapshot 1 is 'b', not 'c'")
    more = [FactSnapshot("b", chain(20, 30)), FactSnapshot("c", chain(9, 12))]
    assert graph.append(more, more=True) == Added(3, 0)
    assert [stage.name for stage in graph.stages()] == ["a", "b", "c"]


def test_a_full_disk_is_told_in_one_line(graph):
    graph.create()

    def full():
        with transaction(graph.connection):
            graph.connection.execute("INSERT INTO meta VALUES ('x', '1')")
            raise sqlite3.OperationalError("database or disk is full")

    fails(full, "the disk is full: nothing of this step was kept", error=IntarsiaError)
    assert graph.note("x") is None


# ---- snapshots


def test_closing(graph):
    graph.create()
    assert graph.close_snapshot() is None
    graph.add([])
    assert graph.close_snapshot() is None and graph.stages() == []
    for name in (None, "spring", "spring", "spring"):
        have = len(graph.stages())
        graph.add(chain(5 * have, 5 * have + 5))
        assert graph.stages()[-1].open and graph.close_snapshot(name) == have
    assert [stage.name for stage in again(graph).stages()] == ["0", "spring", "spring-2", "spring-3"]
    assert [snapshot.entities for snapshot in graph.growing().snapshots] == [6, 11, 16, 21]


def test_an_open_snapshot_is_not_in_the_arrays(graph):
    graph.add(chain(0, 5))
    graph.close_snapshot()
    graph.add(chain(5, 9))
    assert len(graph.growing()) == 1 and len(graph.growing().facts(0)) == 5
    assert graph.growing().snapshots[0].entities == 6


def test_descriptions(graph):
    graph.add(chain(0, 3), about={"n7": "seven", "nobody": "is not there"})
    graph.close_snapshot()
    assert again(graph).growing().descriptions == {"n7": "seven"}


# ---- what was learned


@pytest.fixture
def learned(graph) -> KnowledgeGraph:
    """Three snapshots, two of them learned."""
    graph.append([FactSnapshot(name, chain(5 * i, 5 * i + 5)) for i, name in enumerate("abc")])
    for i in range(2):
        graph.keep(i, saved(float(i)), {"mrr": i})
    return graph


def test_what_was_learned_comes_back(learned):
    for graph in (learned, again(learned)):
        assert graph.learned == 2 and [stage.result for stage in graph.stages()] == [{"mrr": 0}, {"mrr": 1}, None]
        assert graph.state().tensors["entities"].tolist() == [[1.0, 1.0]] * 3
        assert graph.state(0).tensors["entities"].tolist() == [[0.0, 0.0]] * 3
        assert graph.state(0).note == {"scorer": "complex"}
    fails(lambda: learned.state(2), "no vectors of snapshot 2; vectors are kept of: 0, 1")


def test_a_crash_while_keeping_leaves_the_last_complete_snapshot(learned, monkeypatch):
    def half(connection, snapshot, data):
        put_blob(connection, snapshot, data[: len(data) // 2])
        raise RuntimeError("crash")

    monkeypatch.setattr(store_module, "put_blob", half)
    for index in (2, 1):  # a new one, and one that is there
        with pytest.raises(RuntimeError):
            learned.keep(index, saved(9.0), {"mrr": 9}, history=1)
        for graph in (learned, again(learned)):
            assert graph.learned == 2 and [stage.result for stage in graph.stages()] == [{"mrr": 0}, {"mrr": 1}, None]
            assert graph.state().tensors["entities"].tolist() == [[1.0, 1.0]] * 3 and graph.state(0) is not None


def test_history_keeps_the_last_vectors_and_all_results(learned):
    learned.keep(2, saved(2.0), {"mrr": 2}, history=2)
    assert learned.learned == 3 and [stage.result["mrr"] for stage in learned.stages()] == [0, 1, 2]
    assert [learned.state(i).tensors["entities"][0, 0].item() for i in (1, 2)] == [1.0, 2.0]
    fails(lambda: learned.state(0), "no vectors of snapshot 0; vectors are kept of: 1, 2")
    learned.keep(2, saved(3.0), {"mrr": 3}, history=1)
    fails(lambda: learned.state(1), "vectors are kept of: 2")


def test_forgetting_from_a_snapshot_on(learned):
    learned.keep(2, saved(2.0), {"mrr": 2})
    learned.forget(since=1)
    assert learned.learned == 1 and again(learned).state().tensors["entities"][0, 0] == 0.0
    assert [stage.facts for stage in learned.stages()] == [5, 5, 5]
    learned.forget()
    assert learned.learned == 0
    fails(learned.state, "nothing is learned yet", "intarsia knowledge grow")


def test_large_vectors_lie_in_parts(graph, monkeypatch):
    graph.create()
    monkeypatch.setattr("intarsia.knowledge.store.database.PART", 1000)
    data = np.random.default_rng(0).bytes(4321)
    with transaction(graph.connection):
        put_blob(graph.connection, 0, data)
    assert get_blob(graph.connection, 0) == data and get_blob(graph.connection, 1) is None
    assert graph.connection.execute("SELECT COUNT(*) FROM learned").fetchone() == (5,)
    with transaction(graph.connection):
        put_blob(graph.connection, 0, data[:10])
    assert get_blob(graph.connection, 0) == data[:10] and PART > 1000


def test_notes(graph):
    graph.create()
    assert graph.note("source") is None and graph.note("source", "none") == "none"
    graph.set_note("source", {"a": [1, None]})
    graph.set_note("other", 1)
    graph.set_note("other", 2)
    assert again(graph).note("source") == {"a": [1, None]} and again(graph).note("other") == 2


# ---- held-out facts


def divided(graph: KnowledgeGraph, index: int = -1) -> list[list[tuple[int, ...]]]:
    snapshot = graph.growing().snapshots[index]
    return [list(map(tuple, part.tolist())) for part in (snapshot.train, snapshot.valid, snapshot.test)]


def test_what_is_held_out_was_learned_of_in_other_facts(graph):
    graph.add([*dense(0, 40), Fact("lonely", "r0", "a0"), Fact("a0", "rare", "a1"), Fact("self", "r0", "self")])
    graph.close_snapshot(hold_out=0.5)
    graph.add([*dense(40, 48), Fact("late", "r1", "b0")])
    graph.close_snapshot(hold_out=0.5)
    for index in range(2):
        train, valid, test = divided(graph, index)
        facts = [fact for i in range(index + 1) for fact in divided(graph, i)[0]]
        entities, relations = {e for h, _, t in facts for e in (h, t)}, {r for _, r, _ in facts}
        assert valid and test and len(valid) - len(test) in (0, 1)
        assert all({h, t} <= entities and r in relations for h, r, t in valid + test)
        names = graph.names.entities()
        assert {"lonely", "self"} & {names[h] for h, *_ in train} or index
        everything = Counter(train + valid + test)
        assert set(everything.values()) == {1} and len(everything) == (43, 9)[index]


def test_the_share_that_is_held_out(graph):
    graph.add(dense(0, 60))
    graph.close_snapshot(hold_out=0.1)
    assert [len(part) for part in divided(graph)] == [54, 3, 3]
    graph.add(chain(0, 10))  # each entity but two has two facts: few can be spared
    graph.close_snapshot(hold_out=0.5)
    train, valid, test = divided(graph)
    assert 1 <= len(valid) + len(test) < 5 and len(train) + len(valid) + len(test) == 10


def test_holding_out_goes_by_the_seed(tmp_path):
    found = []
    for i, seed in enumerate((0, 0, 1)):
        graph = KnowledgeGraph.open(tmp_path / str(i))
        graph.add(dense(0, 60))
        graph.close_snapshot(hold_out=0.2, seed=seed)
        found.append(divided(graph))
    assert found[0] == found[1] != found[2]


def test_what_somebody_divided_stays_so(graph):
    graph.append([FactSnapshot("a", dense(0, 30), test=dense(30, 32)), FactSnapshot("b", dense(32, 60))], hold_out=0.25)
    assert [len(part) for part in divided(graph, 0)] == [30, 0, 2]
    assert [len(part) for part in divided(graph, 1)] == [21, 4, 3]
    graph.add(dense(60, 80))
    graph.add(dense(80, 82), split="valid")
    graph.close_snapshot(hold_out=0.25)
    assert [len(part) for part in divided(graph, 2)] == [20, 2, 0]


# ---- files that are no graphs


def test_a_file_of_another_kind_is_refused_and_left_as_it_is(tmp_path):
    file = tmp_path / "graph.sqlite"
    file.write_bytes(b"by no means a database" * 100)
    fails(KnowledgeGraph(tmp_path).stages, "not a graph that Intarsia made")
    assert file.read_bytes() == b"by no means a database" * 100
    file.unlink()
    for statement in ("CREATE TABLE songs (title TEXT)", "CREATE TABLE meta (key TEXT, value TEXT)"):
        with sqlite3.connect(file) as other:
            other.execute(statement)
        other.close()
        fails(KnowledgeGraph(tmp_path).stages, "not a graph that Intarsia made")
        with sqlite3.connect(file) as other:
            assert {name for (name,) in other.execute("SELECT name FROM sqlite_master")} <= {"songs", "meta"}
        other.close()


def test_another_layout_is_refused(graph):
    graph.add(chain(0, 3))
    with transaction(graph.connection):
        graph.connection.execute("UPDATE meta SET value = '99' WHERE key = 'version'")
    graph.close()
    fails(again(graph).stages, "layout 99, this version reads 1")


def test_a_graph_that_is_not_there(tmp_path):
    graph = KnowledgeGraph.open(tmp_path / "nowhere")
    assert not graph.exists
    fails(graph.stages, "nowhere: no graph there", "intarsia knowledge grow FACTS")
    fails(lambda: grow(graph, GrowConfig(**GROWN)), "nowhere")
    assert not graph.path.exists()
    (tmp_path / "file").write_text("")
    fails(KnowledgeGraph(tmp_path / "file").create, "is a file; a graph is a folder")


def test_a_graph_in_a_folder_that_cannot_be_written_to_can_be_read(graph, monkeypatch):
    graph.add(chain(0, 5))
    graph.close()
    monkeypatch.setattr("intarsia.knowledge.store.database.os.access", lambda *given: False)
    reader = again(graph)
    assert reader.stages()[0].facts == 5
    fails(lambda: reader.add(chain(5, 7)), "cannot be written to")

    def denied(*given, **more):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("pathlib.Path.mkdir", denied)
    fails(KnowledgeGraph(graph.path / "new").create, "new: cannot be written to (Permission denied)")
    monkeypatch.setattr("filelock.FileLock.acquire", denied)
    fails(lambda: reader.writing().__enter__(), "cannot be written to (Permission denied)")


def test_readers_need_not_wait_for_a_writer(graph):
    graph.add(chain(0, 5))
    with transaction(graph.connection):
        graph.connection.execute("DELETE FROM facts")
        assert again(graph).stages()[0].facts == 5
    assert again(graph).stages()[0].facts == 0


def test_one_process_writes_at_a_time(graph):
    graph.add(chain(0, 3))
    code = (
        "import sys; from intarsia.errors import BadInput; from intarsia.knowledge.store import KnowledgeGraph\n"
        "try:\n    with KnowledgeGraph(sys.argv[1]).writing(): print('in')\n"
        "except BadInput as error: print(error)"
    )
    with graph.writing():
        done = subprocess.run([sys.executable, "-c", code, graph.path], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"{graph.path}: another process is growing this graph; wait for it"
    with again(graph).writing():
        pass


# ---- names and places


def test_near_names():
    known = {name: i for i, name in enumerate(["json.loads", "json.load", "JSON", "New York City", "York", "os.path"])}
    assert near_names("json", known)[0] == "JSON"
    assert near_names("JSON.Loads", known)[:1] == ["json.loads"]
    assert near_names("york", known)[:2] == ["York", "New York City"]
    assert near_names("city new", known)[0] == "New York City"
    assert "json.load" in near_names("jsn.load", known)
    assert near_names("completely different", known) == [] and len(near_names("o", known, 2)) <= 2


def test_unknown_names_are_told_with_near_ones(graph):
    graph.add([Fact("Rembrandt", "painted", "The Night Watch"), Fact("Vermeer", "born_in", "Delft")])
    fails(lambda: graph.names.entity("rembrandt"), "no entity 'rembrandt'; near: Rembrandt")
    fails(lambda: graph.names.entity("Rembrant"), "near: Rembrandt")
    fails(lambda: graph.names.entity("qqqqqq"), "no entity 'qqqqqq'")
    fails(lambda: graph.names.relation("paint"), "no relation 'paint'; there are: painted, born_in")
    assert graph.names.entity("Delft") == 3 and graph.names.relation("born_in") == 1


def test_where_a_graph_lies(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runs = Path("runs")
    for name in ("facts.tsv", "facts.jsonl.gz", "some.facts.tar.gz", "world.zip"):
        (tmp_path / name).write_text("")
    (tmp_path / "empty").mkdir()
    (tmp_path / "folder" / "0").mkdir(parents=True)
    KnowledgeGraph.open(tmp_path / "made").add(chain(0, 2))
    assert place_of("made") == (Path("made"), None)
    assert place_of("python") == (runs / "python", "python")
    assert place_of("facts.tsv") == (runs / "facts", Path("facts.tsv"))
    assert place_of("facts.jsonl.gz") == (runs / "facts", Path("facts.jsonl.gz"))
    assert place_of("some.facts.tar.gz") == (runs / "some.facts", Path("some.facts.tar.gz"))
    assert place_of("world.zip") == (runs / "world", Path("world.zip"))
    assert place_of("folder") == (runs / "folder", Path("folder"))
    assert place_of("empty") == (Path("empty"), None) and place_of("new/one") == (Path("new/one"), None)
    KnowledgeGraph("python").add(chain(0, 2))  # a folder with a graph goes before a known name
    assert place_of("python") == (Path("python"), None)


# ---- killed


GROWN = {"width": 8, "scorer": "complex", "epochs": 8}
KILLED = f"""
import os, signal, sys
from intarsia.knowledge import GrowConfig, KnowledgeGraph, grow, kernels
from intarsia.knowledge.learning import learner
from intarsia.progress import listening

kernels._fast = lambda tensor: None  # nothing to compile
learner.SAVE_EVERY = 0.0

def end(event):
    if event.task == "learning b" and event.done == 5:
        os.kill(os.getpid(), signal.SIGKILL)

with listening(end):
    grow(KnowledgeGraph.open(sys.argv[1]), GrowConfig(**{GROWN}))
"""


def grown_again(killed: KnowledgeGraph, begun: int) -> str:
    """Grow a graph that was stopped; it must come out as one that never was. Gives what it said."""
    whole = KnowledgeGraph.open(killed.path.with_name("whole"))
    whole.append(SNAPSHOTS)
    grow(whole, GrowConfig(**GROWN))
    assert killed.learned == begun and same(killed.growing(), whole.growing())
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always")
        assert grow(killed, GrowConfig(**GROWN)).grown == 2 - begun
    for i in range(2):
        one, two = whole.state(i), killed.state(i)
        assert all(
            torch.allclose(one.tensors[name], two.tensors[name], atol=1e-5) for name in ("entities", "relations")
        )
        assert one.note["temperature"] == two.note["temperature"]
    assert killed.learned == 2 and not list(killed.path.glob("*training*"))
    return " ".join(str(note.message) for note in notes)


SNAPSHOTS = [FactSnapshot("a", dense(0, 60), dense(60, 66)), FactSnapshot("b", dense(66, 100), dense(100, 104))]


def test_a_graph_that_was_killed_while_it_grew_goes_on(graph):
    graph.append(SNAPSHOTS)
    graph.close()
    command = [sys.executable, "-c", KILLED, graph.path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert "going on at epoch 4, where it was stopped" in grown_again(again(graph), begun=1)


def test_a_graph_that_was_stopped_before_anything_was_saved_begins_again(graph):
    def end(event):
        if event.task == "learning a":
            raise KeyboardInterrupt

    graph.append(SNAPSHOTS)
    with pytest.raises(KeyboardInterrupt), listening(end):
        grow(graph, GrowConfig(**GROWN))
    assert "going on" not in grown_again(again(graph), begun=0)


def test_a_snapshot_that_brings_nothing_new_changes_no_vector(graph):
    graph.append([*SNAPSHOTS, FactSnapshot("known", dense(0, 5)), FactSnapshot("empty")])
    found = grow(graph, GrowConfig(**GROWN))
    assert found.grown == 4 and [row.facts for row in found.results] == [60, 34, 0, 0]
    assert torch.equal(graph.state(1).tensors["entities"], graph.state(3).tensors["entities"])
