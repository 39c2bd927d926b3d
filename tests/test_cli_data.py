"""`intarsia data show`: what it counts, what it marks, and how it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from intarsia.cli import app
from intarsia.data import Dataset, Text
from intarsia.measure.survey import survey
from intarsia.measure.survey_finding import Lengths
from tests.failing import fails
from tests.tiny import tiny, tokenizer

TURNS = [
    {"dialogue": "a", "turn": 0, "speaker": "Ann", "text": "Hi there you", "emotion": "joy", "mood": "up"},
    {"dialogue": "a", "turn": 3, "speaker": "Bob", "text": "So", "emotion": "", "mood": "up"},
    {"dialogue": "b", "turn": 0, "speaker": "Ann", "text": "Oh no", "emotion": "joyless", "mood": "down"},
]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    tiny("llama").save(folder / "model")
    tiny("bert-encoder").save(folder / "encoder")
    rows = {
        "turns.jsonl": TURNS,
        "labels.jsonl": [{"text": "one two", "label": "x"}, {"text": "three", "label": "y", "context": ["zero"]}],
        "alike.jsonl": [{"text": "one", "label": "x"}],
        "chat.jsonl": [{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}]}],
        "pair.jsonl": [{"prompt": "2+2", "target": "4"}],
        "task.jsonl": [{"task": "add", "instruction": "Add", "input": "2 2", "output": "4"}],
        "image.jsonl": [{"image": "a.png", "text": "a cat", "label": "cat"}],
        "question.jsonl": [{"image": "a.png", "question": "What?", "answer": "cat"}],
    }
    for name, records in rows.items():
        (folder / name).write_text("".join(json.dumps(record) + "\n" for record in records))
    (folder / "text.txt").write_text("one\nlonger text\n")
    (folder / "facts.tsv").write_text("Ann\tknows\tBob\nBob\tknows\tAnn\nAnn\thas\tcat\n")
    (folder / "facts.txt").write_text("Ann\tknows\tBob\n")
    return folder


@pytest.fixture
def cli(place, monkeypatch, capsys):
    monkeypatch.chdir(place)

    def call(*arguments: str) -> tuple[int, str, str]:
        code = app.run(["data", "show", *arguments])
        out, errors = capsys.readouterr()
        return code, out, errors

    return call


def found(cli, *arguments: str) -> dict:
    code, out, errors = cli(*arguments, "--json")
    assert (code, errors) == (0, ""), errors
    return json.loads(out)


def learnt(record: dict) -> str:
    """What bears the loss, runs divided by |."""
    runs, last = [], -2
    for at, (token, yes) in enumerate(zip(record["tokens"], record["learnt"], strict=True)):
        if yes:
            if at == last + 1:
                runs[-1] += token
            else:
                runs.append(token)
            last = at
    return "|".join(runs)


def test_turns_in_numbers(cli):
    split = found(cli, "turns.jsonl")["splits"][0]
    assert (split["split"], split["kind"], split["records"], split["groups"]) == ("train", "Turn", 3, 2)
    assert split["counted"] == {"joy": 1, "joyless": 1} and split["unlabelled"] == 1
    assert split["speakers"] == {"Ann": 2, "Bob": 1} and split["missing"] == 2
    length = split["lengths"]["turns a dialogue"]
    assert length == {"n": 2, "mean": 1.5, "median": 1.5, "p95": 2, "most": 2, "total": 3, "over": None}
    assert split["lengths"]["words a turn"]["total"] == 6
    assert split["first"][1]["number"] == 3 and split["first"][1]["speaker"] == "Bob"


def test_turns_in_print(cli):
    code, out, _ = cli("turns.jsonl", "--first", "2")
    assert code == 0 and "3 records in 1 split, 2 dialogues, 2 labels." in out
    for words in ("without label", "missing turns", "turns a dialogue", "joyless", "Hi there you"):
        assert words in out
    assert "Oh no" not in out  # the third turn


def test_labels_of_another_column(cli):
    assert found(cli, "turns.jsonl", "--label", "mood")["splits"][0]["counted"] == {"up": 2, "down": 1}
    code, _, errors = cli("turns.jsonl", "--label", "moood")
    assert code == 2 and "no column 'moood'" in errors and "did you mean mood?" in errors and "emotion" in errors


def test_tokens_and_what_is_longer_than_the_context(cli, place, tmp_path):
    # One token a byte, and a context of 128.
    long = [{"dialogue": "a", "turn": i, "speaker": "A", "text": "x" * size} for i, size in enumerate((97, 125, 126))]
    (place / "long.jsonl").write_text("".join(json.dumps(row) + "\n" for row in long))
    split = found(cli, "long.jsonl", "--model", "model")["splits"][0]
    tokens = split["lengths"]["tokens a turn"]
    assert (tokens["median"], tokens["most"], tokens["over"]) == (128, 129, 1)  # with `A: `
    assert split["lengths"]["tokens a dialogue"]["total"] == 100 + 128 + 129
    assert split["lengths"]["tokens a dialogue"]["over"] == 1
    assert "over 128" in cli("long.jsonl", "--model", "model")[1]


def test_of_a_dialogue_the_place_is_marked_at_which_a_label_is_read(cli, place):
    first, second = found(cli, "turns.jsonl", "--model", "model")["marked"]
    assert {record["by"] for record in (first, second)} == {"adaptation.dialogue"}
    # The second turn has no label: it is context, and nothing is read behind it.
    assert "".join(first["tokens"]) == "Ann: Hi there you (feels\n...\nBob: So (feels"
    assert [at for at, yes in enumerate(first["learnt"]) if yes] == [len(b"Ann: Hi there you (feels") - 1]
    assert "".join(second["tokens"]) == "Ann: Oh no (feels" and learnt(second) == "s"
    assert [record["record"] for record in (first, second)] == [1, 3]


def test_labels_are_marked_where_labels_part(cli, place):
    one, two = found(cli, "labels.jsonl", "--model", "model")["marked"]
    assert learnt(one) == "x" and "".join(two["tokens"]) == "zero\nthree\nLabel: y"
    assert one["by"] == "adaptation.label"
    # One label begins the other, so each ends in a line end, and all before the parting is given.
    rows = [{"text": "Hi there you", "label": "joy"}, {"text": "Oh no", "label": "joyless"}]
    (place / "begins.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    first, second = found(cli, "begins.jsonl", "--model", "model")["marked"]
    assert "".join(first["tokens"]) == "Hi there you\nLabel: joy\n" and learnt(first) == "\n"
    assert "".join(second["tokens"]) == "Oh no\nLabel: joyl" and learnt(second) == "l"


@pytest.mark.parametrize(
    ("file", "by", "answer"),
    [
        ("chat.jsonl", "adaptation.instruct", "yo<|end|>"),
        ("pair.jsonl", "adaptation.instruct", "4<|end|>"),
        ("task.jsonl", "adaptation.continual", " 4<|end|>"),
        ("text.txt", "perplexity", "ne"),
    ],
)
def test_answers_are_marked(cli, file, by, answer):
    record = found(cli, file, "--model", "model")["marked"][0]
    assert record["by"] == by and learnt(record) == answer
    assert record["ids"] == tokenizer()("".join(record["tokens"]), add_special_tokens=False)["input_ids"]


def test_marks_in_print(cli, monkeypatch):
    _, out, _ = cli("chat.jsonl", "--model", "model")
    assert "<|user|>hi<|end|><|assistant|>⟦yo<|end|>⟧" in out and "3 learnt" in out
    monkeypatch.setattr("intarsia.cli.data.console", lambda: _terminal())
    _, out, _ = cli("chat.jsonl", "--model", "model")
    assert "⟦" not in out and "\x1b[1;30;42my" in out  # bold black on green


def _terminal():
    import sys

    from rich.console import Console

    return Console(file=sys.stdout, force_terminal=True, color_system="standard", width=100)


@pytest.mark.parametrize(
    ("file", "model", "why"),
    [
        ("image.jsonl", "model", "ImageText records are not learnt from as text"),
        ("question.jsonl", "model", "ImageQuestion records are not learnt from as text"),
        ("alike.jsonl", "model", "adaptation.label: a label task wants two labels or more"),
        ("labels.jsonl", "encoder", "adaptation.label: "),
    ],
)
def test_why_nothing_is_marked(cli, file, model, why):
    out = found(cli, file, "--model", model)
    assert out["marked"] == [] and why in out["unmarked"]
    assert "no tokens are marked: " in cli(file, "--model", model)[1]


def test_every_kind_of_record(cli, place):
    kinds = {
        "turns.jsonl": "Turn", "labels.jsonl": "LabelledText", "chat.jsonl": "Chat", "pair.jsonl": "TextPair",
        "task.jsonl": "TaskPair", "image.jsonl": "ImageText", "question.jsonl": "ImageQuestion", "text.txt": "Text",
        "facts.tsv": "Fact", "facts.txt": "Fact",
    }  # fmt: skip
    for file, kind in kinds.items():
        assert found(cli, file)["splits"][0]["kind"] == kind
        assert cli(file)[0] == 0
    facts = found(cli, "facts.tsv")["splits"][0]
    assert (facts["counts"], facts["counted"]) == ("relation", {"knows": 2, "has": 1})
    assert facts["lengths"]["facts an entity"]["most"] == 3  # Ann
    assert found(cli, "task.jsonl")["splits"][0]["counts"] == "task"


def test_facts_in_a_folder_and_by_force(cli, place):
    folder = place / "graph"
    folder.mkdir()
    (folder / "train.tsv").write_text("a\tr\tb\na\tr\tc\n")
    (folder / "valid.tsv").write_text("b\tr\tc\nb\tr\td\n")
    assert [split["split"] for split in found(cli, "graph")["splits"]] == ["train", "valid"]
    (place / "lists.jsonl").write_text('["a", "r", "b"]\n')
    assert found(cli, "lists.jsonl", "--facts")["splits"][0]["kind"] == "Fact"
    # A table that is not right is no graph: its own error is told.
    (place / "three.csv").write_text("text,label,group\n,x,1\n")
    code, _, errors = cli("three.csv")
    assert code == 2 and "three.csv: line 2: 'text' is empty" in errors
    (place / "none.csv").write_text("txet,n\na,1\n")
    assert "no known columns; present: txet, n" in cli("none.csv")[2]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["turn.jsonl"], "did you mean turns.jsonl"),
        (["python-doc"], "did you mean python-docs?"),
        (["text.txt", "--split", "train"], "text.txt: no split 'train'; there are: text"),
        (["text.txt", "--label", "mood"], "for turns of dialogues; given: Text"),
        (["text.txt", "--model", "nothing"], "no model 'nothing'"),
        (["text.txt", "--first", "0"], "0 is not in the range"),
    ],
)
def test_bad_input(cli, arguments, words):
    code, out, errors = cli(*arguments)
    assert code == 2 and words in errors and not out and errors.count("\n") == 1


def test_a_survey_in_python():
    assert Lengths.of([5, 1, 1, 1], 4).model_dump() == {
        "n": 4, "mean": 2.0, "median": 1.0, "p95": 5, "most": 5, "total": 8, "over": 1
    }  # fmt: skip
    assert Lengths.of(range(1, 101)).p95 == 95
    fails(lambda: survey(Dataset({"train": []})), "the split 'train' holds no records")
    bare = tiny("llama").copy()
    bare.tokenizer = None
    fails(lambda: survey(Dataset({"train": [Text("a")]}), bare), "needs a tokenizer")
