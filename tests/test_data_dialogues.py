"""Turns of dialogues: from every form of file, in order, with the labels asked for."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path

import pytest

from intarsia.data import Chat, LabelledText, TextPair, Turn, dedup, load_data, read, shared_data, split
from intarsia.data.dialogues import dialogues, labelled, mapped, read_iemocap, relabelled, without_overlap
from intarsia.errors import Note
from tests.failing import fails

MELD = (
    "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime\n"
    '1,"Oh my God, he\u2019s lost it.",Phoebe,sadness,negative,0,0,4,7,"00:20:57,256","00:21:00,049"\n'
    '2,It\u0092s fine\u0085,Monica,surprise,negative,0,1,4,7,"00:20:58,256","00:21:00,049"\n'
    '3,\u0085,Monica,neutral,neutral,0,2,4,7,"00:20:58,256","00:21:00,049"\n'
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
    first, second, wordless, third = read(write(tmp_path, "train_sent_emo.csv", MELD))
    assert first == Turn(
        "Oh my God, he\u2019s lost it.", "sadness", "0", speaker="Phoebe", number=0,
        fields=(("sr_no.", "1"), ("emotion", "sadness"), ("sentiment", "negative"), ("season", "4"), ("episode", "7"),
                ("start", "00:20:57,256"), ("end", "00:21:00,049")),
    )  # fmt: skip
    assert second.text == "It\u2019s fine\u2026" and second.number == 1
    assert wordless.text == "\u2026"
    assert (third.group, third.number) == ("1", 3)  # a gap stays a gap
    assert {name: [t.number for t in turns] for name, turns in dialogues([first, second, wordless, third]).items()} == {
        "0": [0, 1, 2],
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
    assert [t.label for t in changed] == ["negative", "negative", "neutral", "positive"]
    assert relabelled(changed, "emotion") == turns
    fails(lambda: relabelled(turns, "sentimnt"), "no column 'sentimnt'", "did you mean sentiment?", "there are: sr_no.")


def test_unlabelled_turns_are_context(tmp_path):
    turns = read(lines(tmp_path, row(0, label="x"), row(1), row(2, label="y")))
    with pytest.warns(Note, match="train: 1 of 3 turns have no label"):
        assert [t.number for t in labelled(turns, "train")] == [0, 2]
    fails(lambda: labelled(turns[1:2], "dev"), "dev: none of the 1 turns has a label")
    plain = [LabelledText("a", "x")]
    assert labelled(plain) == plain and load_data(tmp_path / "a.jsonl").facts["labels"] == ["x", "y"]


def test_context_is_neither_learnt_from_nor_judged():
    from intarsia.measure import QualityConfig, quality
    from intarsia.measure.labels import LabelTask
    from tests.tiny import tiny

    turns = [Turn(f"t{i}", "xyx"[i] if i < 3 else "", "d", number=i) for i in range(4)]
    with pytest.warns(Note, match="test: 1 of 4 turns have no label"):
        found = quality(tiny("llama"), QualityConfig(draws=100), test=turns)
    assert found.rows[0].label.n == 3
    with pytest.warns(Note):
        assert LabelTask.from_records(turns, prior=False).labels == ["x", "y"]


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


def test_meld_and_emorynlp_folders_as_published(tmp_path):
    for name in ("train", "dev", "test"):
        write(tmp_path / "meld", f"{name}_sent_emo.csv", MELD)
        write(tmp_path / "emory", f"emorynlp_{name}_final.csv", MELD)
    for name in ("meld", "emory"):
        data = load_data(tmp_path / name)
        assert list(data) == ["train", "dev", "test"] and all(len(dialogues(turns)) == 2 for turns in data.values())
    write(tmp_path / "emory", "other_train_final.csv", MELD)
    fails(lambda: load_data(tmp_path / "emory"), "two files for 'train'", "emorynlp_train_final.csv")


def said(name: str, text: str = "Hi.", **more) -> dict:
    return {"utterance_id": name, "speakers": ["Ross Geller"], "transcript": text, "emotion": "Sad", **more}


def episodes(*utterances: dict) -> str:
    scene = {"scene_id": "s01_e02_c03", "utterances": list(utterances)}
    return json.dumps({"episodes": [{"episode_id": "s01_e02", "scenes": [scene]}]})


def test_emorynlp_json(tmp_path):
    both = said("s01_e02_c03_u004", "Bye.", speakers=["A", "B"], emotion=None)
    write(tmp_path, "emotion-detection-trn.json", episodes(said("s01_e02_c03_u001"), both))
    write(tmp_path, "emotion-detection-tst.json", episodes(said("s01_e02_c03_u002")))
    data = load_data(tmp_path)
    assert list(data) == ["train", "test"]
    fields = (("season", "1"), ("episode", "2"), ("scene_id", "3"))
    assert data["train"] == [
        Turn("Hi.", "Sad", "s01e02c03", speaker="Ross Geller", number=1, fields=(("emotion", "Sad"), *fields)),
        Turn("Bye.", "", "s01e02c03", speaker="A; B", number=4, fields=fields),
    ]
    silent = write(tmp_path, "notes.json", episodes(said("s01_e02_c03_u001", ""), said("s01_e02_c03_u002")))
    with pytest.warns(Note, match="1 utterances without words were left out"):
        assert [turn.number for turn in read(silent)] == [2]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (episodes(said("u1")), ("scene 1: utterance 1", "must be like s01_e02_c03_u004, is 'u1'")),
        (episodes(said("s01_e02_c03_u001", 3)), ("s01_e02_c03_u001", "'text' must be a text")),
        (episodes(*[said("s01_e02_c03_u001")] * 2), ("turn 1 of dialogue 's01e02c03' is there twice",)),
        (json.dumps({"episodes": [{}]}), ("episode 1", "list 'scenes'")),
        (json.dumps({"episodes": [{"scenes": [[]]}]}), ("episode 1: scene 1", "list 'utterances'")),
        (json.dumps({"episodes": []}), ("no records",)),
    ],
)
def test_bad_emorynlp_json(tmp_path, content, words):
    fails(lambda: read(write(tmp_path, "a.json", content)), "a.json: ", *words)


TRANSCRIPT = (
    "Ses01F_impro01_M000 [007.5000-009.0000]: Do you have your forms?\n"
    "Ses01F_impro01_F000 [006.2901-008.2357]: Excuse me.\n"
    "M: [BREATHING]\n"
    "Ses01F_impro01_FXX0 [009.0000-009.5000]: Mm.\n"
    "Ses01F_impro01_M001 [010.0000-011.0000]: Wow\u0085\n"
)
EVALUATION = (
    "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n\n"
    "[6.2901 - 8.2357]\tSes01F_impro01_F000\tneu\t[2.5000, 2.5000, 2.5000]\n"
    "C-E2:\tNeutral;\t()\n"
    "[7.5000 - 9.0000]\tSes01F_impro01_M000\txxx\t[2.5000, 3.0000, 2.5000]\n"
    "[10.0000 - 11.0000]\tSes01F_impro01_M001\tsur\t[4.0000, 4.0000, 2.0000]\n"
)


def iemocap(folder: Path, sessions: str = "15") -> Path:
    for number in sessions:
        dialog = folder / f"Session{number}" / "dialog"
        name = f"Ses0{number}F_impro01"
        write(dialog / "transcriptions", f"{name}.txt", TRANSCRIPT.replace("Ses01F", f"Ses0{number}F"))
        write(dialog / "transcriptions", f"._{name}.txt", "\0\0")
        write(dialog / "EmoEvaluation", f"{name}.txt", EVALUATION.replace("Ses01F", f"Ses0{number}F"))
    write(folder / "Session1/dialog/avi/DivX", "Ses01F_impro01.avi", "film")
    return folder


def test_iemocap(tmp_path):
    folder = iemocap(tmp_path / "corpus")
    data = load_data(folder)
    assert {name: len(turns) for name, turns in data.items()} == {"train": 4, "test": 4}
    first, second, third, last = data["train"]
    assert first == Turn(
        "Excuse me.", "neutral", "Ses01F_impro01", speaker="F", number=0,
        clip=str(folder / "Session1/dialog/avi/DivX/Ses01F_impro01.avi"),
        fields=(("session", "1"), ("utterance", "Ses01F_impro01_F000"), ("emotion", "neutral"), ("start", "6.2901"),
                ("end", "8.2357"), ("valence", "2.5000"), ("activation", "2.5000"), ("dominance", "2.5000")),
    )  # fmt: skip
    assert [t.speaker for t in data["train"]] == ["F", "M", "F", "M"] and second.label == third.label == ""
    assert (last.text, last.label, last.number) == ("Wow\u2026", "", 3)  # surprise is none of the six
    assert data["test"][0].clip == "" and data["test"][0].group == "Ses05F_impro01"
    assert read(folder) == read_iemocap(folder) == [*data["train"], *data["test"]]
    assert read_iemocap(folder, "all")[3].label == "surprise" == relabelled(data["train"], "emotion")[3].label


def test_bad_iemocap(tmp_path):
    folder = iemocap(tmp_path / "corpus", "1")
    fails(lambda: read_iemocap(tmp_path), "no IEMOCAP corpus", "Session1/dialog/transcriptions")
    fails(lambda: read_iemocap(folder, "four"), "classes must be six or all")
    evaluation = folder / "Session1/dialog/EmoEvaluation/Ses01F_impro01.txt"
    evaluation.write_text(EVALUATION.replace("\tneu\t", "\tabc\t"))
    fails(lambda: load_data(folder), "Ses01F_impro01.txt: line 3", "unknown emotion 'abc'")
    evaluation.unlink()
    fails(lambda: load_data(folder), "Ses01F_impro01.txt: no such file")


def test_labels_of_another_set():
    turns = [Turn("a", "Joyful", "d", number=0), Turn("b", "", "d", number=1), Turn("c", "Powerful", "d", number=2)]
    assert [t.label for t in mapped(turns, "emorynlp-to-meld")] == ["joy", "", "neutral"]
    assert [t.label for t in mapped(turns, {"Joyful": None, "Powerful": "strong"})] == ["", "", "strong"]
    plain = [LabelledText("a", "joy"), LabelledText("b", "disgust")]
    assert mapped(plain, "meld-to-emorynlp") == [LabelledText("a", "Joyful")]
    fails(lambda: mapped(turns, "emory-to-meld"), "no label map 'emory-to-meld'", "did you mean emorynlp-to-meld")
    fails(lambda: mapped(turns, "meld-to-emorynlp"), "no entry for 'Joyful'", "it has: joy")


def test_overlap_by_place_and_by_text():
    def turn(text, season="", episode="", number=0):
        fields = (("season", season), ("episode", episode)) if season else ()
        return Turn(text, "x", "d", number=number, fields=fields)

    test = [
        turn("Oh my God!", "1", "2"),
        turn("It was the best of times.", "3", "4"),
        turn("No one said so before me."),
    ]
    train = [
        turn("oh -- my god", "01", "2"),  # the same place and text
        turn("Oh my God!", "1", "3"),  # another episode
        turn("It was the best of times", "5", "5"),  # another episode, long, but both say where
        turn("No one said so before me", "5", "6"),  # test does not say where
        LabelledText("it was the best of times", "x"),  # train does not
        LabelledText("Oh my God!", "x"),  # too short to tell
    ]
    assert without_overlap(train, test) == [train[1], train[2], train[5]]


def test_splits_and_copies_keep_dialogues_whole():
    turns = [Turn(f"{i} {n}", "x", str(i), number=n) for i in range(30) for n in range(4)]
    for by in ("group", "text"):
        parts = split(turns, {"train": 0.7, "test": 0.3}, by=by, seed=1)
        groups = [{t.group for t in part} for part in parts.values()]
        assert not groups[0] & groups[1] and sum(len(part) for part in parts.values()) == len(turns)
        assert all(len(turns) == 4 for part in parts.values() for turns in dialogues(part).values())
    fails(lambda: split(turns, {"a": 0.5, "b": 0.5}, by="label"), "would be cut", "by='group'")
    copies = [replace(turn, group=f"again {turn.group}") for turn in turns]
    other = [Turn("0 0", "x", "z", number=0), Turn("new", "x", "z", number=1)]
    # A turn that occurs elsewhere stays where it is said.
    assert dedup([*turns, *copies, *other]) == [*turns, *other]


def test_a_mapping_may_name_the_column_of_labels(tmp_path):
    write(tmp_path, "train.csv", MELD)
    data = load_data({"train": {"path": "train.csv", "label": "sentiment"}}, tmp_path)
    assert data.facts["labels"] == ["negative", "neutral", "positive"]
    lines(tmp_path, {"text": "a", "label": "x"})
    fails(lambda: load_data({"train": {"path": "a.jsonl", "label": "x"}}, tmp_path), "for turns", "LabelledText")


@pytest.mark.real
def test_what_meld_and_emorynlp_share():
    folders = [shared_data(f"dialogue/{name}") for name in ("meld", "emorynlp")]
    if None in folders:
        pytest.skip("no data: set INTARSIA_DATA to a folder with dialogue/meld and dialogue/emorynlp")
    meld, emory = (load_data(folder) for folder in folders)
    assert len(meld["test"]) - len(without_overlap(meld["test"], emory["train"])) == 393
    assert len(emory["test"]) - len(without_overlap(emory["test"], meld["train"])) == 195
    left = without_overlap(emory["train"], meld["test"])
    assert len(without_overlap(meld["test"], left)) == 2610  # nothing of the test is learnt from
    # What the label map rests on: the two annotate the same turns, and agree on 46.4 % of them.
    place = {
        (t.text.casefold(), *(dict(t.fields)[k] for k in ("season", "episode"))): t for s in meld.values() for t in s
    }
    shared = [
        (place[key].label, turn.label)
        for part in emory.values()
        for turn in mapped(part, "emorynlp-to-meld")
        if (key := (turn.text.casefold(), *(dict(turn.fields)[k] for k in ("season", "episode")))) in place
        and len(turn.text.split()) >= 4
    ]
    assert sum(a == b for a, b in shared) / len(shared) == pytest.approx(0.464, abs=0.005)


def test_a_clip_counts_by_what_it_is_and_not_by_where_it_lies(tmp_path):
    hashes = []
    for name, film in (("one", "film"), ("two", "film"), ("three", "another film")):
        write(tmp_path / name, "clips/0.mp4", film)
        hashes.append(load_data(lines(tmp_path / name, row(0, clip="clips/0.mp4"))).sha256)
    assert hashes[0] == hashes[1] != hashes[2]
