"""Documents from files, folders, tables, databases and pictures."""

import sqlite3
import warnings

import pytest

from intarsia.errors import BadInput, MissingExtra, Note
from intarsia.prompting.data import Section, load_documents
from intarsia.prompting.data.loading import source_name
from tests.test_data_documents import pdf


def write(folder, name, content):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def one(source, **options):
    (document,) = load_documents(source, **options)
    return document


def test_markdown(tmp_path):
    front = "---\ntitle: Kettles\nyear: 2024\ntags: [hot, tea]\nnested: {a: 1}\n---\n"
    text = front + "Intro.\n\n# Use\n\nBoil.\n\n## Care\n\nClean.\n"
    document = one(write(tmp_path, "a.md", text))
    assert document.title == "Kettles" and document.metadata == {"year": 2024, "tags": ["hot", "tea"]}
    assert document.text.startswith("Intro.") and document.media == "text/markdown"
    assert [(s.path, s.anchor, document.text[s.start : s.end].split()[0]) for s in document.sections] == [
        ((), "", "Intro."), (("Use",), "use", "#"), (("Use", "Care"), "care", "##"),
    ]  # fmt: skip
    assert [s.end for s in document.sections[:-1]] == [s.start for s in document.sections[1:]]
    assert document.sections[-1].end == len(document.text)
    # What looks like front matter and is none stays.
    assert one(write(tmp_path, "b.md", "---\n: : [\n---\ntext")).text == "---\n: : [\n---\ntext"
    hidden = one(write(tmp_path, "c.md", "Seen.<!-- ignore all that -->\n\n`<!-- code -->`\u200b"))
    assert hidden.text == "Seen.\n\n`<!-- code -->`" and hidden.hidden == 2 and hidden.title == "c"


def test_pages_of_a_pdf(tmp_path):
    pytest.importorskip("pypdf")
    document = one(write(tmp_path, "a.pdf", pdf("Cats are ani-\nmals.", "", "The end.")))
    assert document.text == "Cats are animals.\n\nThe end."
    assert document.sections == (Section((), 0, 19, "page=1"), Section((), 19, 27, "page=3"))
    assert document.section_at(0).anchor == "page=1" and document.section_at(20).anchor == "page=3"


def test_word_and_restructured_text(tmp_path):
    docx = pytest.importorskip("docx")
    made = docx.Document()
    made.add_heading("On cats", 0)
    made.add_paragraph("They purr.")
    made.save(str(tmp_path / "a.docx"))
    assert one(tmp_path / "a.docx").sections[0].path == ("On cats",)
    document = one(write(tmp_path, "a.rst", "Cats\n====\n\nPurr.\n\nFood\n----\n\nFish.\n"))
    assert document.title == "Cats" and document.sections[1].path == ("Cats", "Food")


def test_web_pages(tmp_path):
    pytest.importorskip("selectolax")
    document = one(write(tmp_path, "a.html", "<title>T</title><h1 id=x>One</h1><p>a<p hidden>b</p>"))
    assert (document.title, document.hidden, document.sections) == ("T", 1, (Section(("One",), 0, 8, "x"),))


def test_rows_of_tables(tmp_path):
    table = write(
        tmp_path, "a.csv", 'id,title,text,year\n7,One,"First row.",2020\n8,Two,"Second\u200b row.",2021\n9,No,,3\n'
    )
    documents = list(load_documents(table))
    assert [(d.source, d.title, d.text) for d in documents] == [
        (f"{table}#7", "One", "First row."), (f"{table}#8", "Two", "Second row."),
    ]  # fmt: skip
    assert documents[0].metadata == {"id": 7, "year": 2020} and documents[1].hidden == 1
    rows = write(
        tmp_path,
        "b.jsonl",
        '{"q": "Why?", "a": "So.", "n": 3, "tags": ["x", "y"], "o": {"z": 1}}\n{"q": "", "a": ""}\n',
    )
    document = one(rows)
    assert document.text == "q: Why?\na: So.\nn: 3\ntags: x, y\no: z: 1" and document.source == f"{rows}#1"
    document = one(rows, text=("q", "a"), title="q", id="n")
    assert (document.text, document.title, document.source) == ("Why?\n\nSo.", "Why?", f"{rows}#3")
    assert document.metadata == {"n": 3, "tags": ["x", "y"]}
    twice = write(tmp_path, "c.jsonl", '{"id": 1, "text": "a"}\n{"id": 1, "text": "b"}\n')
    assert [d.source for d in load_documents(twice)] == [f"{twice}#1", f"{twice}#row-2"]
    with pytest.raises(BadInput, match=r"no column 'txt'; present: id, text \(did you mean text"):
        list(load_documents(twice, text="txt"))
    with pytest.raises(BadInput, match="no row with text in it"):
        list(load_documents(write(tmp_path, "d.jsonl", '{"text": ""}\n')))


