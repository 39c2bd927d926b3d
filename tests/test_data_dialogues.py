"""Turns of dialogues: from every form of file, in order, with the labels asked for."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest

from intarsia.data import Chat, LabelledText, TextPair, Turn, load_data, read, shared_data
from intarsia.data.dialogues import dialogues, labelled, relabelled
from intarsia.errors import Note
from tests.failing import fails

MELD = (
    "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime\n"
    '1,"Oh my God, he\u2019s lost it.",Phoebe,sadness,negative,0,0,4,7,"00:20:57,256","00:21:00,049"\n'
    '2,It\u0092s fine\u0085,Monica,surprise,negative,0,1,4,7,"00:20:58,256","00:21:00,049"\n'
    '4,Really?,Joey,surprise,positive,1,3,4,8,"00:20:58,256","00:21:00,049"\n'
)


def write(folder: Path, name: str, content: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    return path


def lines(folder: Path, *rows: dict, name: str = "a.jsonl") -> Path:
    return write(folder, name, "".join(json.dumps(row) + "\n" for row in rows))


def row(number, text="hello", dialogue="d", **more):
    return {"dialogue": dialogue, "turn": number, "text": text, **more}


def test_meld_as_published(tmp_path):
    first, second, third = read(write(tmp_path, "train_sent_emo.csv", MELD))
    assert first == Turn(
        "Oh my God, he\u2019s lost it.", "sadness", "0", speaker="Phoebe", number=0,
        fields=(("sr_no.", "1"), ("emotion", "sadness"), ("sentiment", "negative"), ("season", "4"), ("episode", "7"),
                ("start", "00:20:57,256"), ("end", "00:21:00,049")),
    )  # fmt: skip
    assert second.text == "It\u2019s fine\u2026" and second.number == 1
    assert (third.group, third.number) == ("1", 3)  # a gap stays a gap
    assert {name: [t.number for t in turns] for name, turns in dialogues([first, second, third]).items()} == {
        "0": [0, 1],
        "1": [3],
    }


def test_scenes_that_begin_anew_in_every_episode(tmp_path):
    head = "Utterance,Speaker,Emotion,Scene_ID,Utterance_ID,Season,Episode,Start_Time,End_Time\n"
    rows = 'Coffee.,[\'Rachel Green\'],Neutral,1,1,1,15,0:03,0:05\nHi!,"[\'A\', ""B\'s""]",Joyful,1,1,1,20,0:03,0:05\n'
    first, second = read(write(tmp_path, "emorynlp_dev_final.csv", head + rows))
    assert (first.group, second.group) == ("s01e15c01", "s01e20c01")
    assert (first.speaker, second.speaker) == ("Rachel Green", "A; B's")
    assert dict(first.fields)["start"] == "0:03" and dict(first.fields)["scene_id"] == "1"


def test_plain_lines(tmp_path):
    path = lines(
        tmp_path,
        row(0, "Hi", speaker=["A", "B"], label="glad", clip="clips/0.mp4", about="a street", score=0.5, kept=True),
        row("1", "So?", label="", tags=["x"]),
        row(2.0, "Well.", label=None, clip=None),
    )
    first, second, third = read(path)
    assert first == Turn(
        "Hi", "glad", "d", speaker="A; B", clip=str(tmp_path / "clips/0.mp4"), about="a street",
        fields=(("label", "glad"), ("score", "0.5"), ("kept", "yes")),
    )  # fmt: skip
    assert (second.label, second.number, second.speaker) == ("", 1, "") and second.fields == (("label", ""),)
    assert (third.label, third.number, third.clip, third.fields) == ("", 2, "", ())


def test_a_dialogue_may_be_a_list_of_messages_and_an_utterance_may_have_a_name(tmp_path):
    messages = [{"role": "user", "content": "hi"}]
    assert isinstance(read(lines(tmp_path, {"dialogue": messages, "turn": 1, "text": "t"}))[0], Chat)
    assert isinstance(read(lines(tmp_path, {"dialogue": json.dumps(messages), "turn": 1, "text": "t"}))[0], Chat)
    named = {"dialogue_id": "a", "utterance_id": "Ses01F_impro01_F000", "text": "t", "label": "x"}
    assert read(lines(tmp_path, named)) == [LabelledText("t", "x", "a")]
    pair = {"conversation_id": 1, "turn": 2, "prompt": "p", "response": "r", "text": "t"}
    assert isinstance(read(lines(tmp_path, pair))[0], TextPair)


def test_turns_are_sorted_and_that_is_said(tmp_path):
    path = lines(tmp_path, row(2, "c"), row(0, "x", "e"), row(0, "a"), row(1, "b"))
    with pytest.warns(Note, match="not in the order of their dialogues .first: line 3.; they were sorted"):
        turns = read(path)
    assert [(t.group, t.text) for t in turns] == [("d", "a"), ("d", "b"), ("d", "c"), ("e", "x")]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(read(lines(tmp_path, row(0, "a"), row(4, "b"), row(1, "x", "e")))) == 3


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([row(0), row(0)], ("line 2", "the turn 0 of dialogue 'd' is there twice (first: line 1)")),
        ([row(1.5)], ("line 1", "'turn' must be a whole number", "1.5")),
        ([row("x")], ("line 1", "'turn' must be a whole number", "'x'")),
        ([row(0), row(None)], ("line 2", "'turn' must be a whole number", "null")),
        ([row(0), row(True)], ("line 2", "'turn' must be a whole number", "true or false")),
        ([row(0, "  ")], ("line 1", "'text' is empty")),
        ([row(0, 7)], ("line 1", "'text' must be a text")),
        ([row(0), row(1, dialogue="")], ("line 2", "'dialogue' must name the dialogue of this turn, is empty")),
        ([row(0), {"turn": 1, "text": "a"}], ("line 2", "no column 'dialogue_id'")),
        ([row(0, label=1.5)], ("line 1", "'label' must be")),
        ([row(0, speaker={"a": 1})], ("line 1", "'speaker' must be a name")),
    ],
)
def test_bad_turns(tmp_path, rows, words):
    fails(lambda: read(lines(tmp_path, *rows)), "a.jsonl: ", *words)


def test_labels_of_another_column(tmp_path):
    turns = read(write(tmp_path, "a.csv", MELD))
    changed = relabelled(turns, "Sentiment")
    assert [t.label for t in changed] == ["negative", "negative", "positive"]
    assert relabelled(changed, "emotion") == turns
    fails(lambda: relabelled(turns, "sentimnt"), "no column 'sentimnt'", "did you mean sentiment?", "there are: sr_no.")


def test_unlabelled_turns_are_context(tmp_path):
    turns = read(lines(tmp_path, row(0, label="x"), row(1), row(2, label="y")))
    with pytest.warns(Note, match="train: 1 of 3 turns have no label"):
        assert [t.number for t in labelled(turns, "train")] == [0, 2]
    fails(lambda: labelled(turns[1:2], "dev"), "dev: none of the 1 turns has a label")
    plain = [LabelledText("a", "x")]
    assert labelled(plain) == plain and load_data(tmp_path / "a.jsonl").facts["labels"] == ["x", "y"]


def test_dialogues_of_two_splits_do_not_run_together(tmp_path):
    turns = read(lines(tmp_path, row(0), row(1)))
    fails(
        lambda: dialogues([*turns, *turns]), "the turn 0 of dialogue 'd' is there twice", "splits of a set one by one"
    )
    fails(lambda: dialogues([LabelledText("a", "x", "d")]), "record 1 is a LabelledText")


@pytest.mark.real
@pytest.mark.parametrize(("name", "counts"), [("meld", (1038, 114, 280)), ("emorynlp", (659, 89, 79))])
def test_the_dialogues_of_real_sets(name, counts):
    if (folder := shared_data(f"dialogue/{name}")) is None:
        pytest.skip(f"no data: set INTARSIA_DATA to a folder with dialogue/{name}")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # they are in order
        data = load_data(folder)
    assert tuple(len(dialogues(data[split])) for split in ("train", "dev", "test")) == counts
    assert all(turn.speaker for turn in data["test"])
