"""Documents from every kind of file and folder, and what is said of those that cannot be read."""

from __future__ import annotations

import gzip
import io
import json
import lzma
import sys
import warnings
import zipfile
from collections import Counter
from pathlib import Path

import pytest

from intarsia.data import Document, load_data, read, shared_data
from intarsia.data.documents import BadLabel, read_documents
from intarsia.data.documents.pdf import joined
from intarsia.errors import MissingExtra, Note
from tests.failing import fails


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def lines(folder: Path, *rows: dict, name: str = "a.jsonl") -> Path:
    return write(folder, name, "".join(json.dumps(row) + "\n" for row in rows))


def pdf(*pages: str) -> bytes:
    """A PDF with a page for each text, a line of it under the other."""
    objects = ["", "", "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>"]
    kids = []
    for page in pages:
        shown = " T* ".join(f"({line}) Tj" for line in page.split("\n") if line)
        stream = f"BT /F1 12 Tf 14 TL 50 700 Td {shown} ET" if shown else ""
        objects.append(f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream")
        kids.append(f"{len(objects) + 1} 0 R")
        objects.append(
            "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] "
            f"/Resources << /Font << /F1 3 0 R >> >> /Contents {len(objects)} 0 R >>"
        )
    objects[0] = "<< /Type /Catalog /Pages 2 0 R >>"
    objects[1] = f"<< /Type /Pages /Kids [{' '.join(kids)}] /Count {len(kids)} >>"
    out, places = b"%PDF-1.4\n", []
    for number, content in enumerate(objects, 1):
        places.append(len(out))
        out += f"{number} 0 obj\n{content}\nendobj\n".encode("latin-1")
    table = "".join(f"{place:010d} 00000 n \n" for place in places)
    end = f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}trailer\n"
    return out + f"{end}<< /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{len(out)}\n%%EOF\n".encode()


def test_plain_files_are_one_document_each(tmp_path):
    path = write(tmp_path, "a.txt", "\ufeffOne line.\r\n\r\nAnother – line.\n")
    assert read_documents(path) == [Document("One line.\n\nAnother – line.\n", name="a.txt")]
    assert read_documents(str(write(tmp_path, "b.MD", "# One\n\nTwo."))) == [Document("# One\n\nTwo.", name="b.MD")]
    packed = write(tmp_path, "c.txt.gz", gzip.compress(b"packed"))
    assert read_documents(packed, 1) == [Document("packed", name="c.txt.gz")]


def test_standard_input(monkeypatch):
    class Bytes:
        buffer = io.BytesIO("Größe\r\n".encode())

    monkeypatch.setattr(sys, "stdin", Bytes)
    assert read_documents("-") == [Document("Größe\n", name="standard input")]
    monkeypatch.setattr(sys, "stdin", io.StringIO("words"))
    assert read_documents(Path("-"))[0].text == "words"
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    fails(lambda: read_documents("-"), "standard input: is empty")
    Bytes.buffer = io.BytesIO(b"caf\xe9")
    monkeypatch.setattr(sys, "stdin", Bytes)
    fails(lambda: read_documents("-"), "standard input: line 1: not UTF-8", "iconv -f cp1252 -t utf-8")


def test_what_is_no_text(tmp_path):
    for content, said in (
        (b"", "is empty"),
        (b" \n\t\n", "is empty"),
        (b"ab\0cd", "is binary"),
        (b"\x89PNG\r\n\x1a\n\0\0", "is binary"),
        (b"%PDF-1.7 ...", "a PDF: name it .pdf"),
        (b"PK\x03\x04...", "name it .docx"),
        (b"{\\rtf1 a}", "rich text"),
        (b"caf\xe9", "line 1: not UTF-8 (byte 0xe9 at offset 3)"),
        ("a".encode("utf-16"), "iconv -f utf-16"),
    ):
        path = write(tmp_path, "a.txt", content)
        assert fails(lambda path=path: read_documents(path), said).startswith(f"{path}: ")
    fails(lambda: read_documents(write(tmp_path, "b.txt.gz", b"no gzip")), "b.txt.gz: cannot be read")
    fails(lambda: read_documents(write(tmp_path, "c.txt.gz", gzip.compress(b"a" * 999)[:-12])), "cannot be read")
    fails(lambda: read_documents(write(tmp_path, "a.doc", "x")), "unknown format '.doc'; save it as .docx", ".jsonl")
    fails(lambda: read_documents(write(tmp_path, "a.docx.gz", "x")), "unknown format '.docx'")
    fails(lambda: read_documents(tmp_path / "a.tx"), "no such file", "did you mean a.txt")
    fails(lambda: read_documents(tmp_path / "a.txt", 0), "limit must be at least 1, given: 0")


