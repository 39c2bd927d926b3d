"""The embedded data set: no leak, no duplicate, enough of everything, the same every time."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest

from intarsia.data import load_data
from intarsia.data.docstrings import clean, docstrings
from intarsia.data.python_chapters import CHAPTER_OF, LEFT_OUT
from intarsia.data.python_docs import VERBALISERS, _divide
from intarsia.data.splits import normalised


@pytest.fixture(scope="module")
def data():
    return load_data("python-docs")


def test_sizes(data):
    assert 1500 <= len(data["train"]) <= 3500
    assert 150 <= len(data["dev"]) <= 500
    assert 400 <= len(data["test"]) <= 900
    assert len(data["text"]) > 100 and len(data["calibration"]) > 30
    assert 8 <= len(data.facts["labels"]) <= 16
    assert data.facts["counts"] == {name: len(records) for name, records in data.items()}


def test_modules_of_test_are_unseen(data):
    groups = {name: {r.group for r in data[name]} for name in data}
    assert not groups["train"] & groups["test"]
    assert not groups["train"] & groups["dev"]
    assert not groups["dev"] & groups["test"]
    assert not groups["text"] & groups["calibration"]


def test_every_label_is_in_every_split_and_right(data):
    for name in ("train", "dev", "test"):
        counts = Counter(r.label for r in data[name])
        assert sorted(counts) == data.facts["labels"]
        assert counts == data.facts["classes"][name]
        assert max(Counter(r.group for r in data[name]).values()) <= data.facts["cap"][name]
    for record in (*data["train"], *data["test"]):
        home = record.group if record.group in CHAPTER_OF else record.group.partition(".")[0]
        assert CHAPTER_OF[home] == record.label


def test_no_text_occurs_twice_in_or_across_splits(data):
    for names in (("train", "dev", "test"), ("text", "calibration")):
        # Without the object's name: the same docstring under another name is the same text.
        texts = [normalised(r).partition(": ")[2] or normalised(r) for name in names for r in data[name]]
        assert len(texts) == len(set(texts))


def test_texts_are_short_prose(data):
    for record in data["train"]:
        assert 5 <= len(record.text.split()) <= 62
        assert "\n" not in record.text and ">>>" not in record.text and "  " not in record.text


def test_label_task_has_a_distinct_word_for_every_label(data):
    task = data.facts["label_task"]
    assert "{text}" in task["template"] and sorted(task["verbalisers"]) == task["labels"] == data.facts["labels"]
    words = list(task["verbalisers"].values())
    assert len(set(words)) == len(words) and all(w.startswith(" ") and len(w.split()) == 1 for w in words)
    assert set(VERBALISERS) | set(LEFT_OUT) >= set(CHAPTER_OF.values())


def test_same_data_in_another_process(data):
    code = "from intarsia.data import load_data; print(load_data('python-docs').sha256)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == data.sha256


def test_building_shows_and_opens_nothing():
    code = (
        "import sys; from intarsia.data import load_data; load_data('python-docs');"
        "print(sorted({'this', 'antigravity', 'tkinter', 'turtle', 'test', 'idlelib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]" and done.stderr == ""


def test_chapters_can_be_learned_from_other_modules(data):
    text = pytest.importorskip("sklearn.feature_extraction.text")
    from sklearn.naive_bayes import ComplementNB
    from sklearn.pipeline import make_pipeline

    model = make_pipeline(text.TfidfVectorizer(sublinear_tf=True), ComplementNB())
    model.fit([r.text for r in data["train"]], [r.label for r in data["train"]])
    accuracy = model.score([r.text for r in data["test"]], [r.label for r in data["test"]])
    majority = max(Counter(r.label for r in data["test"]).values()) / len(data["test"])
    assert accuracy > 2 * majority


def test_clean_cuts_signatures_doctests_and_markup():
    source = """
    join(iterable, /) -> str

    Concatenate :meth:`~str.any` number of ``strings``
    of   an iterable.

        >>> "".join([])
        ''
    """
    assert clean(source) == "Concatenate str.any number of strings of an iterable."
    assert clean("f(x) -> the value of x.\n\nMore.") == "the value of x. More."
    assert len(clean("word " * 500).split()) == 60
    assert clean(">>> 1") == ""


def test_absent_modules_are_skipped():
    assert list(docstrings("no_such_module_here")) == []
    assert any(name == "TestCase.setUp" for _, name, _ in docstrings("unittest"))
    assert all(not name.split(".")[-1].startswith("_") for _, name, _ in docstrings("json"))


def test_division_by_module():
    divided = _divide({"big": 200, "a": 20, "b": 19, "c": 15, "d": 10})
    assert "big" in divided["train"]
    assert sorted(m for part in divided.values() for m in part) == ["a", "b", "big", "c", "d"]
    assert _divide({"big": 200, "a": 20}) is None
    assert _divide({"big": 50, "a": 20, "b": 10}) is None
