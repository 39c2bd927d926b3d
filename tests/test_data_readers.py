"""Files to records: every format, every error with its file and line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from intarsia.data import Chat, LabelledText, RationaleText, Text, TextPair, load_data, read, shared_data
from intarsia.errors import MissingExtra
from tests.failing import fails


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_jsonl_of_every_kind(tmp_path):
    text = write(tmp_path, "a.jsonl", '{"text": "one", "group": 3}\n\n{"text": "two"}\n')
    assert read(text) == [Text("one", "3"), Text("two")]
    label = write(tmp_path, "b.jsonl", '{"sentence": "good", "label": 1, "context": ["a", "b"]}')
    assert read(label) == [LabelledText("good", "1", context=("a", "b"))]
    chat = write(
        tmp_path, "c.jsonl", '{"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "yo"}]}'
    )
    assert read(chat) == [Chat(({"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}))]
    pair = write(tmp_path, "d.jsonl", '{"instruction": "Add", "input": "1 2", "output": "3"}')
    assert read(pair) == [TextPair("Add\n\n1 2", "3")]
    completion = write(tmp_path, "e.jsonl", '{"prompt": "a", "completion": "", "text": "ignored"}')
    assert read(completion) == [TextPair("a", "")]


def test_kind_can_be_stated_and_limit_stops_early(tmp_path):
    path = write(tmp_path, "a.jsonl", '{"text": "one", "label": "x"}\n{"text": "two", "label": "y"}\nbroken')
    assert read(path, kind="text", limit=2) == [Text("one"), Text("two")]
    assert read(path, limit=1) == [LabelledText("one", "x")]
    fails(lambda: read(path, kind="lable"), "unknown kind", "did you mean label?")
    fails(lambda: read(path, limit=0), "limit must be at least 1")
    fails(lambda: read(path, kind="pair"), "line 1", "no column 'prompt'", "present: text, label")


def test_json_list_of_objects_and_of_texts(tmp_path):
    assert read(write(tmp_path, "a.json", '["one", "two"]')) == [Text("one"), Text("two")]
    assert read(write(tmp_path, "b.json", '[{"text": "one", "emotion": "joy"}]')) == [LabelledText("one", "joy")]


def test_csv_in_the_manner_of_meld(tmp_path):
    rows = 'Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID\n1,"a, ""b""\nc",Ann,joy,positive,7\n'
    assert read(write(tmp_path, "a.csv", rows)) == [LabelledText('a, "b"\nc', "joy", "7")]
    assert read(write(tmp_path, "a.tsv", "text\tlabel\r\none\tx\r\n")) == [LabelledText("one", "x")]


def test_plain_texts_by_line_and_by_paragraph(tmp_path):
    content = "one\ntwo\r\n\n  \nthree\n"
    assert [r.text for r in read(write(tmp_path, "a.txt", content))] == ["one", "two", "three"]
    assert [r.text for r in read(tmp_path / "a.txt", paragraphs=True)] == ["one\ntwo", "three"]
    assert [r.text for r in read(write(tmp_path, "a.md", content))] == ["one\ntwo", "three"]
    fails(lambda: read(tmp_path / "a.txt", kind="label"), "holds texts only")


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.csv", "a.json"])
def test_byte_order_mark_is_accepted(tmp_path, name):
    content = {"a.txt": "hé", "a.jsonl": '{"text": "hé"}', "a.csv": "text\nhé\n", "a.json": '["hé"]'}[name]
    assert read(write(tmp_path, name, b"\xef\xbb\xbf" + content.encode())) == [Text("hé")]


def test_line_separators_inside_json_strings(tmp_path):
    path = write(tmp_path, "a.jsonl", json.dumps({"text": "a\u2028b"}, ensure_ascii=False) + "\n")
    assert read(path) == [Text("a\u2028b")]


def test_parquet(tmp_path, monkeypatch):
    pyarrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"text": ["one", "two"], "label": ["x", "y"]}), path)
    assert read(path) == [LabelledText("one", "x"), LabelledText("two", "y")]
    fails(lambda: read(write(tmp_path, "b.parquet", "nonsense")), "b.parquet", "not a readable parquet file")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    with pytest.raises(MissingExtra, match="parquet"):
        read(path)


def test_missing_and_empty_files(tmp_path):
    write(tmp_path, "train.jsonl", '{"text": "a"}')
    fails(lambda: read(tmp_path / "trian.jsonl"), "no such file", "did you mean train.jsonl?")
    fails(lambda: read(tmp_path / "no" / "a.jsonl"), "no such file")
    fails(lambda: read(tmp_path), "is a folder")
    fails(lambda: read(write(tmp_path, "a.doc", "x")), "unknown format '.doc'")
    fails(lambda: read(write(tmp_path, "empty.jsonl", "")), "empty.jsonl", "the file is empty")
    fails(lambda: read(write(tmp_path, "blank.jsonl", "\n \n")), "no records")
    fails(lambda: read(write(tmp_path, "head.csv", "text,label\n")), "no records")


def test_not_utf8_says_where_and_how_to_mend(tmp_path):
    latin = write(tmp_path, "a.txt", b"one\ncaf\xe9\n")
    fails(lambda: read(latin), "a.txt", "line 2", "byte 0xe9 at offset 7", "iconv -f cp1252 -t utf-8 a.txt")
    fails(lambda: read(write(tmp_path, "b.csv", "text\nx".encode("utf-16"))), "b.csv: line 1", "iconv -f utf-16")
    marked = write(tmp_path, "c.txt", b"\xef\xbb\xbfab\xe9")
    fails(lambda: read(marked), "offset 5")


def test_broken_json_says_line_and_column(tmp_path):
    fails(lambda: read(write(tmp_path, "a.jsonl", '{"text": "a"}\n{"text": }\n')), "a.jsonl: line 2", "column 10")
    fails(lambda: read(write(tmp_path, "a.json", '[\n{"text": "a"},\n{"text" "b"}]')), "a.json: line 3", "column 9")
    fails(lambda: read(write(tmp_path, "b.jsonl", "[1]\n")), "line 1", "JSON object", "list")
    fails(lambda: read(write(tmp_path, "b.json", '{"data": []}')), "must be a list", "'data'")


def test_missing_column_lists_those_present(tmp_path):
    fails(lambda: read(write(tmp_path, "a.csv", "txet,n\na,1\n")), "line 2", "present: txet, n", "did you mean text?")
    rows = '[{"text": "a", "label": "x"},\n\n {"text": "b", "lable": "y"}]'
    fails(lambda: read(write(tmp_path, "a.json", rows)), "line 3", "item 2", "no column 'label'", "did you mean lable?")


@pytest.mark.parametrize(
    ("row", "parts"),
    [
        ('{"text": 3}', ("'text' must be a text", "a number")),
        ('{"text": null}', ("null",)),
        ('{"text": "  "}', ("'text' is empty",)),
        ('{"text": "a", "label": 1.5}', ("'label' must be",)),
        ('{"text": "a", "label": ""}', ("'label' is empty",)),
        ('{"text": "a", "label": "x", "context": 3}', ("'context'",)),
        ('{"messages": []}', ("list of messages",)),
        ('{"messages": "hello"}', ("not JSON",)),
        ('{"messages": ["hello"]}', ("message 1", "object")),
        ('{"messages": [{"role": "user"}]}', ("message 1", "'content'")),
    ],
)
def test_wrong_types(tmp_path, row, parts):
    fails(lambda: read(write(tmp_path, "a.jsonl", row)), "a.jsonl: line 1", *parts)


def test_broken_tables(tmp_path):
    fails(lambda: read(write(tmp_path, "a.csv", "text,label\na,x\na, b,x\n")), "line 3", "3 fields", "header has 2")
    fails(lambda: read(write(tmp_path, "b.csv", 'text\n"a\nb\n')), "line 2", "broken table")
    fails(lambda: read(write(tmp_path, "c.csv", "text,text\na,b\n")), "line 1", "'text' stands twice")


def test_load_data_file_folder_and_mapping(tmp_path):
    row = '{"text": "%s", "label": "x"}'
    folder = tmp_path / "set"
    folder.mkdir()
    for name in ("train", "validation", "test", "notes-on-train"):
        write(folder, f"{name}.jsonl", row % name)
    data = load_data(folder)
    assert {k: v[0].text for k, v in data.items()} == {"train": "train", "dev": "validation", "test": "test"}
    assert data.name == "set" and data.facts["labels"] == ["x"]
    assert data.facts["counts"] == {"train": 1, "dev": 1, "test": 1}
    assert list(load_data("set/test.jsonl", base=tmp_path)) == ["test"]
    assert list(load_data(write(tmp_path, "notes.txt", "a"))) == ["text"]
    assert list(load_data(write(tmp_path, "rows.jsonl", row % "a"))) == ["train"]
    mapping = {"train": "set/train.jsonl", "text": {"path": "notes.txt", "paragraphs": True}}
    data = load_data(mapping, base=tmp_path)
    assert data["text"] == [Text("a")] and data["train"][0].text == "train"


def test_load_data_takes_files_that_end_in_a_split(tmp_path):
    for name in ("imdb.train", "imdb.val"):
        write(tmp_path, f"{name}.jsonl", '{"text": "a"}')
    assert list(load_data(tmp_path)) == ["train", "dev"]
    write(tmp_path, "yelp.train.jsonl", '{"text": "a"}')
    fails(lambda: load_data(tmp_path), "two files for 'train'", "imdb.train.jsonl", "yelp.train.jsonl")


def test_load_data_refuses_clearly(tmp_path):
    fails(lambda: load_data("python-doc", base=tmp_path), "did you mean python-docs?")
    fails(lambda: load_data({}), "no splits")
    fails(lambda: load_data({"train": 3}), "data.train", "wanted a path")
    fails(lambda: load_data({"train": {"pth": "x"}}), "unknown key 'pth'", "did you mean path?")
    fails(lambda: load_data({"train": {"limit": 1}}), "no path")
    write(tmp_path, "x.txt", "a")
    fails(lambda: load_data(tmp_path), "no train, dev or test file", "x.txt")


def test_shared_data_follows_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("INTARSIA_DATA", str(tmp_path))
    assert shared_data("meld") is None
    (tmp_path / "meld").mkdir()
    assert shared_data("meld") == tmp_path / "meld"


@pytest.mark.real
@pytest.mark.parametrize(("name", "counts"), [("meld", (9989, 1109, 2610)), ("emorynlp", (7551, 954, 984))])
def test_dialogue_sets(name, counts):
    if (folder := shared_data(f"dialogue/{name}")) is None:
        pytest.skip(f"no data: set INTARSIA_DATA to a folder with dialogue/{name}")
    data = load_data(folder)
    assert tuple(len(data[split]) for split in ("train", "dev", "test")) == counts
    assert len(data.facts["labels"]) == 7 and data["test"][0].group is not None


def test_rationales_are_characters_or_words(tmp_path):
    line = '{"text": "A bad, bad film", "label": "bad", "rationale": %s}'
    rows = [line % "[[2, 5], [7, 10]]", line % '["bad", "film"]', line % "[]", line % "null", line % '"I felt so"']
    spans = [((2, 5), (7, 10)), ((2, 5), (11, 15)), ()]
    found = read(write(tmp_path, "a.jsonl", "\n".join(rows)))
    assert found[:3] == [RationaleText("A bad, bad film", "bad", rationale=s) for s in spans]
    assert found[3:] == [LabelledText("A bad, bad film", "bad")] * 2  # none, and prose
    table = write(tmp_path, "b.csv", 'text,label,evidence\n"A bad film",bad,"[[2, 5]]"\n"A bad film",bad,\n')
    assert read(table) == [RationaleText("A bad film", "bad", rationale=((2, 5),)), LabelledText("A bad film", "bad")]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ('["good"]', "'good' does not occur in the text"),
        ("[[2, 99]]", "[2, 99] is no [start, end] in a text of 10 characters"),
        ("[[5, 2]]", "is no [start, end]"),
        ("[[1]]", "is no [start, end]"),
        ('{"a": 1}', "must be a list of [start, end] or of words, is an object"),
    ],
)
def test_bad_rationales(tmp_path, value, words):
    row = '{"text": "A bad film", "label": "bad", "rationale": VALUE}'.replace("VALUE", value)
    fails(lambda: read(write(tmp_path, "a.jsonl", row)), "a.jsonl: line 1", "rationale", words)