def test_parquet(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    import datetime

    import pyarrow.parquet as parquet

    day = datetime.date(2024, 1, 2)
    table = pyarrow.table(
        {"text": ["One."], "day": [day], "tags": [["a"]], "price": [1.5], "none": [None], "raw": [b"x"]}
    )
    parquet.write_table(table, tmp_path / "a.parquet")
    document = one(tmp_path / "a.parquet")
    assert document.text == "One." and document.metadata == {"day": "2024-01-02", "tags": ["a"], "price": 1.5}


@pytest.fixture
def database(tmp_path):
    path = tmp_path / "shop.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE articles (id INTEGER, title TEXT, body TEXT, price REAL)")
        connection.execute("INSERT INTO articles VALUES (1, 'Kettle', 'Boils water.', 9.5), (2, 'Pan', 'Fries.', 20)")
        connection.execute('CREATE TABLE "odd "" name" (text TEXT)')
        connection.execute('INSERT INTO "odd "" name" VALUES (\'x\')')
    connection.close()
    return path


def test_tables_of_sqlite(database):
    documents = list(load_documents(f"sqlite:{database}?table=articles"))
    assert [(d.title, d.text, d.source) for d in documents] == [
        ("Kettle", "Boils water.", f"sqlite:{database}?table=articles#1"),
        ("Pan", "Fries.", f"sqlite:{database}?table=articles#2"),
    ]  # fmt: skip
    assert documents[0].metadata == {"id": 1, "price": 9.5}
    assert one(f'sqlite:{database}?table=odd " name').text == "x"
    found = one(f"sqlite:{database}?query=SELECT title, body AS text FROM articles WHERE price > 10")
    assert found.text == "Fries."
    assert one(f"sqlite:{database}?query=SELECT * FROM articles WHERE body LIKE '%ries%' AND 1+1 = 2").title == "Pan"
    assert one(f"sqlite:{database}?query=SELECT+body+AS+text+FROM+articles+WHERE+id%3D2").text == "Fries."
    assert one(f"sqlite:{database}?query=WITH a AS (SELECT 'hi' AS text) SELECT * FROM a").text == "hi"


@pytest.mark.parametrize(
    ("rest", "said"),
    [
        ("", "name its rows"), ("?table=", "name its rows"), ("?table=artikles", "did you mean articles"),
        ("?query=DELETE FROM articles", "must be a SELECT"), ("?query=SELECT missing", "no such column: missing"),
        ("?query=SELECT 1; DROP TABLE articles", "one statement"), ("?table=a&query=SELECT 1", "name its rows"),
        ("?query=WITH a AS (SELECT 1) DELETE FROM articles", "not authorized|authoriz"),
        ("?query=SELECT load_extension('x')", "not authorized|no such function"),
    ],
)  # fmt: skip
def test_databases_are_only_read(database, rest, said):
    before = database.read_bytes()
    with pytest.raises(BadInput, match=said):
        list(load_documents(f"sqlite:{database}{rest}"))
    assert database.read_bytes() == before
    assert len(list(load_documents(f"sqlite:{database}?table=articles"))) == 2


def test_databases_through_sqlalchemy(database, monkeypatch):
    pytest.importorskip("sqlalchemy")
    url = f"sqlite:///{database}"
    assert [d.text for d in load_documents(f"{url}?table=articles")] == ["Boils water.", "Fries."]
    assert one(f"{url}?query=SELECT body FROM articles WHERE id = 2").text == "Fries."
    for rest, said in (
        ("?table=artikles", "did you mean articles"), ("?query=DROP TABLE articles", "must be a SELECT"),
        ("?query=WITH a AS (SELECT 1) DELETE FROM articles", "readonly"), ("?query=SELECT missing", "missing"),
    ):  # fmt: skip
        with pytest.raises(BadInput, match=said):
            list(load_documents(f"{url}{rest}"))
    assert len(list(load_documents(f"{url}?table=articles"))) == 2
    with pytest.raises(BadInput, match="nosuchdb"):
        list(load_documents("nosuchdb://host/name?table=x"))
    import sys

    monkeypatch.setitem(sys.modules, "sqlalchemy", None)
    with pytest.raises(MissingExtra, match=r"intarsia\[sql\]"):
        list(load_documents(f"{url}?table=articles"))


def test_a_password_is_no_part_of_a_citation(monkeypatch):
    from intarsia.prompting.data import databases

    monkeypatch.setattr(databases, "_sqlalchemy", lambda *given: iter([("row 1", {"text": "x"})]))
    document = one("postgresql://me:secret@host/db?table=t&sslmode=require")
    assert document.source == "postgresql://me@host/db?table=t#1"


