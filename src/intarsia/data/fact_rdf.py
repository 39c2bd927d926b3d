"""RDF to facts: `.nt`, `.nq` and `.ttl`, through pyoxigraph."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import Any

from intarsia.data.fact_tables import Problem, fact_of, text_lines
from intarsia.data.files import Source
from intarsia.data.records import Fact
from intarsia.errors import BadInput, MissingExtra, first_line


def _pyoxigraph(source: Source) -> Any:
    try:
        import pyoxigraph
    except ImportError:
        raise MissingExtra(f"{source.label}: reading {source.suffix}", "knowledge") from None
    return pyoxigraph


def _cell(term: Any, blank: type, anonymous: dict[str, str] | None = None) -> Any:
    """A term as text; a triple in its place (RDF 1.2) stays what it is, and is refused as no text."""
    if not isinstance(term, blank):
        return getattr(term, "value", term)
    name = term.value
    if anonymous is not None and re.fullmatch("[a-f][0-9a-f]{23,31}", name):
        # So pyoxigraph names nodes without a label: a random number of 128 bits, its leading zeros left out. Counted,
        # they are the same in every run; a label that happens to look so is counted, too.
        return anonymous.setdefault(name, f"_:anon{len(anonymous) + 1}")
    return f"_:{name}"


def _said(error: SyntaxError) -> str:
    """pyoxigraph's message without the place, which it gives in two forms beside its attributes."""
    said = re.sub(r"^Parser error [^:]*: ", "", first_line(Exception(error.msg)))
    return f"{said} at column {error.offset}" if error.offset else said


def triples(source: Source, stream: io.BufferedReader) -> Iterator[tuple[int, Fact | Problem]]:
    rdf = _pyoxigraph(source)
    kind = rdf.RdfFormat.N_TRIPLES if source.suffix == ".nt" else rdf.RdfFormat.N_QUADS
    for number, line in text_lines(stream):
        if isinstance(line, Problem):
            yield number, line
            continue
        try:
            quads = list(rdf.parse(line, format=kind))
        except SyntaxError as error:
            yield number, Problem(f"not {'N-Triples' if source.suffix == '.nt' else 'N-Quads'}: {_said(error)}")
            continue
        for quad in quads:
            terms = (quad.subject, quad.predicate, quad.object)
            yield number, fact_of([_cell(term, rdf.BlankNode) for term in terms])


def turtle(
    source: Source, stream: io.BufferedReader, anonymous: dict[str, str]
) -> Iterator[tuple[int, Fact | Problem]]:
    rdf = _pyoxigraph(source)
    try:
        for number, quad in enumerate(rdf.parse(stream, format=rdf.RdfFormat.TURTLE), 1):
            terms = (quad.subject, quad.predicate, quad.object)
            yield number, fact_of([_cell(term, rdf.BlankNode, anonymous) for term in terms])
    except SyntaxError as error:
        raise BadInput(
            f"{source.label}: line {error.lineno}: not valid Turtle: {_said(error)}; a syntax error in Turtle cannot "
            "be skipped past: mend it, or give N-Triples (.nt), whose bad lines can be left out"
        ) from None
