"""The questions of `bench.prompting.retrieval`: none has its words in what is searched, and figures are right."""

import json

import numpy as np
import pytest

from bench.prompting import questions, retrieval
from intarsia.prompting.data import Store
from tests.store_help import HashedWords, manual_of

DOCSTRINGS = {
    "pile.Pile.push": "Pile.push(x) puts one thing on top of all that was there.\n\nRaises PileFull where there is no "
    "room left for it, and returns how many things there are by now.",
    "pile.Pile.pop": "Take the thing that came last away from the top.\n\nRaises PileEmpty where nothing is there, and "
    "gives back what it took so that it may be used.",
    "pile.twin": "The same words stand in two places of this file.\n\nSo that this one has no place of its own and no "
    "answer that is the right one.",
    "pile.twin2": "The same words stand in two places of this file.\n\nAs said above, and it is said here with other "
    "words once more, so that it is long.",
    "pile.short": "Too short to ask.",
}


manual = manual_of(DOCSTRINGS, "pile")


@pytest.fixture
def made(monkeypatch):
    monkeypatch.setattr(questions, "python_manual", manual)
    return questions.python_docs(10)


def test_a_question_is_taken_out_of_what_is_searched(made):
    (document,), asked = made
    assert {(q.anchor, q.kind) for q in asked} == {
        (name, kind) for name in ("Pile.push", "Pile.pop") for kind in ("sentence", "keywords", "name")
    }  # fmt: skip
    by = {(q.anchor, q.kind): q.text for q in asked}
    assert by["Pile.pop", "sentence"] == "Take the thing that came last away from the top."
    assert "push" not in by["Pile.push", "sentence"].lower() and by["Pile.push", "name"] == "pile.Pile.push"
    assert len(by["Pile.pop", "keywords"].split()) <= 4
    assert "Take the thing" not in document.text and "puts one thing" not in document.text
    for section in document.sections:
        assert document.text[section.start :].startswith(section.path[0] + "\n")
    assert document.sections[-1].end == len(document.text)
    assert "Raises PileEmpty" in document.text and document.text.count("The same words") == 2


def test_halves_keep_groups_whole():
    asked = [questions.Question("k", str(i), "s", "", f"g{i % 7}") for i in range(50)]
    dev, test = questions.halves(asked)
    assert len(dev) + len(test) == 50 and not {q.group for q in dev} & {q.group for q in test} and dev and test
    assert questions.halves(asked) == (dev, test)


def test_questions_that_people_typed(tmp_path):
    (tmp_path / "long").mkdir()
    for task, rows in (
        ("boolq", ["question: is it\npassage: Cat -- It is.", "question: was it\npassage: Cat -- It is."]),
        ("dbpedia", ["Title: X\nText: y"]),
    ):
        for split in ("train", "val", "test"):
            text = "".join(json.dumps({"input": row}) + "\n" for row in rows if split == "train")
            (tmp_path / "long" / f"{task}.{split}.jsonl").write_text(text)
    documents, asked = questions.boolq(tmp_path)
    assert [(d.source, d.title, d.text) for d in documents] == [
        ("boolq/0", "Cat", "It is."), ("dbpedia/0", "", "Title: X\nText: y"),
    ]  # fmt: skip
    assert [(q.text, q.source) for q in asked] == [("is it", "boolq/0"), ("was it", "boolq/0")]


def test_ranks_and_values(tmp_path, made):
    documents, asked = made
    with Store.open(tmp_path / "s", HashedWords()) as store:
        store.add(documents)
        names = [q for q in asked if q.kind == "name"]
        assert retrieval.ranks(store, names, "words").tolist() == [1, 1]
        missing = [questions.Question("name", "pile", "python:other", "", "x")]
        assert retrieval.ranks(store, missing, "words").tolist() == [0]
        figures = retrieval.evaluate(store, asked, "p")
        assert figures["p.name.words.recall5"] == figures["p.name.words.mrr"] == 1
        assert set(retrieval.timed(store, names)) == {"hybrid", "dense", "words"}
    assert retrieval.values(np.array([1, 0, 5, 6])).tolist() == [[1, 1, 1], [0, 0, 1], [1, 0.2, 1], [0, 1 / 6, 1]]