def test_word_documents(tmp_path):
    docx = pytest.importorskip("docx")
    document = docx.Document()
    document.add_heading("On cats", 0)
    document.add_heading("Their  habits", 2)
    paragraph = document.add_paragraph("Cats purr\tand ")
    paragraph.add_run("sleep.").bold = True
    paragraph.add_run().add_break()
    paragraph.add_run("A lot.")
    document.add_paragraph("")
    table = document.add_table(2, 2)
    for cell, text in zip(table._cells, ("a", "b|c", "1", "2"), strict=True):
        cell.text = text
    document.add_table(1, 1).cell(0, 0).text = "In a frame."
    # What tracked changes put in is text, and what they took out is none.
    tracked = document.add_paragraph("Kept")
    word = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
    for tag, inner, text in (("ins", "t", " in"), ("del", "delText", " out"), ("moveFrom", "t", " moved")):
        change = tracked._p.makeelement(f"{{{word}}}{tag}", {})
        run = change.makeelement(f"{{{word}}}r", {})
        said = run.makeelement(f"{{{word}}}{inner}", {})
        said.text = text
        run.append(said)
        change.append(run)
        tracked._p.append(change)
    path = tmp_path / "a.docx"
    document.save(str(path))
    (read_back,) = read_documents(path)
    assert read_back == Document(
        "# On cats\n\n## Their habits\n\nCats purr\tand sleep.\nA lot.\n\n| a | b\\|c |\n| --- | --- |\n| 1 | 2 |\n\n"
        "In a frame.\n\nKept in",
        name="a.docx",
    )


def test_word_documents_that_cannot_be_read(tmp_path, monkeypatch):
    docx = pytest.importorskip("docx")
    empty = tmp_path / "empty.docx"
    docx.Document().save(str(empty))
    fails(lambda: read_documents(empty), "empty.docx: has no text in it")
    fails(lambda: read_documents(write(tmp_path, "a.docx", "words")), "a.docx: not a readable .docx file")
    fails(lambda: read_documents(write(tmp_path, "b.docx", b"\xd0\xcf\x11\xe0 old")), "an old Word document")
    with zipfile.ZipFile(tmp_path / "c.docx", "w") as file:
        file.writestr("a.txt", "words")
    fails(lambda: read_documents(tmp_path / "c.docx"), "c.docx: not a readable .docx file")
    monkeypatch.setitem(sys.modules, "docx", None)
    fails(lambda: read_documents(empty), "reading .docx", "intarsia[detect]", error=MissingExtra)


def test_pdf_by_page(tmp_path):
    pytest.importorskip("pypdf")
    path = write(tmp_path, "a.pdf", pdf("Cats are ani-\nmals, well-\nknown ones.", "", "The well-known end."))
    assert read_documents(path) == [Document("Cats are animals, well-known ones.\n\nThe well-known end.", name="a.pdf")]
    assert joined("co-\nOperate, x-\n1, a-\nb") == "co-Operate, x-\n1, ab"


