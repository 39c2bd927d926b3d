"""`intarsia store`, as a person types it."""

import json

import pytest

from intarsia.cli.app import run
from intarsia.data import Fact, FactSnapshot
from intarsia.knowledge.store import place


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "kettle.md").write_text("# Kettle\n\nThe warranty is two years.\n\n## Care\n\nNo soap.\n")
    (tmp_path / "docs" / "pan.md").write_text("# Pan\n\nThe warranty is one year.<!-- SECRET -->\n")
    return tmp_path


def said(capsys, *arguments, code=0):
    assert run(["store", *arguments]) == code
    captured = capsys.readouterr()
    return captured.out if code == 0 else captured.err


def test_added_searched_shown_removed(folder, capsys):
    out = said(capsys, "add", "book", "docs", "--encoder", "none", "--where", "year=2024", "--where", 'code="007"')
    assert out == "book: 2 new, 0 changed, 0 unchanged, 0 removed; 3 chunks, 0 embedded\n"
    assert "2 unchanged" in said(capsys, "add", "book", "docs", "--where", "year=2024", "--where", 'code="007"')
    out = said(capsys, "search", "book", "kettle warranty", "-k", "1")
    assert out.startswith("[1] Kettle\n    docs/kettle.md#kettle   words ") and "two years" in out
    found = json.loads(
        said(capsys, "search", "book", "warranty", "--where", "year>=2024", "--where", "year<2025", "--json")
    )
    assert {hit["citation"] for hit in found["hits"]} == {"docs/kettle.md#kettle", "docs/pan.md#pan"}
    assert found["hits"][0]["metadata"] == {"year": 2024, "code": "007"} and "SECRET" not in json.dumps(found)
    assert "nothing found" in said(capsys, "search", "book", "warranty", "--where", "year=2020,2021")
    shown = json.loads(said(capsys, "show", "book", "--json"))
    assert shown["encoder"] is None and [row["hidden"] for row in shown["documents"]] == [0, 1]
    assert "2 documents, 3 chunks, 0 facts; encoder: none" in said(capsys, "show", "book")
    context = json.loads(said(capsys, "search", "book", "warranty", "--context", "40", "--json"))
    assert context["tokens"] <= 40 and len(context["dropped"]) == 1
    (folder / "docs" / "pan.md").unlink()
    out = said(capsys, "add", "book", "docs", "--remove-missing", "--where", "year=2024", "--where", 'code="007"')
    assert "1 unchanged, 1 removed" in out
    assert said(capsys, "remove", "book", "docs") == "book: 1 document removed\n"


def test_facts(folder, capsys):
    (folder / "facts.tsv").write_text("Kettle\tmade_by\tSmith\nSmith\tlives_in\tLeeds\n")
    assert said(capsys, "link", "book", "facts.tsv", "--json") and json.loads(
        said(capsys, "show", "book", "--json")
    )["facts"] == {"facts.tsv": 2}  # fmt: skip
    out = said(capsys, "search", "book", "Who made the Kettle?", "--hops", "2", "--mode", "words")
    assert "[E1] Kettle made by Smith" in out and "[E1+E2] Kettle made by Smith; Smith lives in Leeds" in out
    assert "intarsia knowledge grow facts.tsv" in said(capsys, "link", "book", "facts.tsv", "--predicted", "1", code=2)


def test_facts_of_python_need_no_file(folder, capsys, monkeypatch):
    snapshot = FactSnapshot("3.11", [Fact("json", "has_function", "json.dumps")], test=[Fact("json", "is_a", "module")])
    monkeypatch.setitem(place.KNOWN, "python", lambda: [snapshot])  # (reading the whole library takes seconds)
    assert said(capsys, "link", "book", "python") == "book: 2 new facts\n"
    assert json.loads(said(capsys, "show", "book", "--json"))["facts"] == {"python": 2}
    assert "intarsia knowledge grow python" in said(capsys, "link", "book", "python", "--predicted", "1", code=2)
    assert "give the folder of one, a file of facts" in said(capsys, "link", "book", "pyhton", code=2)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("search", "none", "x"), "none: no store there; `intarsia store add none SOURCE`"),
        (("add", "docs", "docs", "--encoder", "none"), "docs: holds other things"),
        (("add", "book", "nothing", "--encoder", "none"), "nothing: no such file"),
        (("add", "book", "docs", "--where", "year", "--encoder", "none"), "--where year: give NAME=VALUE"),
        (("add", "book", "docs", "--where", "year>3", "--encoder", "none"), "--where year>3: give NAME=VALUE"),
        (("add", "book", "docs", "--encoder", "no-such-model-here/x/y"), "no-such-model-here/x/y"),
    ],
)
def test_what_is_wrong_is_told_in_a_line(folder, capsys, arguments, error):
    message = said(capsys, *arguments, code=2)
    assert error in message and message.count("\n") == 1


def test_help_has_examples(capsys):
    for name in ("add", "search", "show", "remove", "reembed", "link"):
        assert "Example:\n  intarsia store " in said(capsys, name, "--help")
