"""Facts of a knowledge graph, read one by one: a file of many millions is never held in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from intarsia.data.fact_rdf import triples, turtle
from intarsia.data.fact_tables import Problem, commas, objects, parquet, table, tabs
from intarsia.data.files import BROKEN, PACKED, Source, is_archive, must_exist, source_on_disk
from intarsia.data.records import Fact
from intarsia.errors import BadInput, first_line

FACT_FORMATS = (".tsv", ".txt", ".csv", ".jsonl", ".nt", ".nq", ".ttl", ".parquet")
SKIP = "skip_bad (--skip-bad) leaves such lines out"
OnBad = Callable[[str, str], None]
T = TypeVar("T")
_UNITS = {".parquet": "row", ".ttl": "fact"}


def read_facts(
    path: str | Path, *, skip_bad: bool = False, on_bad: OnBad | None = None, limit: int | None = None
) -> Iterator[Fact]:
    """The facts of a file, one by one, in order.

    Format by suffix, packed where `.gz` or `.xz` follows it:

    - `.tsv`, `.txt`: head, relation and tail, divided by tabs; a quotation mark is a letter like any other.
    - `.csv`: the same with commas and quotes.
      A first line that names a column for each part (see `COLUMNS`; in any case and order, others beside them) is the
      header of such a table.
    - `.jsonl`: a line is an object with such keys, or a list of three texts.
    - `.nt`, `.nq`, `.ttl`: N-Triples, N-Quads (without the graph's name) and Turtle; needs pyoxigraph. An IRI is named
      by its whole text, a literal by its value without language and type, a blank node by `_:` and its label; those
      that Turtle leaves unnamed are `_:anon1`, `_:anon2` and so on, in order.
    - `.parquet`: such columns; needs pyarrow. Packed, it is unpacked in memory.

    Text is UTF-8, with or without a byte order mark. Parts are stripped of white space around them, blank lines are
    passed over, numbers are written out as text.

    - `skip_bad`: leave bad lines out, and tell `on_bad(where, problem)` of each. A syntax error in Turtle, a damaged
      file and one without any fact are errors all the same.
    - `limit`: read no more facts than this.

    What the file's name and size tell is checked at once, the rest while reading. Raises `BadInput` with the file and
    the line, and `MissingExtra`."""
    path = Path(path)
    must_exist(path)
    if path.is_dir():
        raise BadInput(f"{path}: is a folder; give a file in it, or read it with read_snapshots")
    facts = numbered_facts(source_on_disk(path), skip_bad=skip_bad, on_bad=on_bad, limit=limit)
    return (fact for _, fact in facts)


def numbered_facts(
    source: Source,
    *,
    skip_bad: bool = False,
    on_bad: OnBad | None = None,
    limit: int | None = None,
    anonymous: dict[str, str] | None = None,
) -> Iterator[tuple[int, Fact]]:
    """As `read_facts`, each fact with its number, for `place`.

    Files that share `anonymous` give no two unnamed blank nodes the same name."""
    if limit is not None and limit < 1:
        raise BadInput(f"{source.label}: limit must be at least 1, given: {limit}")
    if source.suffix not in FACT_FORMATS:
        unpack = "; an archive is read by read_snapshots" if is_archive(Path(source.name)) else ""
        raise BadInput(
            f"{source.label}: unknown format '{source.suffix or source.name}'; known: {', '.join(FACT_FORMATS)}, "
            f"each also with {' or '.join(PACKED)}{unpack}"
        )
    if source.size == 0:
        raise BadInput(f"{source.label}: the file is empty")
    rows = _rows(source, {} if anonymous is None else anonymous)
    return _good(source, rows, skip_bad, on_bad, limit)


def place(source: Source, number: int) -> str:
    """Where a fact stands, for messages: `facts.tsv: line 7`."""
    return f"{source.label}: {_UNITS.get(source.suffix, 'line')} {number}"


def bad_line(where: str, problem: str, skip_bad: bool, on_bad: OnBad | None, mend: str = SKIP) -> None:
    """Pass over a bad line, telling `on_bad`; or, without `skip_bad`, raise `BadInput`."""
    if not skip_bad:
        raise BadInput(f"{where}: {problem}; {mend}")
    if on_bad:
        on_bad(where, str(problem))


def _good(
    source: Source, rows: Iterator[tuple[int, Fact | Problem]], skip_bad: bool, on_bad: OnBad | None, limit: int | None
) -> Iterator[tuple[int, Fact]]:
    good = bad = 0
    for number, fact in whole(source, rows):
        if isinstance(fact, Problem):
            bad_line(place(source, number), fact, skip_bad, on_bad)
            bad += 1
            continue
        good += 1
        yield number, fact
        if good == limit:
            return
    if not good:
        raise BadInput(f"{source.label}: no facts in it" + (f" ({bad} bad lines were left out)" if bad else ""))


def whole(source: Source, rows: Iterator[tuple[int, T]]) -> Iterator[tuple[int, T]]:
    """The numbered `rows` of a file; raises `BadInput` where it is damaged or cannot be opened."""
    number = 0
    try:
        for number, row in rows:
            yield number, row
    except BROKEN as error:
        where = f"{place(source, number)}: cannot be read further" if number else f"{source.label}: cannot be read"
        raise BadInput(f"{where}: {first_line(error)}") from None


def _rows(source: Source, anonymous: dict[str, str]) -> Iterator[tuple[int, Fact | Problem]]:
    if source.suffix == ".parquet":
        yield from parquet(source)
        return
    with source.stream() as stream:
        match source.suffix:
            case ".tsv" | ".txt":
                yield from table(tabs(stream), "tabs")
            case ".csv":
                yield from table(commas(stream), "commas")
            case ".jsonl":
                yield from objects(stream)
            case ".nt" | ".nq":
                yield from triples(source, stream)
            case ".ttl":
                yield from turtle(source, stream, anonymous)
