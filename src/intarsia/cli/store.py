"""`store`: documents and facts that answers are drawn from, added and searched."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from intarsia.cli.base import Command, Group, console, print_json, print_table, settings_of, told
from intarsia.cli.progress import shown
from intarsia.errors import BadInput

if TYPE_CHECKING:
    from intarsia.prompting.data import Found

SHOWN = 400  # characters of a hit, unless --full


@click.group(cls=Group, example='intarsia store add handbook docs/\nintarsia store search handbook "How long is it?"')
def store() -> None:
    """Documents and facts that answers are drawn from: add them, search them."""


@store.command(
    cls=Command,
    example="intarsia store add handbook docs/ faq.csv --where product=kettle\n"
    "intarsia store add handbook docs/ --remove-missing       # again: only what changed is read anew\n"
    "intarsia store add handbook 'sqlite:shop.db?table=articles' --text body --title name\n"
    "intarsia store add python python-docs --encoder none",
)
@click.argument("folder", metavar="DIR")
@click.argument("sources", metavar="SOURCE...", nargs=-1, required=True)
@click.option("--encoder", metavar="MODEL", default="auto", help="What embeds a new store's texts (minilm); or none.")
@click.option("--size", type=click.IntRange(8), help="Tokens of a chunk at most, in a new store.")
@click.option(
    "--overlap", type=click.IntRange(0), help="Tokens that a chunk shares with the one before, in a new store."
)
@click.option("--where", metavar="NAME=VALUE", multiple=True, help="Metadata that all these documents get.")
@click.option("--remove-missing", is_flag=True, help="Take away documents that a source no longer has.")
@click.option("--text", metavar="COLUMN", multiple=True, help="Of tables: the columns that are the text.")
@click.option("--title", metavar="COLUMN", default="", help="Of tables: the column that is the title.")
@click.option("--id", "id_", metavar="COLUMN", default="", help="Of tables: the column that is the id.")
@click.option("--pictures", metavar="MODEL", help="The model that describes pictures; else they are left out.")
def add(
    folder: str, sources: tuple[str, ...], encoder: str, size: int | None, overlap: int | None, where: tuple[str, ...],
    remove_missing: bool, text: tuple[str, ...], title: str, id_: str, pictures: str | None,
) -> None:  # fmt: skip
    """Add SOURCES to the store in DIR, or bring them up to date.

    A source is a file (.txt .md .rst .html .pdf .docx .jsonl .json .csv .tsv .parquet), a folder, a pattern, a database
    (sqlite:FILE?table=NAME, or a URL of SQLAlchemy), or python-docs. What did not change is passed over."""
    from intarsia.prompting.data import Store
    from intarsia.prompting.data.store import Added

    metadata = _conditions(where)
    total = Added()
    with shown():
        model = None
        if pictures is not None:
            from intarsia.models import load

            model = load(pictures)
        with Store.open(folder, None if encoder == "none" else encoder, size=size, overlap=overlap) as opened:
            for source in sources:
                total += opened.add(
                    source, where=metadata, remove_missing=remove_missing, text=text, title=title, id=id_,
                    pictures=model,
                )  # fmt: skip
            documents = opened.documents()
    if settings_of().json:
        print_json({**asdict(total), "documents": len(documents)})
        return
    parts = [f"{getattr(total, name):,} {name}" for name in ("new", "changed", "unchanged", "removed")]
    click.echo(f"{folder}: {', '.join(parts)}; {total.chunks:,} chunks, {total.embedded:,} embedded")
    if hidden := sum(row.hidden for row in documents):
        told(f"{hidden:,} pieces that nobody would have seen were left out; `intarsia store show` says of what")


@store.command(
    cls=Command,
    example='intarsia store search handbook "How long is the warranty?" -k 3\n'
    'intarsia store search handbook os.path.join --mode words --where "year>=2020"',
)
@click.argument("folder", metavar="DIR")
@click.argument("query")
@click.option("-k", "--k", type=click.IntRange(1), default=5, show_default=True, help="So many hits.")
@click.option("--mode", type=click.Choice(("hybrid", "dense", "words")), default="hybrid", show_default=True)
@click.option("--where", metavar="NAME=VALUE", multiple=True, help="Only such documents; also >= <= > < !=, or a,b.")
@click.option("--hops", type=click.IntRange(0, 2), default=0, show_default=True, help="Facts so far around the query.")
@click.option("--diversity", type=click.FloatRange(0, 1), default=0.0, help="0 to 1: fewer hits that are alike.")
@click.option("--context", type=click.IntRange(1), metavar="TOKENS", help="Print what fits into a prompt instead.")
@click.option("--full", is_flag=True, help="Print hits whole.")
def search(
    folder: str, query: str, k: int, mode: Any, where: tuple[str, ...], hops: int, diversity: float,
    context: int | None, full: bool,
) -> None:  # fmt: skip
    """Search the store in DIR for what answers QUERY, by vectors and words."""
    from intarsia.prompting.data import Store

    conditions = _conditions(where, comparing=True)
    with shown(), Store.open(folder, create=False) as opened:
        found = opened.search(query, k, mode=mode, where=conditions, hops=hops, diversity=diversity)
    if context is not None:
        made = found.context(context)
        if settings_of().json:
            print_json({"text": made.text, "tokens": made.tokens, "dropped": [p.citation for p in made.dropped]})
        else:
            click.echo(made.text)
    elif settings_of().json:
        print_json(_as_json(found))
    else:
        _print(found, full)


@store.command(cls=Command, example="intarsia store show handbook")
@click.argument("folder", metavar="DIR")
@click.option("--where", metavar="NAME=VALUE", multiple=True, help="Only such documents.")
def show(folder: str, where: tuple[str, ...]) -> None:
    """Show what the store in DIR holds, document by document."""
    from rich.table import Table

    from intarsia.prompting.data import Store

    with Store.open(folder, create=False) as opened:
        rows, facts = opened.documents(_conditions(where, comparing=True)), opened.facts_by_source()
        encoder, size = opened.encoder_name, opened.bytes
    if settings_of().json:
        print_json({"encoder": encoder, "bytes": size, "facts": facts, "documents": [asdict(row) for row in rows]})
        return
    table = Table("source", "title", "kind", "chunks", "hidden", "metadata")
    for row in rows:
        metadata = ", ".join(f"{name}={value}" for name, value in row.metadata.items())
        table.add_row(row.source, row.title, row.media, str(row.chunks), str(row.hidden or ""), metadata[:80])
    print_table(table)
    chunks = sum(row.chunks for row in rows)
    click.echo(
        f"{len(rows):,} documents, {chunks:,} chunks, {sum(facts.values()):,} facts; encoder: {encoder or 'none'}; "
        f"{size / 2**20:.1f} MiB"
    )


@store.command(cls=Command, example="intarsia store remove handbook docs/old.md")
@click.argument("folder", metavar="DIR")
@click.argument("sources", metavar="SOURCE...", nargs=-1, required=True)
def remove(folder: str, sources: tuple[str, ...]) -> None:
    """Take documents out of the store in DIR: by their source, or all of a file or folder."""
    from intarsia.prompting.data import Store

    with shown(), Store.open(folder, create=False) as opened:
        count = sum(opened.remove(source) for source in sources)
    if settings_of().json:
        print_json({"removed": count})
    else:
        click.echo(f"{folder}: {count:,} {'document' if count == 1 else 'documents'} removed")


@store.command(cls=Command, example="intarsia store reembed handbook --encoder BAAI/bge-small-en-v1.5")
@click.argument("folder", metavar="DIR")
@click.option("--encoder", metavar="MODEL", default="auto", help="Another model; or none, for words alone.")
def reembed(folder: str, encoder: str) -> None:
    """Make all vectors of the store in DIR anew, by another model. Searches use the old ones until it is done."""
    from intarsia.prompting.data import Store

    with shown(), Store.open(folder, create=False) as opened:
        count = opened.reembed(None if encoder == "none" else encoder)
        name = opened.encoder_name
    if settings_of().json:
        print_json({"vectors": count, "encoder": name})
    else:
        click.echo(f"{folder}: {count:,} vectors by {name}" if name else f"{folder}: no vectors any more")


@store.command(
    cls=Command,
    example="intarsia store link handbook facts.tsv\nintarsia store link handbook runs/python --predicted 2",
)
@click.argument("folder", metavar="DIR")
@click.argument("graph", metavar="FACTS")
@click.option("--predicted", type=click.IntRange(0), default=0, help="So many likely facts of each entity, too.")
@click.option("--least-confidence", type=click.FloatRange(0, 1), default=0.5, show_default=True)
def link(folder: str, graph: str, predicted: int, least_confidence: float) -> None:
    """Add FACTS to the store in DIR: the folder of a knowledge graph, a file or folder of facts, or `python`, the
    standard library of the Python that runs this."""
    from intarsia.prompting.assistant.documents import add_facts
    from intarsia.prompting.data import Store

    with shown(), Store.open(folder) as opened:
        count = add_facts(opened, graph, predicted=predicted, least_confidence=least_confidence)
    if settings_of().json:
        print_json({"facts": count})
    else:
        click.echo(f"{folder}: {count:,} new facts")


def _conditions(given: tuple[str, ...], comparing: bool = False) -> dict[str, Any]:
    """`year=2020`, `year>=2020`, `kind=a,b` as the mapping that `where` takes; numbers and truth values are told by
    their looks, what is in quotes is a text."""
    out: dict[str, Any] = {}
    for text in given:
        at = next((i for i, sign in enumerate(text) if sign in "<>=!"), 0)
        sign = text[at : at + 2] if text[at : at + 2] in (">=", "<=", "!=") else text[at : at + 1]
        name, value = text[:at].strip(), text[at + len(sign) :].strip()
        if not at or not name or sign == "!" or (sign != "=" and not comparing):
            raise BadInput(f"--where {text}: give NAME=VALUE" + (", or >=, <=, >, <, != for =" if comparing else ""))
        if sign == "=":
            values = [_value(part) for part in value.split(",")] if comparing and value[:1] != '"' else [_value(value)]
            out[name] = values if len(values) > 1 else values[0]
        else:
            before = out.get(name, {})
            out[name] = {**(before if isinstance(before, dict) else {"=": before}), sign: _value(value)}
    return out


def _value(text: str) -> Any:
    try:
        value = json.loads(text.strip())
    except json.JSONDecodeError:
        return text.strip()
    return value if isinstance(value, str | int | float) else text.strip()


def _as_json(found: Found) -> dict[str, Any]:
    return {
        "query": found.query,
        "hits": [{**asdict(hit), "citation": hit.citation} for hit in found.hits],
        "entities": list(found.entities),
        "facts": [{"id": path.ids, "line": path.line, "score": path.score} for path in found.facts],
    }


def _print(found: Found, full: bool) -> None:
    from rich.text import Text

    out = console()
    if not found.hits and not found.facts:
        click.echo("nothing found")
    for number, hit in enumerate(found.hits, 1):
        parts = hit.scores
        why = [
            f"cosine {parts.dense:.2f} (rank {parts.dense_rank})" if parts.dense is not None else "",
            f"words {parts.words:.1f} (rank {parts.words_rank})" if parts.words is not None else "",
        ]
        out.print(Text.assemble((f"[{number}] ", "bold cyan"), (hit.headings or hit.source, "bold")))
        out.print(Text(f"    {hit.citation}   {', '.join(filter(None, why))}", style="dim"))
        text = hit.text if full or len(hit.text) <= SHOWN else f"{hit.text[:SHOWN].rstrip()} …"
        out.print(Text(text + "\n"))
    for path in found.facts:
        out.print(Text.assemble((f"[{path.ids}] ", "bold cyan"), path.line))
