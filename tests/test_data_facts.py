"""Facts of knowledge graphs and their snapshots: every format, every error with its file and line."""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import json
import lzma
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from intarsia.data import Fact, FactSnapshot, read_facts, read_snapshots, shared_data
from intarsia.data import fact_tables as fact_tables_module
from intarsia.data import files as files_module
from intarsia.data.files import natural, split_name
from intarsia.errors import BadInput, MissingExtra
from tests.failing import fails

SKIP = "; skip_bad (--skip-bad) leaves such lines out"
AB, BC = Fact("a", "knows", "b"), Fact("b", "knows", "c")


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def tree(folder: Path, files: Mapping[str, str | bytes]) -> Path:
    for name, content in files.items():
        write(folder, name, content)
    return folder


def skipping(path: Path) -> tuple[list[Fact], list[tuple[str, str]]]:
    told: list[tuple[str, str]] = []
    facts = list(read_facts(path, skip_bad=True, on_bad=lambda where, problem: told.append((where, problem))))
    return facts, told


def numbered(*names: str) -> str:
    """A file of facts between neighbours: `numbered("a", "b", "c")` holds (a, r, b) and (b, r, c)."""
    return "".join(f"{one}\tr\t{two}\n" for one, two in itertools.pairwise(names))


# --- formats


@pytest.mark.parametrize("name", ["a.tsv", "a.txt", "a.TSV"])
def test_tabs(tmp_path, name):
    path = write(tmp_path, name, b"\xef\xbb\xbfa\tknows\tb\r\n\r\n  \n b \tknows\tc  ")
    assert list(read_facts(path)) == [AB, BC]
    assert list(read_facts(str(path), limit=1)) == [AB]


def test_a_quotation_mark_between_tabs_is_a_letter(tmp_path):
    assert list(read_facts(write(tmp_path, "a.tsv", '"a"\tsays\t"b\n'))) == [Fact('"a"', "says", '"b')]


def test_commas_and_quotes(tmp_path):
    path = write(tmp_path, "a.csv", '"a, the ""first""",knows, "b, c"\r\n\r\n"two\nlines",r,"x"\n')
    assert list(read_facts(path)) == [Fact('a, the "first"', "knows", "b, c"), Fact("two\nlines", "r", "x")]


@pytest.mark.parametrize(
    "header",
    ["head relation tail", "Subject PREDICATE object", "source rel target", "h r t", "s p o"],
)
@pytest.mark.parametrize("suffix", [".tsv", ".txt", ".csv"])
def test_headers_are_recognised(tmp_path, header, suffix):
    between = "," if suffix == ".csv" else "\t"
    content = f"\n{between.join(header.split())}\n{between.join(['a', 'knows', 'b'])}\n"
    assert list(read_facts(write(tmp_path, f"a{suffix}", content))) == [AB]


def test_headers_in_any_order_with_other_columns(tmp_path):
    rows = "weight\tobject\tsubject\tpredicate\n0.5\tb\ta\tknows\n\tc\tb\tknows\n"
    assert list(read_facts(write(tmp_path, "a.tsv", rows))) == [AB, BC]
    # Where two columns could be meant, the earlier name goes first: `source` says here where it was found.
    rows = "source,tail,relation,head\nbook,b,knows,a\n"
    assert list(read_facts(write(tmp_path, "a.csv", rows))) == [AB]
    fails(
        lambda: list(read_facts(write(tmp_path, "b.tsv", "head\trelation\ttail\tw\na\tknows\tb\n"))),
        f"b.tsv: line 2: 3 fields where the header has 4{SKIP}",
    )


def test_a_first_line_without_all_three_names_is_a_fact(tmp_path):
    assert list(read_facts(write(tmp_path, "a.tsv", "head\tof\ttail\n"))) == [Fact("head", "of", "tail")]


def test_objects_and_lists(tmp_path):
    lines = [
        '{"Subject": "a", "predicate": "knows", "object": "b", "year": null}',
        "",
        '["b", "knows", " c "]',
        '{"t": 1.50, "h": 12345678901234567890, "r": "\\u00e9t\\u00e9"}',
        '["a\u2028b", "r", 0]',
    ]
    found = list(read_facts(write(tmp_path, "a.jsonl", "\ufeff" + "\r\n".join(lines))))
    assert found == [AB, BC, Fact("12345678901234567890", "été", "1.50"), Fact("a\u2028b", "r", "0")]


