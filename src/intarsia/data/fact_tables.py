"""Tables and lines to facts: `.tsv`, `.csv`, `.jsonl`, `.parquet`. A `Problem` stands for a bad line."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, NoReturn

from intarsia.data.files import Source
from intarsia.data.records import Fact
from intarsia.errors import BadInput, MissingExtra, first_line

COLUMNS = {
    "head": ("head", "subject", "source", "h", "s"),
    "relation": ("relation", "predicate", "rel", "r", "p"),
    "tail": ("tail", "object", "target", "t", "o"),
}
"""The names under which a table or an object may give a fact's three parts; an earlier name goes before a later one."""

LONGEST = 2**20
"""The most bytes a line may have: so a file without line ends never fills the memory."""


class Problem(str):
    """What is wrong with a line, in place of what it holds."""

    __slots__ = ()


def text_lines(stream: io.BufferedReader) -> Iterator[tuple[int, str | Problem]]:
    """The lines of UTF-8 text with their numbers from 1 and their ends, or what is wrong with one."""
    # Only a line feed ends a line: names may hold U+2028 and the like as they are.
    number = 0
    while raw := stream.readline(LONGEST):
        number += 1
        if len(raw) == LONGEST and not raw.endswith(b"\n"):
            while raw and not raw.endswith(b"\n"):
                raw = stream.readline(LONGEST)
            yield number, Problem(f"longer than {LONGEST} bytes")
            continue
        try:
            line: str | Problem = raw.decode()
        except UnicodeDecodeError as error:
            line = Problem(
                f"not UTF-8 (byte 0x{raw[error.start]:02x} at byte {error.start + 1} of the line); "
                "where the whole file is so, convert it: iconv -f cp1252 -t utf-8"
            )
        yield number, line


def fact_of(cells: Sequence[Any]) -> Fact | Problem:
    """The fact of head, relation and tail, stripped, or what is wrong with one of them."""
    try:
        head, relation, tail = map(str.strip, cells)
    except TypeError:
        pass  # one is no text
    else:
        if head and relation and tail:
            return Fact(head, relation, tail)
    parts = zip(COLUMNS, cells, strict=True)
    role, cell = next((role, cell) for role, cell in parts if not (isinstance(cell, str) and cell.strip()))
    if cell is None or isinstance(cell, str):
        return Problem(f"empty {role}")
    return Problem(f"the {role} is of type {type(cell).__name__}, wanted a text")


@lru_cache(maxsize=128)
def columns_of(names: tuple[str, ...]) -> tuple[int, int, int] | None:
    """Where head, relation and tail stand among the names of columns, or None when one of them is not there."""
    keys = [name.strip().lower() for name in names]
    found = [next((keys.index(name) for name in known if name in keys), None) for known in COLUMNS.values()]
    return None if None in found else tuple(found)  # type: ignore[return-value]


def _missing(names: Sequence[str]) -> str:
    """What to say of columns without a head, relation or tail."""
    keys = {name.strip().lower() for name in names}
    role = next(role for role, known in COLUMNS.items() if not keys.intersection(known))
    present = " ".join(", ".join(map(str, names)).split())[:100]
    return f"no {role}: wanted one of {', '.join(COLUMNS[role])}; present: {present or 'none'}"


def table(rows: Iterator[tuple[int, list[str] | Problem]], divided_by: str) -> Iterator[tuple[int, Fact | Problem]]:
    columns: Sequence[int] = (0, 1, 2)
    width, first, header = 3, True, False
    for number, cells in rows:
        if isinstance(cells, Problem):
            yield number, cells
            continue
        if not cells or (len(cells) == 1 and not cells[0].strip()):
            continue
        if first:
            first = False
            if found := columns_of(tuple(cells)):
                columns, width, header = found, len(cells), True
                continue
        if len(cells) == width:
            yield number, fact_of([cells[column] for column in columns])
            continue
        fields = f"{len(cells)} field{'s' if len(cells) > 1 else ''}"
        if header:
            yield number, Problem(f"{fields} where the header has {width}")
        else:
            named = " (or a header line that names these columns)" if len(cells) > width else ""
            yield number, Problem(f"{fields}, wanted 3 divided by {divided_by}: head, relation, tail{named}")


