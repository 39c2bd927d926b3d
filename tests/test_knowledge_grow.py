"""`knowledge.grow`: facts in, learned and kept; stops, bad lines and other settings; `knowledge.compare` beside it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from intarsia.cli import app
from intarsia.data import Fact
from intarsia.errors import BadInput
from intarsia.knowledge import KnowledgeGraph, compare, grow, status
from intarsia.knowledge import growing as work
from intarsia.knowledge.learning import learner as learning

QUICK = {"width": 8, "epochs": 3}
TIMED = {"seconds", "cpu_seconds", "validating", "validating_cpu"}


def circle(count: int, prefix: str = "e") -> list[Fact]:
    """Each is before the next one, and the next one is after it."""
    pairs = [(f"{prefix}{i}", f"{prefix}{(i + 1) % count}") for i in range(count)]
    return [Fact(a, "before", b) for a, b in pairs] + [Fact(b, "after", a) for a, b in pairs]


def write(path: Path, facts: list[Fact]) -> Path:
    path.write_text("".join(f"{f.head}\t{f.relation}\t{f.tail}\n" for f in facts), encoding="utf-8")
    return path


def figures(results: list) -> list:
    return [result.model_dump(exclude=TIMED) for result in results]


@pytest.fixture
def cli(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        code = app.run([str(a) for a in arguments])
        out, errors = capsys.readouterr()
        return code, " ".join(out.split()), " ".join(errors.split())

    return call


def test_a_graph_grows_by_lists_of_facts_and_keeps_what_it_learned(tmp_path: Path):
    graph = KnowledgeGraph.open(tmp_path / "graph")
    graph.add(circle(30))
    first = grow(graph, **QUICK)
    assert (first.added, first.grown, len(first.results)) == (0, 1, 1)
    assert first.summary.startswith("1 snapshot learned; 30 entities")  # they are new, though added before
    assert grow(graph, **QUICK).grown == 0
    second = grow(graph, facts=[*circle(30, "f"), *circle(30)[:4]], name="later", **QUICK)
    assert (second.added, second.known, second.grown) == (60, 4, 1)
    assert [result.name for result in second.results] == ["0", "later"]
    assert figures(second.results[:1]) == figures(first.results)
    assert second.results[1].new_entities == 30
    assert "60 new facts (4 were known)" in second.summary


def test_a_tenth_is_set_aside_and_asked_about(tmp_path: Path):
    graph = KnowledgeGraph(tmp_path / "graph")
    graph.add(circle(40))
    found = grow(graph, hold_out=0.2, **QUICK)
    growing = graph.growing().snapshots[0]
    assert (len(growing.train), len(growing.valid), len(growing.test)) == (64, 8, 8)
    assert len(found.answered) == 8 and all(1 <= row.rank <= 40 for row in found.answered)
    assert all(0 <= chance <= 1 for row in found.answered for chance in row.confidence)


def test_without_facts_aside_everything_is_learned_and_nothing_is_claimed(tmp_path: Path):
    graph = KnowledgeGraph(tmp_path / "graph")
    graph.add(circle(20))
    found = grow(graph, hold_out=0.0, **QUICK)
    assert found.results[0].facts == 40 and found.results[0].tests[0]["all"].count == 0
    assert found.answered == [] and found.headline() == {}
    assert "MRR" not in found.summary
    graph.add(circle(4, "f"))
    assert grow(graph, hold_out=0.0, **QUICK).figures() == []
    graph.add(circle(40, "g"))
    found = grow(graph, hold_out=0.2, **QUICK)
    assert found.figures()[0].series[0].x == ["2"]  # what was not tested has no place in the curve
    compared = compare(graph, methods=["finetune"], **QUICK)
    assert compared.tables()[-1].rows[0][1:3] == [None, None]
    assert [figure.series[0].x for figure in compared.figures()[:2]] == [["2"], ["2"]]


def test_learning_goes_on_where_it_was_stopped_and_gives_the_same(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(learning, "SAVE_EVERY", -1)
    whole, stopped = KnowledgeGraph(tmp_path / "whole"), KnowledgeGraph(tmp_path / "stopped")
    for graph in (whole, stopped):
        graph.add(circle(30))
        grow(graph, **QUICK)
        graph.add(circle(30, "f"))
    expected = grow(whole, **QUICK)
    written = work.Saved.write

    def write_and_stop(saved, path):
        written(saved, path)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(work.Saved, "write", write_and_stop)
        with pytest.raises(KeyboardInterrupt):
            grow(stopped, **QUICK)
    assert stopped.learned == 1 and (stopped.path / work.CHECKPOINT).is_file()
    with pytest.warns(match="going on at epoch 1"):
        again = grow(KnowledgeGraph(stopped.path), **QUICK)
    assert figures(again.results) == figures(expected.results)
    assert not (stopped.path / work.CHECKPOINT).exists()
    a, b = whole.state(), KnowledgeGraph(stopped.path).state()
    assert all((a.tensors[name] == b.tensors[name]).all() for name in a.tensors)


@pytest.mark.parametrize("given", [{"width": 16}, {"scorer": "transe"}, {"method": "lkge"}, {"relearn": True}])
def test_what_a_stop_left_is_not_gone_on_with_under_other_settings(tmp_path: Path, monkeypatch, given):
    monkeypatch.setattr(learning, "SAVE_EVERY", -1)
    graph, fresh = KnowledgeGraph(tmp_path / "graph"), KnowledgeGraph(tmp_path / "fresh")
    for each in (graph, fresh):
        each.add(circle(30))
    written = work.Saved.write

    def write_and_stop(saved, path):
        written(saved, path)
        raise KeyboardInterrupt

    settings = {**QUICK, "scorer": "complex"}
    with monkeypatch.context() as patched:
        patched.setattr(work.Saved, "write", write_and_stop)
        with pytest.raises(KeyboardInterrupt):
            grow(graph, **settings)
    assert (graph.path / work.CHECKPOINT).is_file()
    settings |= given
    assert figures(grow(graph, **settings).results) == figures(grow(fresh, **settings).results)


def test_another_method_or_width_is_refused_unless_all_is_learned_again(tmp_path: Path):
    graph = KnowledgeGraph(tmp_path / "graph")
    graph.add(circle(20))
    grow(graph, **QUICK)
    with pytest.raises(BadInput, match="learned with width 8, not 16"):
        grow(graph, width=16)
    with pytest.raises(BadInput, match=r"learned with method distil, not lkge.*--relearn"):
        grow(graph, method="lkge")
    with pytest.raises(BadInput, match="learned with epochs 3, not 7"):
        grow(graph, facts=circle(4, "f"), epochs=7)
    assert [stage.facts for stage in graph.stages()] == [40]  # nothing was taken in
    with pytest.raises(BadInput, match=r"learned with memory 20000, not 5\.0"):
        grow(graph, options={"memory": 5})
    assert grow(graph, scorer="auto", options={"memory": 20_000}, **QUICK).grown == 0
    found = grow(graph, method="lkge", relearn=True, epochs=2)
    assert (found.method, found.scorer, found.grown) == ("lkge", "transe", 1)


def test_auto_takes_the_scorer_that_does_best_on_held_out_facts(tmp_path: Path):
    graph = KnowledgeGraph(tmp_path / "graph")
    graph.add(circle(60))
    found = grow(graph, width=16, epochs=6, patience=6)
    assert set(found.chosen) == {"complex", "transe"}
    assert found.scorer == max(found.chosen, key=lambda name: found.chosen[name])
    assert found.scorer in found.summary


def test_vectors_of_old_snapshots_answer_as_long_as_they_are_kept(tmp_path: Path):
    graph = KnowledgeGraph(tmp_path / "graph")
    for part in "abc":
        graph.add(circle(12, part))
        grow(graph, history=2, **QUICK)
    assert len(graph.state(1).tensors["entities"]) == 24
    with pytest.raises(BadInput, match="no vectors of snapshot 0"):
        graph.state(0)
    assert len(status(graph).results) == 3


# ---- the command


def test_the_command_makes_a_graph_of_a_file_and_grows_it(cli, tmp_path: Path):
    write(tmp_path / "facts.tsv", circle(30))
    code, out, _ = cli("knowledge", "grow", "facts.tsv", "--width", "8", "--epochs", "2", "--html", "page.html")
    assert code == 0 and "60 new facts" in out and "Questions that were held out" in out
    assert "<svg" in (tmp_path / "page.html").read_text("utf-8") or (tmp_path / "page.html").stat().st_size > 5000
    write(tmp_path / "more.tsv", circle(30, "f"))
    code, out, _ = cli("knowledge", "grow", "runs/facts", "--facts", "more.tsv", "--name", "week-2", "--json")
    assert code == 0 and [row["name"] for row in json.loads(out)["results"]] == ["facts", "week-2"]
    code, out, _ = cli("knowledge", "status", "runs/facts")
    assert code == 0 and "week-2" in out
    assert cli("knowledge", "grow", "facts.tsv")[0] == 0  # the same file again: nothing is new
    assert KnowledgeGraph(Path("runs/facts")).learned == 2


def test_a_name_that_is_nearly_a_file_is_told_of(cli, tmp_path: Path):
    write(tmp_path / "facts.tsv", circle(20))
    code, _, errors = cli("knowledge", "grow", "fact.tsv")
    assert code == 2 and "fact.tsv: no graph there (did you mean facts.tsv?)" in errors


def test_another_file_of_the_same_name_is_not_mixed_in(cli, tmp_path: Path):
    write(tmp_path / "facts.tsv", circle(20))
    (tmp_path / "other").mkdir()
    write(tmp_path / "other" / "facts.tsv", circle(20, "f"))
    assert cli("knowledge", "grow", "facts.tsv", "--width", 8, "--epochs", 2)[0] == 0
    code, _, errors = cli("knowledge", "grow", "other/facts.tsv")
    assert code == 2 and "runs/facts: made of facts.tsv, not of other/facts.tsv" in errors
    assert "intarsia knowledge grow runs/facts --facts other/facts.tsv" in errors
    assert cli("knowledge", "grow", tmp_path / "facts.tsv")[0] == 0
    assert cli("knowledge", "grow", "runs/facts", "--facts", "other/facts.tsv")[0] == 0


def test_questions_whose_answers_came_later_are_left_out(tmp_path: Path, monkeypatch):
    from intarsia.data import python_graph

    graph = KnowledgeGraph(tmp_path / "graph")
    graph.add(circle(12))
    graph.set_note("source", "python")
    asked = [
        python_graph.Question(text, "e1", "before", answers) for text, answers in (("a?", ["e2"]), ("b?", ["later"]))
    ]
    monkeypatch.setattr(python_graph, "questions", lambda *given: asked)
    assert [row.question for row in grow(graph, **QUICK).answered] == ["a?"]
    assert len(status(KnowledgeGraph.open(graph.path)).answered) == 1  # by its folder, as well


def test_a_malformed_line_stops_everything_with_its_place_unless_it_is_to_be_left_out(cli, tmp_path: Path):
    write(tmp_path / "facts.tsv", circle(30))
    with (tmp_path / "facts.tsv").open("a", encoding="utf-8") as file:
        file.write("a fact\twithout a tail\n")
    code, out, errors = cli("knowledge", "grow", "facts.tsv", "--width", "8", "--epochs", "2")
    assert code == 2 and not out and "facts.tsv" in errors and "61" in errors and "--skip-bad" in errors
    code, out, _ = cli("knowledge", "grow", "facts.tsv", "--width", "8", "--epochs", "2", "--skip-bad")
    assert code == 0 and "1 lines left out" in out and "line 61" in out
    assert len(KnowledgeGraph(Path("runs/facts")).growing().facts(0)) == 60


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--method", "lkg"], "lkge"),
        (["--options", "alpa=1"], "alpa"),
        (["--facts", "nothing.tsv"], "nothing.tsv"),
        (["--accelerator", "warp"], "warp"),
        (["--width", "7"], "even width"),
        ([], "no graph there; to make one, give facts with --facts"),
    ],
)
def test_bad_input_is_told_in_one_line_and_nothing_is_lost(cli, tmp_path: Path, arguments, told):
    graph = KnowledgeGraph(tmp_path / "graph")
    if arguments:
        graph.add(circle(20))
    code, out, errors = cli("knowledge", "grow", "graph", "--epochs", "1", *arguments)
    assert (code, out) == (2, "") and told in errors
    if arguments:
        assert graph.learned == 0
        assert cli("knowledge", "grow", "graph", "--epochs", "1", "--width", "8")[0] == 0


# ---- comparing


def test_methods_are_compared_alike_and_a_stopped_comparison_goes_on(tmp_path: Path, monkeypatch):
    graph = KnowledgeGraph(tmp_path / "graph")
    for part in "ab":
        graph.add(circle(30, part))
        graph.close_snapshot(hold_out=0.2)
    given = {"methods": ["lkge", "finetune", "retrain@lkge"], "seeds": 2, "width": 8, "epochs": 2}
    whole = compare(graph, **given)
    assert [(course.method, course.seed) for course in whole.courses] == [
        (method, seed) for method in given["methods"] for seed in (0, 1)
    ]
    assert {table.title for table in whole.tables()} >= {
        "After the last snapshot, among all entities there are by now",
        "After the last snapshot, among the entities of each test's time",
    }
    assert "MRR as the graph grows, among all entities there are by now" in [f.title for f in whole.figures()]
    course = whole.courses[0]
    drift, interference = course.forgetting()
    assert drift + interference == pytest.approx(-course.bwt())

    from intarsia.knowledge.learning.learner import Learner

    taken, take = [], Learner.take

    def some(learner, **given):
        if len(taken) == 5:
            raise KeyboardInterrupt
        taken.append(learner.method.name)
        return take(learner, **given)

    with monkeypatch.context() as patched:
        patched.setattr("intarsia.knowledge.comparing.Learner.take", some)
        with pytest.raises(KeyboardInterrupt):
            compare(graph, **given, keep=tmp_path / "kept")
    counted: list[str] = []
    monkeypatch.setattr(
        "intarsia.knowledge.comparing.Learner.take",
        lambda learner, **given: counted.append(learner.method.name) or take(learner, **given),
    )
    again = compare(graph, **given, keep=tmp_path / "kept")
    assert (len(taken), len(counted)) == (5, 7)
    assert [figures(c.results) for c in again.courses] == [figures(c.results) for c in whole.courses]
    assert graph.learned == 0


def test_a_comparison_needs_tests_and_known_methods(tmp_path: Path):
    graph = KnowledgeGraph(tmp_path / "graph")
    graph.add(circle(10))
    graph.close_snapshot()
    with pytest.raises(BadInput, match="no test facts"):
        compare(graph, **QUICK)
    graph.add(circle(30, "f"))
    graph.close_snapshot(hold_out=0.2)
    for methods, told in ((["lkgee"], "no method 'lkgee'"), (["lkge@dist"], "no method 'dist'"), ([], "at least one")):
        with pytest.raises(BadInput, match=told):
            compare(graph, methods=methods, **QUICK)