def test_pdf_that_cannot_be_read(tmp_path, monkeypatch, caplog):
    pypdf = pytest.importorskip("pypdf")
    fails(
        lambda: read_documents(write(tmp_path, "scan.pdf", pdf("", ""))), "2 pages without any text", "scan", "ocrmypdf"
    )
    fails(lambda: read_documents(write(tmp_path, "a.pdf", "words")), "a.pdf: not a readable PDF")
    fails(lambda: read_documents(write(tmp_path, "b.pdf", pdf("Cats.")[:200])), "b.pdf: not a readable PDF")
    writer = pypdf.PdfWriter(io.BytesIO(pdf("Secret cats.")))
    writer.encrypt("cat", algorithm="RC4-128")
    writer.write(tmp_path / "c.pdf")
    fails(lambda: read_documents(tmp_path / "c.pdf"), "c.pdf: needs a password")
    assert not caplog.records
    monkeypatch.setitem(sys.modules, "pypdf", None)
    fails(lambda: read_documents(tmp_path / "scan.pdf"), "reading .pdf", "intarsia[detect]", error=MissingExtra)


FULL = {
    "id": "x/1", "text": "Cats purr.", "label": "machine", "corpus": "essay", "topic": 7, "title": "On cats",
    "lang": "en-GB", "group": "", "generator": "gpt-4", "prompt": "plain", "split": "train", "n_words": 2,
}  # fmt: skip


def test_columns_of_tables(tmp_path):
    path = lines(tmp_path, FULL, {**FULL, "label": "human", "generator": "human", "prompt": "none", "group": "pupils"})
    machine, human = read_documents(path)
    assert machine == Document(
        "Cats purr.", "machine", "essay/7", name="x/1", domain="essay", task="On cats", language="en",
        generator="gpt-4", prompt="plain", split="train",
    )  # fmt: skip
    assert (human.writers, human.generator, human.prompt, human.group) == ("pupils", "", "", "essay/7")
    # Other names for the same, and a group where there is no topic.
    (one,) = read_documents(
        lines(tmp_path, {"Essay": "Cats.", "name": 3, "domain": "d", "Group": "g", "writers": "w", "task": "",
                         "title": "t", "language": "DE", "model": "m", "split": "validation"}, name="b.jsonl")
    )  # fmt: skip
    assert one == Document(
        "Cats.", group="d/g", name="3", domain="d", task="t", language="de", writers="w", generator="m", split="cal"
    )
    assert read_documents(lines(tmp_path, {"text": "a"}, {"text": "b", "group": "g"}, name="c.jsonl")) == [
        Document("a", name="c.jsonl#1"), Document("b", group="g", name="c.jsonl#2"),
    ]  # fmt: skip


def test_every_format_of_tables(tmp_path):
    wanted = [Document("One.", "human", name="1"), Document("Two.", "machine", name="2")]
    rows = [{"text": "One.", "label": "human", "id": "1"}, {"text": "Two.", "label": "ai", "id": "2"}]
    table = "text,label,id\nOne.,human,1\nTwo.,ai,2\n"
    jsonl = "".join(json.dumps(row) + "\n" for row in rows)
    for path in (
        lines(tmp_path, *rows),
        write(tmp_path, "a.jsonl.gz", gzip.compress(jsonl.encode())),
        write(tmp_path, "a.jsonl.xz", lzma.compress(jsonl.encode())),
        write(tmp_path, "a.json", json.dumps(rows)),
        write(tmp_path, "a.csv", table),
        write(tmp_path, "a.csv.gz", gzip.compress(table.encode())),
        write(tmp_path, "a.tsv", table.replace(",", "\t")),
    ):
        assert read_documents(path) == wanted
        assert read_documents(path, 1) == wanted[:1]
    long = "cat " * 50_000  # longer than a cell may be by default
    assert read_documents(write(tmp_path, "long.csv", f"text\n{long}\n"))[0].text == long
    assert read_documents(write(tmp_path, "b.json", '["One."]')) == [Document("One.", name="b.json#1")]


def test_parquet(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"text": ["One."], "label": ["real"], "topic": [float("nan")], "id": [7]}), path)
    assert read_documents(path) == [Document("One.", "human", name="7")]
    packed = write(tmp_path, "b.parquet.gz", gzip.compress(path.read_bytes()))
    assert read_documents(packed)[0].text == "One."