def tabs(stream: io.BufferedReader) -> Iterator[tuple[int, list[str] | Problem]]:
    for number, line in text_lines(stream):
        yield number, line if isinstance(line, Problem) else line.split("\t")


def commas(stream: io.BufferedReader) -> Iterator[tuple[int, list[str] | Problem]]:
    problems: list[Problem] = []

    def lines() -> Iterator[str]:
        for _, line in text_lines(stream):
            if isinstance(line, Problem):
                problems.append(line)
                line = "\n"  # the row that holds it is given up below
            yield line

    reader, start = csv.reader(lines(), strict=True, skipinitialspace=True), 1
    while True:
        cells: list[str] | Problem
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            # The reader starts anew at the next line.
            open_quote = "unexpected end" in str(error)
            cells = Problem(f"broken table: {'a quote is opened and never closed' if open_quote else error}")
        if problems:
            cells = problems[0]
            problems.clear()
        yield start, cells
        start = reader.line_num + 1


def objects(stream: io.BufferedReader) -> Iterator[tuple[int, Fact | Problem]]:
    for number, line in text_lines(stream):
        if not line.strip():
            continue
        yield number, line if isinstance(line, Problem) else _of_json(line.rstrip("\r\n"))


def _of_json(line: str) -> Fact | Problem:
    try:
        # Numbers stay as they are written; what is no number of JSON (NaN) is an error.
        value = json.loads(line, parse_int=str, parse_float=str, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        return Problem(f"not valid JSON: {error.msg} at column {error.colno}")
    except (ValueError, RecursionError) as error:
        return Problem(f"not valid JSON: {first_line(error)}")
    if isinstance(value, dict):
        if not (columns := columns_of(tuple(value))):
            return Problem(_missing(list(value)))
        cells = list(value.values())
        value = [cells[column] for column in columns]
    if not isinstance(value, list) or len(value) != 3:
        given = f"a list of {len(value)}" if isinstance(value, list) else "neither"
        return Problem(f"wanted an object with head, relation, tail, or a list of three texts; found {given}")
    fact = fact_of(value)
    if isinstance(fact, Fact) and not all(map(_is_text, (fact.head, fact.relation, fact.tail))):
        return Problem("half a surrogate pair (\\ud800 to \\udfff), which is no letter")
    return fact


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def _is_text(text: str) -> bool:
    """Whether it can be written as UTF-8: JSON may name one half of a pair of surrogates."""
    try:
        return text.isascii() or bool(text.encode())
    except UnicodeEncodeError:
        return False


def parquet(source: Source) -> Iterator[tuple[int, Fact | Problem]]:
    try:
        import pyarrow.parquet as pq
    except ImportError:
        raise MissingExtra(f"{source.label}: reading .parquet", "parquet") from None
    number = 0
    with source.raw() if source.name.lower().endswith(".parquet") else _unpacked(source) as file:
        try:
            table = pq.ParquetFile(file)
            names = table.schema_arrow.names
            if not (columns := columns_of(tuple(names))):
                raise BadInput(f"{source.label}: {_missing(names)}")
            chosen = [names[column] for column in columns]
            for batch in table.iter_batches(columns=chosen):
                for cells in zip(*(batch.column(name).to_pylist() for name in chosen), strict=True):
                    number += 1
                    yield number, fact_of([_written(cell) for cell in cells])
        except ValueError as error:  # what pyarrow's own errors are; an OSError is told of above
            raise BadInput(f"{source.label}: not a readable parquet file: {first_line(error)}") from None


def _unpacked(source: Source) -> io.BytesIO:
    # A parquet file is read from its end.
    with source.stream() as stream:
        return io.BytesIO(stream.read())


def _written(cell: Any) -> Any:
    """A number as text; what is no number is empty."""
    if isinstance(cell, int | float) and not isinstance(cell, bool):
        return str(cell) if cell == cell else None
    return cell