def test_n_triples_and_n_quads(tmp_path):
    pytest.importorskip("pyoxigraph")
    lines = (
        "# a comment\n<http://x/a> <http://x/p> <http://x/b> . # another\r\n\n"
        '_:n1 <http://x/p> "two\\nlines"@en .\n<http://x/a> <http://x/p> "4"^^<http://x/int> .\n'
    )
    wanted = [
        Fact("http://x/a", "http://x/p", "http://x/b"),
        Fact("_:n1", "http://x/p", "two\nlines"),
        Fact("http://x/a", "http://x/p", "4"),
    ]
    assert list(read_facts(write(tmp_path, "a.nt", lines))) == wanted
    quad = "<http://x/a> <http://x/p> <http://x/b> <http://x/graph> .\n"
    assert list(read_facts(write(tmp_path, "a.nq", quad + lines))) == wanted[:1] + wanted


def test_turtle(tmp_path):
    pytest.importorskip("pyoxigraph")
    content = (
        b"\xef\xbb\xbf@prefix x: <http://x/> .\r\n"
        b'x:a x:p x:b, "text"@en ;\r\n x:q [ x:r 5 ], _:named .\r\nx:b x:q [ x:r true ] .'
    )
    found = list(read_facts(write(tmp_path, "a.ttl", content)))
    a, b = "http://x/a", "http://x/b"
    p, q, r = "http://x/p", "http://x/q", "http://x/r"
    assert set(found) == {
        Fact(a, p, b),
        Fact(a, p, "text"),
        Fact("_:anon1", r, "5"),
        Fact(a, q, "_:anon1"),
        Fact(a, q, "_:named"),
        Fact("_:anon2", r, "true"),
        Fact(b, q, "_:anon2"),
    }
    assert found == list(read_facts(tmp_path / "a.ttl"))