@pytest.mark.parametrize(
    ("said", "label"),
    [
        ("human", "human"), ("Real", "human"), ("human-written", "human"), ("Human_Text", "human"),
        ("student", "human"), ("AI", "machine"), ("generated", "machine"), ("llm", "machine"),
        ("AI-generated", "machine"), ("Chat GPT", "machine"), ("machine_generated", "machine"),
        ("polished", "polished"), ("ai-edited", "polished"), ("LLM rewritten", "polished"), ("Mixed", "mixed"),
        ("human+AI", "mixed"), ("co-written", "mixed"), ("", ""), ("unknown", ""), (None, ""),
        ("gardener", None), (1, None), ("0", None), (True, None), (["human"], None),
    ],
)  # fmt: skip
def test_labels_in_the_usual_words(tmp_path, said, label):
    path = lines(tmp_path, {"text": "a", "label": "human"}, {"text": "b", "label": said})
    if label is None:
        message = fails(lambda: read_documents(path), "a.jsonl: line 2", "label", error=BadLabel)
        assert "human" in message and "machine" in message
    else:
        assert read_documents(path)[1].label == label


def test_columns_that_ask_whether_it_is_a_machine(tmp_path):
    table = "id,text,generated\n1,a,0\n2,b,1\n3,c,True\n4,d,no\n5,e,\n"
    assert [d.label for d in read_documents(write(tmp_path, "a.csv", table))] == [
        "human", "machine", "machine", "human", "",
    ]  # fmt: skip
    fails(
        lambda: read_documents(write(tmp_path, "b.csv", "text,is_ai\na,perhaps\n")), "line 2", "'is_ai' must be 1 or 0"
    )


def test_what_is_wrong_with_a_table(tmp_path):
    fails(lambda: read_documents(write(tmp_path, "a.csv", "txet,label\na,ai\n")), "line 2: no column 'text'", "txet")
    fails(lambda: read_documents(write(tmp_path, "b.csv", 'text\na\n\n""\n')), "line 4", "'text' is empty")
    fails(lambda: read_documents(lines(tmp_path, {"text": 3})), "line 1: 'text' must be a text, is a number")
    fails(lambda: read_documents(lines(tmp_path, {"text": "a", "title": ["b"]})), "'title' must be a text or a number")
    fails(
        lambda: read_documents(lines(tmp_path, {"text": "a", "split": "trian"})), "unknown split 'trian'", "mean train"
    )
    fails(lambda: read_documents(write(tmp_path, "c.jsonl", "\n")), "c.jsonl: no documents in it")
    fails(lambda: read_documents(write(tmp_path, "d.jsonl", '{"text": ')), "line 1", "not valid JSON")


def test_folders_give_label_and_domain(tmp_path):
    write(tmp_path, "free.txt", "Free.")
    write(tmp_path, "human/b10.txt", "Ten.")
    write(tmp_path, "human/b2.txt", "Two.")
    write(tmp_path, "essays/2020/Machine/c.md", "Made.")
    write(tmp_path, "polished/essays/d.txt", "Better.")
    write(tmp_path, "mixed/human/e.txt", "Inner.")
    lines(
        tmp_path / "machine/news",
        {"text": "a"},
        {"text": "b", "label": "human", "domain": "x", "topic": "t", "id": "B"},
    )
    for name in (".hidden.txt", ".git/a.txt", "__MACOSX/a.txt", "README.md", "human/LICENSE", "~$lock.docx"):
        write(tmp_path, name, "no document")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = read_documents(tmp_path)
    assert found == [
        Document("Made.", "machine", name="essays/2020/Machine/c.md", domain="essays/2020"),
        Document("Free.", name="free.txt"),
        Document("Two.", "human", name="human/b2.txt"),
        Document("Ten.", "human", name="human/b10.txt"),
        Document("a", "machine", name="machine/news/a.jsonl#1", domain="news"),
        Document("b", "human", "x/t", name="B", domain="x"),
        Document("Inner.", "human", name="mixed/human/e.txt"),
        Document("Better.", "polished", name="polished/essays/d.txt", domain="essays"),
    ]
    assert read_documents(tmp_path, 5) == found[:5]
    assert read_documents(tmp_path / "human", 1) == [Document("Two.", name="b2.txt")]


