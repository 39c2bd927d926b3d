"""Words of texts and questions: names of programs whole and in parts, any script, and never a syntax error."""

import sqlite3

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from intarsia.prompting.data import SourceDocument, Store
from intarsia.prompting.data.store.database import TOKENIZE
from intarsia.prompting.data.store.words import asked, indexed, is_name, words_of


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("os.path.join(a)", ["os.path.join_", "os", "path", "join", "a"]),
        ("read_text __init__", ["read_text_", "read", "text", "__init_", "init"]),
        ("HTTPServer parseXML2", ["httpserver_", "http", "server", "httpserver", "parsexml2_", "parse", "xml", "2",
                                  "parsexml2"]),
        ("End. Next word", ["end", "next", "word"]),
        ("東京都 go", ["東", "京", "都", "東京", "京都", "go"]),
        ("naïve Straße", ["naïve", "strasse"]),
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
        ("a-b + c/d", ["a", "b", "c", "d"]),
        ("", []),
    ],
)  # fmt: skip
def test_words(text, wanted):
    assert list(words_of(text)) == wanted


@pytest.fixture(scope="module")
def index():
    connection = sqlite3.connect(":memory:")
    connection.execute(f'CREATE VIRTUAL TABLE words USING fts5 (heading, body, tokenize="{TOKENIZE}")')
    connection.execute("INSERT INTO words VALUES (?, ?)", (indexed("Title"), indexed("some text")))
    return connection


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(), st.text(st.sampled_from("\"'*^:-+()[]{}ANDORNOT NEAR\\\0\ud800a.漢_"))))
@example('" OR 1')
@example("NEAR(a b, 3)")
@example("heading : x")
@example("\0\ud800")
@example("a*" * 200)
def test_any_text_is_a_question(index, text):
    wanted = asked(text)
    if wanted:
        index.execute("SELECT rowid FROM words WHERE words MATCH ?", (wanted,)).fetchall()
        # What is asked with the words of a text is found in it.
        index.execute("SAVEPOINT s")
        row = index.execute("INSERT INTO words VALUES ('', ?)", (indexed(text),)).lastrowid
        found = index.execute("SELECT rowid FROM words WHERE words MATCH ?", (wanted,)).fetchall()
        index.execute("ROLLBACK TO s")
        index.execute("RELEASE s")
        assert (row,) in found
    else:
        assert not any(char.isalnum() for char in text)


@pytest.mark.parametrize(
    ("query", "first"),
    [
        ("os.path.join", "a"), ("json.loads", "b"), ("json.load", "c"), ("HttpServer", "d"),
        ("server", "d"), ("joining paths", "a"), ("東京", "e"), ("京都", "f"), ("東", "e"), ("cafe", "g"),
        ("CAFÉ", "g"),
        ("ภาษา", "h"), ("how do I read_text?", "i"), ("join's \"quotes\" (AND", "a"),
    ],
)  # fmt: skip
def test_found_by_words(tmp_path, query, first):
    documents = {
        "a": "os.path.join joins path components.", "b": "Use json.loads for a str.", "c": "json.load reads a file.",
        "d": "HTTPServer listens on a port.", "e": "東京は日本の首都です。", "f": "京都は古い。",
        "g": "Un café, please.",
        "h": "ฉันเรียนภาษาไทย", "i": "Path.read_text returns the contents.", "z": "Nothing of it.",
    }  # fmt: skip
    with Store.open(tmp_path / "s", None) as store:
        store.add([SourceDocument(text, name) for name, text in documents.items()])
        assert store.search(query, 3, mode="words")[0].source == first


def test_headings_count_more(tmp_path):
    with Store.open(tmp_path / "s", None) as store:
        store.add(
            [SourceDocument("A word on kettles.", "a"), SourceDocument("A word on it all.", "b", title="Kettles")]
        )
        assert [hit.source for hit in store.search("kettle")] == ["b", "a"]


def test_what_is_a_name():
    for name in ("os.path.join", "json.loads()", "read_text", "HTTPServer", "`a.b`"):
        assert is_name(name)
    for text in ("join", "what is os.path.join", "Join", "a.b c.d", "", "東京"):
        assert not is_name(text)