def test_folders_and_patterns(tmp_path):
    write(tmp_path, "docs/b10.md", "Ten.")
    write(tmp_path, "docs/b2.md", "Two.")
    write(tmp_path, "docs/sub/README.md", "Read me.")
    write(tmp_path, "docs/.hidden.md", "no")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [d.text for d in load_documents(tmp_path / "docs")] == ["Two.", "Ten.", "Read me."]
        assert [d.text for d in load_documents(f"{tmp_path}/docs/**/*.md", limit=2)] == ["no", "Ten."]
        assert [d.text for d in load_documents(f"{tmp_path}/docs/b?.md")] == ["Two."]
    write(tmp_path, "docs/a.bin", b"\0")
    write(tmp_path, "docs/a.txt", b"\xff\0")
    write(tmp_path, "docs/p.png", b"\x89PNG")
    with pytest.warns(Note) as notes:
        assert len(list(load_documents(tmp_path / "docs"))) == 3
    (said,) = (str(note.message) for note in notes)
    assert "left out 3 files" in said and "a.bin (no format" in said and "p.png (is a picture: name a model" in said
    write(tmp_path, "docs/z.jsonl", '{"text": "a"}\n{broken\n')
    with pytest.raises(BadInput, match=r"z.jsonl: line 2"):
        list(load_documents(tmp_path / "docs"))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("none.md", "no such file"), ("*.nothing", "no file is called so"), ("https://x.org/a", "nothing is fetched"),
        ("a.doc", "save it as .docx"), ("a.exe", "unknown format '.exe'"), ("e.txt", "is empty"), ("empty",
        "no documents in it"),
    ],
)  # fmt: skip
def test_what_cannot_be_read(tmp_path, name, said):
    (tmp_path / "empty").mkdir()
    for file in ("a.doc", "a.exe"):
        write(tmp_path, file, "x")
    write(tmp_path, "e.txt", "")
    with pytest.raises(BadInput, match=said):
        list(load_documents(name if "://" in name else tmp_path / name))


def test_names_of_sources(tmp_path, monkeypatch):
    assert source_name("./a/../b.md#row") == "b.md#row" and source_name("python-docs") == "python-docs"
    assert source_name("sqlite:x.db?table=../a") == "sqlite:x.db?table=../a"
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "a.txt", "x")
    assert one("./a.txt").source == "a.txt"


def test_equal_contents_equal_hash(tmp_path):
    path = write(tmp_path, "a.md", "# A\n\nx")
    before = one(path).sha256
    assert one(path).sha256 == before
    for text in ("# B\n\nx", "# A\n\ny", "---\nk: 1\n---\n# A\n\nx"):
        assert one(write(tmp_path, "a.md", text)).sha256 != before


def test_pictures_are_described_by_the_model_that_is_named(tmp_path, monkeypatch):
    image = pytest.importorskip("PIL.Image")
    from intarsia.adaptation.clips import writers
    from tests.tiny import tiny

    monkeypatch.setenv("INTARSIA_CACHE", str(tmp_path / "cache"))
    image.new("RGB", (40, 30), "red").save(tmp_path / "red.png")
    calls = []

    class Told:
        prompt = "What is it?"

        def write(self, clips):
            calls.append([picture.size for (picture,) in clips])
            return ["A red square."]

    monkeypatch.setattr(writers, "writer_of", lambda model, **given: Told())
    model = tiny("llama")
    document = one(tmp_path / "red.png", pictures=model)
    assert (document.text, document.title, document.media) == ("A red square.", "red", "image/png")
    assert document.metadata == {"described_by": "tiny-llama"} and calls == [[(40, 30)]]
    assert one(tmp_path / "red.png", pictures=model).text == "A red square." and len(calls) == 1
    with pytest.raises(BadInput, match="is a picture: name a model"):
        one(tmp_path / "red.png")


def test_a_model_without_eyes_is_refused(tmp_path):
    image = pytest.importorskip("PIL.Image")
    from tests.tiny import tiny

    image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    with pytest.raises(BadInput):
        one(tmp_path / "a.png", pictures=tiny("llama"))


@pytest.mark.slow
def test_python_s_own_manual():
    documents = {document.source: document for document in load_documents("python-docs")}
    loads = next(s for s in documents["python:json"].sections if s.anchor == "loads")
    text = documents["python:json"].text[loads.start : loads.end]
    assert loads.path == ("json.loads",) and "Deserialize" in text
    assert "with" in documents["python:topics/with"].text
    assert len(documents) > 150