def test_what_a_folder_leaves_out_is_told_once(tmp_path):
    write(tmp_path, "a.txt", "Good.")
    for number in range(8):
        write(tmp_path, f"pictures/{number}.png", b"\x89PNG")
    write(tmp_path, "b.txt", b"\0\1")
    write(tmp_path, "c.csv", "index,score\n1,2\n")
    write(tmp_path, "d.pdf", "no pdf")
    with pytest.warns(Note) as notes:
        assert [d.name for d in read_documents(tmp_path)] == ["a.txt"]
    (note,) = notes
    said = str(note.message)
    assert said.startswith(f"{tmp_path}: left out 11 files: b.txt (is binary, not text;") and "\n" not in said
    assert "c.csv (line 2: no column 'text'" in said and "d.pdf (not a readable PDF" in said
    assert "pictures/4.png and 3 more (no format of documents)" in said


def test_a_folder_without_documents(tmp_path):
    fails(lambda: read_documents(tmp_path), "no documents in it", ".txt, .md, .docx, .pdf")
    write(tmp_path, "a.txt", "")
    fails(lambda: read_documents(tmp_path), "no documents in it", "left out 1 file: a.txt (is empty")


def test_half_of_a_table_is_worse_than_none(tmp_path):
    write(tmp_path, "a.txt", "Good.")
    table = lines(tmp_path, {"text": "a"}, {"text": ""}, name="b.jsonl")
    fails(lambda: read_documents(tmp_path), "b.jsonl: line 2", "'text' is empty")
    lines(tmp_path, {"text": "a", "label": "gardener"}, name="b.jsonl")
    fails(lambda: read_documents(tmp_path), "b.jsonl: line 1", "unknown label 'gardener'", error=BadLabel)
    table.unlink()
    assert len(read_documents(tmp_path)) == 1


def test_documents_as_a_kind_that_must_be_asked_for(tmp_path):
    path = lines(tmp_path, FULL)
    assert read(path, "document") == read_documents(path)
    assert type(read(path)[0]) is not Document
    assert read(write(tmp_path, "t/a.txt", "One.\nTwo."), "document") == [Document("One.\nTwo.", name="a.txt")]
    assert read(tmp_path / "t", "document")[0].text == "One.\nTwo."
    data = load_data({"train": {"path": str(path), "kind": "document"}})
    assert isinstance(data["train"][0], Document) and data.facts["labels"] == ["machine"]
    fails(lambda: read(path, "documents"), "unknown kind of record 'documents' (did you mean document")


def test_packed_records_of_other_kinds(tmp_path):
    path = write(tmp_path, "a.jsonl.gz", gzip.compress(b'{"text": "a"}\n{"text": "b"}\n'))
    assert [record.text for record in read(path)] == ["a", "b"]
    bad = write(tmp_path, "b.csv.gz", gzip.compress(b"text\ncaf\xe9\n"))
    fails(lambda: read(bad), "b.csv.gz: line 2: not UTF-8", "iconv -f cp1252 -t utf-8")


@pytest.mark.real
def test_the_corpora_of_detection():
    if (folder := shared_data("detect")) is None:
        pytest.skip("no data: set INTARSIA_DATA to a folder with detect")
    with pytest.warns(Note, match=r"left out 1 file: peer_scores\.csv\.gz"):
        found = read_documents(folder)
    assert len(found) == 26_409 == len({document.name for document in found})
    assert Counter(document.label for document in found) == {
        "human": 4116, "machine": 18_786, "polished": 3018, "mixed": 489,
    }  # fmt: skip
    assert {document.split for document in found} == {"train", "cal", "test"}
    assert all(document.group and document.domain and document.language in ("en", "zh") for document in found)
    assert all((document.label == "human") == (not document.generator) for document in found)
    assert {d.writers for d in found if d.domain == "toefl"} == {"", "nonnative_toefl"}
    essays = [document for document in found if document.domain == "essay"]
    assert len({document.group for document in essays}) == 500 and all(document.task for document in essays)
    # One file alone reads the same.
    assert read_documents(folder / "toefl.jsonl.gz") == [document for document in found if document.domain == "toefl"]