def test_parquet(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    path = tmp_path / "a.parquet"
    columns = {"o": [1, 2.5, float("nan")], "w": [1, 2, 3], "S": ["a", " b", "c"], "p": ["r", "r", "r"]}
    parquet.write_table(pyarrow.table(columns), path)
    facts, told = skipping(path)
    assert facts == [Fact("a", "r", "1.0"), Fact("b", "r", "2.5")]
    assert told == [(f"{path}: row 3", "empty tail")]
    packed = write(tmp_path, "b.parquet.gz", gzip.compress(path.read_bytes()))
    assert list(read_facts(packed, skip_bad=True)) == facts
    kinds = {"head": ["a", "b", None], "relation": pyarrow.array(["r"] * 3).dictionary_encode(), "tail": [True] * 3}
    parquet.write_table(pyarrow.table(kinds), path)
    fails(lambda: list(read_facts(path)), "row 1: the tail is of type bool, wanted a text")
    parquet.write_table(pyarrow.table({"head": ["a"], "value": ["b"]}), path)
    fails(lambda: list(read_facts(path)), "no relation: wanted one of relation, predicate", "present: head, value")
    fails(lambda: list(read_facts(write(tmp_path, "c.parquet", b"PAR1junk"))), "c.parquet: not a readable parquet file")


def test_parquet_is_read_by_batches(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    names = [str(i) for i in range(70_000)]
    parquet.write_table(pyarrow.table({"h": names, "r": names, "t": names}), tmp_path / "a.parquet")
    assert sum(1 for _ in read_facts(tmp_path / "a.parquet")) == 70_000
    assert [fact.head for fact in read_facts(tmp_path / "a.parquet", limit=2)] == ["0", "1"]


@pytest.mark.parametrize("suffix, pack", [(".gz", gzip.compress), (".XZ", lzma.compress)])
@pytest.mark.parametrize("name", ["a.tsv", "a.txt", "a.csv", "a.jsonl"])
def test_packed_files(tmp_path, name, suffix, pack):
    content = {"a.csv": "\ufeffa,knows,b", "a.jsonl": '\ufeff["a", "knows", "b"]'}.get(name, "\ufeffa\tknows\tb")
    assert list(read_facts(write(tmp_path, name + suffix, pack(content.encode())))) == [AB]


@pytest.mark.parametrize("suffix, pack", [(".gz", gzip.compress), (".xz", lzma.compress)])
def test_packed_rdf(tmp_path, suffix, pack):
    pytest.importorskip("pyoxigraph")
    for name in ("a.nt", "a.ttl"):
        path = write(tmp_path, name + suffix, pack(b"<http://x/a> <http://x/p> _:b ."))
        assert list(read_facts(path)) == [Fact("http://x/a", "http://x/p", "_:b")]


def test_reading_is_streamed(tmp_path):
    path = write(tmp_path, "a.tsv", "a\tknows\tb\n" * 3 + "broken\n")
    facts = read_facts(path)
    assert [next(facts) for _ in range(3)] == [AB] * 3
    fails(lambda: next(facts), "line 4")


# --- errors


@pytest.mark.parametrize(
    "name, line, problem",
    [
        ("a.tsv", "a\tb", "2 fields, wanted 3 divided by tabs: head, relation, tail"),
        ("a.tsv", "a knows b", "1 field, wanted 3 divided by tabs"),
        ("a.txt", "a\tknows\tb\t1", "4 fields, wanted 3 divided by tabs: head, relation, tail (or a header line"),
        ("a.tsv", "a\t \tb", "empty relation"),
        ("a.tsv", "\t\t", "empty head"),
        ("a.tsv", b"a\tkn\xffws\tb", "not UTF-8 (byte 0xff at byte 5 of the line)"),
        ("a.csv", "a,knows", "2 fields, wanted 3 divided by commas"),
        ("a.csv", ',"",', "empty head"),
        ("a.csv", 'a,"knows"x,b', "broken table: "),
        ("a.csv", b'"a",r,"\xff"', "not UTF-8"),
        ("a.jsonl", '{"head": "a"', "not valid JSON: Expecting ',' delimiter at column 13"),
        ("a.jsonl", '["a", "r", NaN]', "not valid JSON: NaN is no number"),
        ("a.jsonl", "[" * 100_000, "not valid JSON: "),
        (
            "a.jsonl",
            '{"head": "a", "rel": "b"}',
            "no tail: wanted one of tail, object, target, t, o; present: head, rel",
        ),
        ("a.jsonl", "{}", "no head: wanted one of head, subject, source, h, s; present: none"),
        ("a.jsonl", '["a", "b"]', "a list of three texts; found a list of 2"),
        ("a.jsonl", "7", "wanted an object with head, relation, tail, or a list of three texts"),
        ("a.jsonl", '["a", true, "b"]', "the relation is of type bool, wanted a text"),
        ("a.jsonl", '["a", null, "b"]', "empty relation"),
        ("a.jsonl", '["a", "r", {"@id": "b"}]', "the tail is of type dict, wanted a text"),
        ("a.jsonl", '["a", "\\ud800", "b"]', "half a surrogate pair"),
        ("a.jsonl", b'["a", "r", "\xe9"]', "not UTF-8 (byte 0xe9 at byte 13 of the line)"),
    ],
)
def test_a_bad_line_is_told_and_can_be_left_out(tmp_path, name, line, problem):
    raw = line if isinstance(line, bytes) else line.encode()
    good = {"a.csv": b"a,knows,b", "a.jsonl": b'["a", "knows", "b"]'}.get(name, b"a\tknows\tb")
    path = write(tmp_path, name, b"\r\n".join([good, b"", raw, good]) + b"\r\n")
    message = fails(lambda: list(read_facts(path)), f"{path}: line 3: ", problem)
    assert message.endswith(SKIP)
    facts, told = skipping(path)
    assert facts == [AB, AB]
    assert told == [(f"{path}: line 3", message.removeprefix(f"{path}: line 3: ").removesuffix(SKIP))]
    assert list(read_facts(path, skip_bad=True)) == facts


@pytest.mark.parametrize(
    "name, line, problem",
    [
        ("a.nt", "<http://x/a> <http://x/p> .", "not N-Triples: "),
        ("a.nt", "<a> <http://x/p> <http://x/b> .", "No scheme found in an absolute IRI at column 1"),
        ("a.nt", '<http://x/a> <http://x/p> " " .', "empty tail"),
        ("a.nt", b'<http://x/a> <http://x/p> "\xff" .', "not UTF-8"),
        ("a.nt", "<http://x/a> <http://x/p> <http://x/b> <http://x/graph> .", "not N-Triples: "),
        ("a.nq", "<http://x/a> <http://x/p> <http://x/b> ", "not N-Quads: "),
    ],
)
def test_a_bad_triple_is_told_and_can_be_left_out(tmp_path, name, line, problem):
    pytest.importorskip("pyoxigraph")
    raw = line if isinstance(line, bytes) else line.encode()
    good = b"<http://x/a> <http://x/p> <http://x/b> ."
    path = write(tmp_path, name, b"\n".join([b"# comment", good, raw, good]))
    assert fails(lambda: list(read_facts(path)), f"{path}: line 3: ", problem).endswith(SKIP)
    facts, told = skipping(path)
    assert facts == [Fact("http://x/a", "http://x/p", "http://x/b")] * 2
    assert [where for where, _ in told] == [f"{path}: line 3"]


def test_turtle_cannot_be_skipped_past(tmp_path):
    pytest.importorskip("pyoxigraph")
    path = write(tmp_path, "a.ttl", '@prefix x: <http://x/> .\nx:a x:p x:b .\nx:a y:p "c" .\nx:a x:p x:c .\n')
    for skip in (False, True):
        fails(
            lambda skip=skip: list(read_facts(path, skip_bad=skip)), f"{path}: line 3: not valid Turtle", "at column 5"
        )
    assert "cannot be skipped past" in fails(lambda: list(read_facts(path, skip_bad=True)), "give N-Triples (.nt)")
    path = write(tmp_path, "b.ttl", '<http://x/a> <http://x/p> "" , <<( <x:a> <x:p> <x:b> )>>, "c" .\n')
    fails(lambda: list(read_facts(path)), f"{path}: fact 1: empty tail{SKIP}")
    facts, told = skipping(path)
    assert facts == [Fact("http://x/a", "http://x/p", "c")]
    assert [where for where, _ in told] == [f"{path}: fact 1", f"{path}: fact 2"]


def test_a_quote_that_is_never_closed(tmp_path):
    path = write(tmp_path, "a.csv", 'a,knows,b\n"b,knows,c\nc,knows,d\n')
    fails(lambda: list(read_facts(path)), f"{path}: line 2: broken table: a quote is opened and never closed")
    assert skipping(path)[0] == [AB]


def test_lines_are_counted_over_quoted_line_ends(tmp_path):
    path = write(tmp_path, "a.csv", 'a,knows,"b\nc"\n\na,knows\n"x\n\xff",knows\n')
    assert [where for where, _ in skipping(path)[1]] == [f"{path}: line 4", f"{path}: line 5"]


def test_a_line_without_end_does_not_fill_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(fact_tables_module, "LONGEST", 20)
    path = write(tmp_path, "a.tsv", "a\tknows\tb\n" + "x" * 65 + "\n" + "y" * 40 + "\nb\tknows\tc\n" + "z" * 100)
    assert skipping(path) == (
        [AB, BC],
        [(f"{path}: line {number}", "longer than 20 bytes") for number in (2, 3, 5)],
    )


def test_what_can_be_told_before_reading(tmp_path):
    write(tmp_path, "facts.tsv", "a\tknows\tb\n")
    fails(lambda: read_facts(tmp_path / "fact.tsv"), "fact.tsv: no such file (did you mean facts.tsv?)")
    fails(lambda: read_facts(tmp_path), "is a folder", "read_snapshots")
    fails(
        lambda: read_facts(write(tmp_path, "a.xyz", "a")), "unknown format '.xyz'", ".tsv, .txt, .csv, .jsonl", ".ttl"
    )
    fails(lambda: read_facts(write(tmp_path, "b.gz", "a")), "unknown format 'b.gz'", "each also with .gz or .xz")
    fails(lambda: read_facts(write(tmp_path, "a.tar.xz", "a")), "unknown format '.tar'", "read_snapshots")
    fails(lambda: read_facts(write(tmp_path, "a.tsv", "")), "a.tsv: the file is empty")
    fails(lambda: read_facts(tmp_path / "facts.tsv", limit=0), "limit must be at least 1, given: 0")


def test_a_file_without_facts(tmp_path):
    fails(lambda: list(read_facts(write(tmp_path, "a.tsv", "\n\n"))), "a.tsv: no facts in it")
    fails(lambda: list(read_facts(write(tmp_path, "b.tsv", "head\trelation\ttail\n"))), "b.tsv: no facts in it")
    fails(lambda: list(read_facts(write(tmp_path, "c.tsv.gz", gzip.compress(b"")))), "c.tsv.gz: no facts in it")
    fails(lambda: list(read_facts(write(tmp_path, "d.tsv", "a\nb\n"), skip_bad=True)), "(2 bad lines were left out)")


def test_damaged_and_foreign_files(tmp_path):
    content = "".join(f"entity {i * 7919 % 10_007}\tr\tentity {i}\n" for i in range(10_000)).encode()
    for suffix, pack in ((".gz", gzip.compress), (".xz", lzma.compress)):
        path = write(tmp_path, f"a.tsv{suffix}", pack(content)[:-100])
        fails(lambda path=path: list(read_facts(path, skip_bad=True)), str(path), "cannot be read")
        path = write(tmp_path, f"b.tsv{suffix}", "a\tknows\tb\n")
        fails(lambda path=path: list(read_facts(path)), f"{path}: cannot be read: ")
    for encoding in ("utf-16-le", "utf-16-be"):
        path = write(tmp_path, "c.tsv", "\ufeffa\tknows\tb\nb\tknows\tc\n".encode(encoding))
        fails(lambda path=path: list(read_facts(path, skip_bad=True)), "line 1: UTF-16", "iconv -f utf-16 -t utf-8")


def test_missing_extras(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyoxigraph", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    for name, extra in (("a.nt", "knowledge"), ("a.ttl", "knowledge"), ("a.parquet", "parquet")):
        with pytest.raises(MissingExtra, match=rf"reading \{Path(name).suffix} needs the extra '{extra}'"):
            list(read_facts(write(tmp_path, name, "<x:a> <x:b> <x:c> .")))


def test_the_readers_are_light():
    code = (
        "import sys, intarsia.data; "
        "print([m for m in ('torch', 'numpy', 'pyarrow', 'pyoxigraph', 'PIL') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- write, then read

NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12).map(str.strip).filter(bool)
LINES = NAMES.map(lambda name: name.replace("\t", " ").replace("\n", " ").strip()).filter(bool)


def facts_of(names: st.SearchStrategy[str]) -> st.SearchStrategy[list[Fact]]:
    return st.lists(st.builds(Fact, names, names, names), min_size=1, max_size=8)


def quick(test):
    return settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])(test)


@quick
@given(facts=facts_of(LINES))
def test_round_trip_by_tabs(tmp_path, facts):
    content = "head\trelation\ttail\n" + "".join(f"{f.head}\t{f.relation}\t{f.tail}\n" for f in facts)
    assert list(read_facts(write(tmp_path, "a.tsv", content))) == facts
    assert list(read_facts(write(tmp_path, "a.txt", content.replace("\n", "\r\n")))) == facts


@quick
@given(facts=facts_of(NAMES))
def test_round_trip_by_commas(tmp_path, facts):
    text = io.StringIO(newline="")
    csv.writer(text).writerows([["tail", "head", "relation"], *([f.tail, f.head, f.relation] for f in facts)])
    assert list(read_facts(write(tmp_path, "a.csv", text.getvalue()))) == facts


@quick
@given(facts=facts_of(NAMES), escaped=st.booleans())
def test_round_trip_by_json(tmp_path, facts, escaped):
    rows = [{"head": f.head, "relation": f.relation, "tail": f.tail} for f in facts[1:]]
    lists = [[facts[0].head, facts[0].relation, facts[0].tail], *rows]
    content = "".join(json.dumps(row, ensure_ascii=escaped) + "\n" for row in lists)
    assert list(read_facts(write(tmp_path, "a.jsonl", content))) == facts


@quick
@given(content=st.binary(max_size=200), suffix=st.sampled_from([".tsv", ".csv", ".jsonl", ".nt", ".ttl"]))
def test_any_bytes_give_facts_or_one_line(tmp_path, content, suffix):
    pytest.importorskip("pyoxigraph")
    path = write(tmp_path, f"a{suffix}", content)
    for skip in (False, True):
        try:
            facts = list(read_facts(path, skip_bad=skip))
        except BadInput as error:
            assert str(error).startswith(str(path)) and "\n" not in str(error)
        else:
            assert facts


# --- names


def test_natural_order_and_names_of_files():
    assert sorted(["10", "2", "1", "2024-10", "2024-02", "b10", "B9", "x²", "x"], key=natural) == [
        "1",
        "2",
        "10",
        "2024-02",
        "2024-10",
        "B9",
        "b10",
        "x",
        "x²",
    ]
    assert split_name("a.b.TSV.gz") == ("a.b", ".tsv", ".gz")
    assert split_name("a.nt") == ("a", ".nt", "")
    assert split_name("train") == ("train", "", "")


# --- snapshots

GROWING = {
    "0/train.txt": numbered("a", "b", "c"),
    "0/valid.txt": numbered("c", "a"),
    "0/test.txt": numbered("c", "b"),
    "2/train.txt": numbered("c", "d"),
    "10/train.tsv": numbered("d", "e"),
    "10/dev.csv": "e,r,a\n",
    "entities.tsv": "name\tsnapshot\twords\tgloss\na\t0\tAda\ta person\nd\t1\tDee\t\n"
    "z\t2\tZed\tnowhere\ne\t2\t\tthe last\n",
    "README.txt": "not facts",
}
GROWN = [
    FactSnapshot(
        "0",
        [Fact("a", "r", "b"), Fact("b", "r", "c")],
        [Fact("c", "r", "a")],
        [Fact("c", "r", "b")],
        {"a": "Ada: a person"},
    ),
    FactSnapshot("2", [Fact("c", "r", "d")], descriptions={"d": "Dee"}),
    FactSnapshot("10", [Fact("d", "r", "e")], [Fact("e", "r", "a")], descriptions={"e": "the last"}),
]


def pack(path: Path, files: Mapping[str, str], prefix: str = "") -> Path:
    """An archive by its suffix, its members in the order of the alphabet, as `tar` and `zip` might write them."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in sorted(files):
                archive.writestr(prefix + name, files[name])
        return path
    mode = {".xz": "w:xz", ".gz": "w:gz", ".tgz": "w:gz"}.get(path.suffix, "w")
    with tarfile.open(path, mode) as archive:
        for name in sorted(files):
            info = tarfile.TarInfo(prefix + name)
            info.size = len(files[name].encode())
            archive.addfile(info, io.BytesIO(files[name].encode()))
    return path


def test_folders_of_splits(tmp_path):
    folder = tree(tmp_path / "graph", GROWING)
    assert read_snapshots(folder) == GROWN
    assert [snapshot.divided for snapshot in GROWN] == [True, False, True]
    # One folder around it all, and things that are no snapshots.
    tree(tmp_path, {"graph/docs/index.html": "no facts", "graph/.git/train.txt": "no facts"})
    assert read_snapshots(tmp_path) == GROWN


@pytest.mark.parametrize("prefix", ["", "./", "NAME/", "./NAME/", "a/b/NAME/"])
@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".tgz", ".tar.xz", ".zip", ".TAR"])
def test_an_archive_equals_its_folder(tmp_path, prefix, suffix):
    files = {**GROWING, "__MACOSX/0/train.txt": "no facts"}
    assert read_snapshots(pack(tmp_path / f"graph{suffix}", files, prefix)) == GROWN


def test_an_archive_of_splits_or_of_files(tmp_path):
    splits = {"train.txt": numbered("a", "b"), "test.txt": numbered("b", "c")}
    assert [s.name for s in read_snapshots(pack(tmp_path / "my.tar.gz", splits))] == ["my"]
    assert [s.name for s in read_snapshots(pack(tmp_path / "my.zip", splits, "graph/"))] == ["graph"]
    files = {f"2024-{month}.tsv": numbered(f"a{month}", "b") for month in (1, 2, 12)}
    assert [s.name for s in read_snapshots(pack(tmp_path / "files.zip", files, "dumps/"))] == [
        "2024-1",
        "2024-2",
        "2024-12",
    ]


def test_a_folder_with_splits_directly(tmp_path):
    folder = tree(tmp_path / "graph", {"Train.tsv.gz": gzip.compress(numbered("a", "b").encode())})
    write(folder, "validation.jsonl", '["b", "r", "c"]')
    write(folder, "entity2id.txt", "2\na\t0\nb\t1\n")
    found = read_snapshots(folder)
    assert found == [FactSnapshot("graph", [Fact("a", "r", "b")], [Fact("b", "r", "c")])]


def test_a_folder_of_files(tmp_path):
    names = ["2024-01.tsv", "2024-02.txt", "2024-10.csv", "2025-1.tsv.gz"]
    for place, name in enumerate(reversed(names)):
        content = f"e{place},r,f\n" if ".csv" in name else f"e{place}\tr\tf\n"
        write(tmp_path, name, gzip.compress(content.encode()) if name.endswith(".gz") else content)
    tree(tmp_path, {"README.txt": "no facts", "LICENSE.txt": "no facts", "picture.png": "no facts"})
    found = read_snapshots(tmp_path)
    assert [snapshot.name for snapshot in found] == ["2024-01", "2024-02", "2024-10", "2025-1"]
    assert [snapshot.train for snapshot in found] == [[Fact(f"e{place}", "r", "f")] for place in (3, 2, 1, 0)]
    assert not any(snapshot.divided for snapshot in found)


def test_a_single_file(tmp_path):
    path = write(tmp_path, "graph.v1.tsv.xz", lzma.compress(numbered("a", "b", "c").encode()))
    assert read_snapshots(path) == [FactSnapshot("graph.v1", [Fact("a", "r", "b"), Fact("b", "r", "c")])]
    write(tmp_path, "entities.tsv", "name\tlabel\tdescription\nb\tBee\tan insect\n")
    assert read_snapshots(str(path))[0].descriptions == {"b": "Bee: an insect"}


def test_unnamed_nodes_of_two_files_are_two(tmp_path):
    pytest.importorskip("pyoxigraph")
    files = {f"{name}.ttl": f"<x:{name}> <x:p> [ <x:q> <x:b> ] ." for name in ("one", "two")}
    names = [fact.tail for s in read_snapshots(tree(tmp_path, files)) for fact in s.train if fact.relation == "x:p"]
    assert names == ["_:anon1", "_:anon2"]


def test_duplicates_are_dropped_and_counted(tmp_path):
    files = {
        "0/train.txt": numbered("a", "b", "c") + "a \tr\tb\n" + numbered("a", "b"),
        "1/train.txt": numbered("b", "c", "d"),
        "1/test.txt": numbered("d", "a") * 2,
    }
    first, second = read_snapshots(tree(tmp_path, files))
    assert first.train == [Fact("a", "r", "b"), Fact("b", "r", "c")] and first.duplicates == 2
    assert second.train == [Fact("c", "r", "d")] and second.test == [Fact("d", "r", "a")]
    assert second.duplicates == 2


def test_names_are_held_once(tmp_path):
    (snapshot,) = read_snapshots(write(tmp_path, "a.tsv", numbered("first name", "second name", "first name")))
    assert snapshot.train[0].head is snapshot.train[1].tail


@pytest.mark.parametrize(
    "one, two",
    [
        ("0/train.txt", "0/test.txt"),
        ("0/train.txt", "0/valid.txt"),
        ("0/valid.txt", "0/test.txt"),
        ("0/train.txt", "1/test.txt"),
        ("0/test.txt", "1/train.txt"),
    ],
)
def test_a_fact_in_two_splits_is_refused(tmp_path, one, two):
    files = {"0/train.txt": numbered("a", "b"), "1/train.txt": numbered("b", "c")}
    files[one] = files.get(one, "") + numbered("x", "y")
    files[two] = "\n" + files.get(two, "") + numbered("x", "y") + numbered("p", "q")
    folder = tree(tmp_path / "graph", files)
    split, other = (Path(name).stem for name in (two, one))
    problem = f"the fact 'x r y' is in {split}, and in {other} at {folder / one}: line {files[one].count(chr(10))}"
    where = f"{folder / two}: line {files[two].count(chr(10)) - 1}"
    fails(lambda: read_snapshots(folder), f"{where}: {problem}; ", "skip_bad (--skip-bad) leaves the later one out")
    told: list[tuple[str, str]] = []
    snapshots = read_snapshots(folder, skip_bad=True, on_bad=lambda *what: told.append(what))
    places = {
        (s.name, split)
        for s in snapshots
        for split in ("train", "valid", "test")
        if Fact("x", "r", "y") in getattr(s, split)
    }
    assert places == {(Path(one).parent.name, Path(one).stem)}
    assert Fact("p", "r", "q") in getattr(snapshots[int(Path(two).parent.name)], split)
    assert told == [(where, f"{problem}; a fact belongs to one split")]


def test_bad_lines_name_the_member(tmp_path):
    files = {"NAME/0/train.txt": numbered("a", "b") + "broken\n"}
    path = pack(tmp_path / "a.tar.gz", files)
    fails(lambda: read_snapshots(path), f"{path}: NAME/0/train.txt: line 2: 1 field, wanted 3")
    told: list[tuple[str, str]] = []
    read_snapshots(path, skip_bad=True, on_bad=lambda *what: told.append(what))
    assert [where for where, _ in told] == [f"{path}: NAME/0/train.txt: line 2"]


@pytest.mark.parametrize(
    "files, parts",
    [
        ({"a.md": "x"}, ["no facts in it; wanted folders with a file train"]),
        ({"0/train.txt": "a", "train.txt": "a"}, ["has split files itself and in its folder '0'"]),
        ({"0/train.txt": "a", "1/test.txt": "a"}, ["1: no train file in it; files: test.txt"]),
        ({"0/train.txt": "a", "1/training.txt": "a"}, ["1: no train file in it; files: training.txt"]),
        ({"valid.txt": "a", "facts.txt": "b"}, ["no train file in it; files: facts.txt, valid.txt"]),
        ({"train.txt": "a", "train.tsv": "a"}, ["two files for 'train': train.tsv and train.txt"]),
        ({"train.txt": "a", "dev.txt": "a", "val.txt": "b"}, ["two files for 'valid': dev.txt and val.txt"]),
        ({"a.txt": "a", "a.tsv": "a"}, ["two files for the snapshot 'a': a.tsv and a.txt"]),
        ({"0/train.txt": numbered("a", "b"), "0/test.txt": ""}, ["test.txt: the file is empty"]),
    ],
)
def test_folders_that_are_no_snapshots(tmp_path, files, parts):
    fails(lambda: read_snapshots(tree(tmp_path / "graph", files)), "graph", *parts)


def test_paths_that_are_no_snapshots(tmp_path):
    write(tmp_path, "graph.tsv", numbered("a", "b"))
    fails(lambda: read_snapshots(tmp_path / "grahp.tsv"), "no such file (did you mean graph.tsv?)")
    fails(lambda: read_snapshots(write(tmp_path, "a.xyz", "a")), "unknown format '.xyz'", ".tsv", ".tar.xz", "folders")


@pytest.mark.parametrize(
    "content, line, problem",
    [
        ("name\twords\na\tAda\nb\n", 3, "1 field where the header has 2"),
        ("name\twords\n\n\tAda\na\tAda\n", 3, "empty name"),
        ("name\twords\na\tAda\na\tAnn\n", 3, "'a' is described already, at line 2"),
        (b"name\twords\na\tAda\nb\t\xff\n", 3, "not UTF-8"),
    ],
)
def test_bad_descriptions(tmp_path, content, line, problem):
    path = write(tmp_path, "entities.tsv", content)
    write(tmp_path, "0.tsv", numbered("a", "b"))
    assert fails(lambda: read_snapshots(tmp_path), f"{path}: line {line}: {problem}").endswith(SKIP)
    told: list[tuple[str, str]] = []
    (snapshot,) = read_snapshots(tmp_path, skip_bad=True, on_bad=lambda *what: told.append(what))
    assert snapshot.descriptions == {"a": "Ada"}
    assert [where for where, _ in told] == [f"{path}: line {line}"]


def test_descriptions_need_their_header(tmp_path):
    write(tmp_path, "0.tsv", numbered("a", "b"))
    for content in ("a\tAda\n", "name\tsnapshot\na\t1\n", "words\tgloss\n"):
        write(tmp_path, "entities.tsv", content)
        fails(
            lambda: read_snapshots(tmp_path), "entities.tsv: line 1: wanted a header with name and one of words, label"
        )
    write(tmp_path, "entities.tsv", "\n")
    fails(lambda: read_snapshots(tmp_path), "entities.tsv: the file is empty")


# --- archives that mean harm, or are broken


@pytest.mark.parametrize("suffix", [".tar", ".zip"])
@pytest.mark.parametrize("name", ["../train.txt", "/tmp/train.txt", "a/../../train.txt"])
def test_names_that_lead_out_of_an_archive(tmp_path, suffix, name):
    path = pack(tmp_path / f"a{suffix}", {name: numbered("a", "b")})
    fails(lambda: read_snapshots(path), f"holds the name '{name}', which leads out of it")


def test_links_in_an_archive_are_passed_over(tmp_path):
    path = tmp_path / "a.tar"
    secret = write(tmp_path, "secret.txt", numbered("s", "t"))
    with tarfile.open(path, "w") as archive:
        archive.add(write(tmp_path, "train.txt", numbered("a", "b")), "train.txt")
        for kind, name in ((tarfile.SYMTYPE, "valid.txt"), (tarfile.LNKTYPE, "test.txt"), (tarfile.FIFOTYPE, "x.txt")):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, str(secret)
            archive.addfile(info)
    assert read_snapshots(path) == [FactSnapshot("a", [Fact("a", "r", "b")])]
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("train.txt", numbered("a", "b"))
        link = zipfile.ZipInfo("valid.txt")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, str(secret))
    assert read_snapshots(tmp_path / "a.zip") == [FactSnapshot("a", [Fact("a", "r", "b")])]


@pytest.mark.parametrize("suffix", [".tar.gz", ".zip"])
def test_an_archive_that_would_fill_the_memory(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(files_module, "LARGEST", 2**20)
    path = pack(tmp_path / f"a{suffix}", {"0/train.txt": "a" * 600_000, "1/train.txt": "a" * 600_000, "x.bin": "a"})
    fails(lambda: read_snapshots(path), "over 1 MiB of files; unpack it and give the folder")


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".tar.xz", ".zip"])
def test_broken_archives(tmp_path, suffix):
    whole = pack(tmp_path / f"whole{suffix}", {"train.txt": numbered(*map(str, range(3000)))}).read_bytes()
    for content in (b"", b"no archive at all", whole[: len(whole) // 2]):
        path = write(tmp_path, f"a{suffix}", content)
        fails(lambda path=path: read_snapshots(path), f"{path}: not a readable archive: ")


# --- real data


@pytest.mark.real
@pytest.mark.skipif(shared_data("lkge") is None, reason="the shared data set lkge is not there")
def test_the_benchmarks_of_growing_graphs():
    folder = shared_data("lkge")
    found = read_snapshots(folder / "ENTITY.tar.xz")
    assert [(s.name, len(s.train), len(s.valid), len(s.test), s.duplicates) for s in found] == [
        ("0", 27_832, 9_278, 9_278, 0),
        ("1", 43_265, 14_423, 14_423, 0),
        ("2", 44_269, 14_758, 14_758, 0),
        ("3", 42_302, 14_102, 14_102, 0),
        ("4", 28_394, 9_466, 9_466, 0),
    ]
    seen: set[str] = set()
    relations: set[str] = set()
    sizes = []
    for snapshot in found:
        for fact in (*snapshot.train, *snapshot.valid, *snapshot.test):
            seen |= {fact.head, fact.tail}
            relations.add(fact.relation)
        sizes.append((len(seen), len(relations)))
    assert sizes == [(2_909, 233), (5_817, 236), (8_725, 236), (11_633, 237), (14_541, 237)]
    world = read_snapshots(folder / "WORLD.tar.xz")
    assert [(len(s.train), len(s.valid), len(s.test), len(s.descriptions)) for s in world] == [
        (380, 126, 126, 308),
        (515, 171, 171, 307),
        (556, 184, 184, 307),
        (549, 182, 182, 307),
        (548, 182, 182, 307),
    ]
    texts = {name: text for snapshot in world for name, text in snapshot.descriptions.items()}
    assert texts["sapporo.n.01"] == "Sapporo: a commercial city in northern Japan on western Hokkaido"
