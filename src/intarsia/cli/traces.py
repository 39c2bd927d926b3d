"""`traces`: list, show, export and remove what was recorded."""

from __future__ import annotations

import json
import re
import tempfile
import webbrowser
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from intarsia.cli.base import Command, Group, console, print_json, print_table, settings_of, told
from intarsia.cli.inputs import named
from intarsia.errors import BadInput

_AGES = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_SIZES = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9}


def path_option(function: Callable) -> Callable:
    """--path, of the file of traces."""
    return click.option(
        "--path", type=click.Path(path_type=Path), help="The file of traces.  [default: INTARSIA_TRACE, or the cache]"
    )(function)


@click.group(cls=Group, example="intarsia traces ls\nintarsia traces show 3f9a --open")
def traces() -> None:
    """What models were asked and answered, step by step."""


@traces.command(cls=Command, name="ls", example="intarsia traces ls --limit 50")
@path_option
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1), help="The latest so many.")
def list_traces(path: Path | None, limit: int) -> None:
    """List traces, the latest first."""
    from itertools import islice

    from intarsia.prompting.tracing import size
    from intarsia.prompting.tracing import traces as every

    rows = rows_of(islice(every(path), limit))
    if settings_of().json:
        print_json(rows)
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("id", "when", "name", "state", "events", "seconds", "tokens"):
        table.add_column(name, no_wrap=True, justify="right" if name in ("events", "seconds", "tokens") else "left")
    for row in rows:
        seconds = "–" if row["seconds"] is None else f"{row['seconds']:.3g}"
        table.add_row(
            row["id"][:12], row["when"], row["name"], row["state"], str(row["events"]), seconds, f"{row['tokens']:,}"
        )
    print_table(table)
    told(f"{size(path) / 1e6:,.1f} MB; `intarsia traces rm --older 30d` removes what is old")


def rows_of(traces: Iterable[Any]) -> list[dict[str, Any]]:
    """Traces as plain data, a row each."""
    return [_row(trace) for trace in traces]


def _row(trace: Any) -> dict[str, Any]:
    events = trace.events()
    root = events[0] if events else None
    return {
        "id": trace.id,
        "name": trace.name,
        "when": datetime.fromtimestamp(trace.begun, UTC).strftime("%Y-%m-%d %H:%M:%S"),
        "state": root.state if root is not None else "open",
        "events": max(0, len(events) - 1),
        "seconds": root.seconds if root is not None else None,
        "tokens": int(sum(e.usage.get("prompt", 0) + e.usage.get("completion", 0) for e in events)),
    }


@traces.command(cls=Command, example="intarsia traces show 3f9a --open")
@click.argument("id", required=False)
@path_option
@click.option("--open", "open_page", is_flag=True, help="Open it as a page in the browser.")
@click.option("--html", type=click.Path(path_type=Path), help="Write it as a page.")
@click.option("--force", is_flag=True, help="Write over a page that is there.")
def show(id: str | None, path: Path | None, open_page: bool, html: Path | None, force: bool) -> None:
    """Show the trace whose id begins with ID, or the latest. The page has everything that was said."""
    from intarsia.prompting.tracing import Trace

    if html is not None and html.exists() and not force:
        raise BadInput(f"{html} is there already: give another --html, or --force")
    trace = Trace.open(path, id)
    if settings_of().json:
        print_json(trace.to_json())
        return
    from intarsia.report import print_finding, render_finding

    finding = trace.finding()
    print_finding(finding, console())
    if html is not None or open_page:
        page = html or Path(tempfile.mkdtemp(prefix="intarsia-")) / f"{trace.id[:12]}.html"
        page.write_text(render_finding(finding), "utf-8")
        click.echo(f"page: {page}")
        if open_page:
            webbrowser.open(page.absolute().as_uri())


@traces.command(cls=Command, example="intarsia traces export 3f9a --otlp http://127.0.0.1:4318")
@click.argument("ids", nargs=-1, metavar="ID...")
@path_option
@click.option("--otlp", "url", metavar="URL", help="Send it to this OpenTelemetry collector, by HTTP.")
@click.option("--header", "headers", multiple=True, metavar="NAME=VALUE", help="A header for the collector.")
@click.option("--content", is_flag=True, help="Also what was said: it may hold what people wrote.")
def export(ids: tuple[str, ...], path: Path | None, url: str | None, headers: tuple[str, ...], content: bool) -> None:
    """Export traces (the latest, if no ID is given) as OpenTelemetry spans: to a collector, or as --json."""
    from intarsia.prompting.tracing import Trace, otlp, spans
    from intarsia.prompting.tracing import export as send

    if (url is None) == (not settings_of().json):
        raise BadInput("say where the spans go: --otlp URL, or --json for the terminal")
    given = dict(named("header", pair) for pair in headers)
    exporter = otlp(url, given) if url is not None else None
    chosen = [Trace.open(path, id) for id in ids or (None,)]
    if exporter is None:
        print_json([json.loads(span.to_json()) for trace in chosen for span in spans(trace, content)])
        return
    try:
        count = sum(send(trace, exporter, content) for trace in chosen)
    finally:
        exporter.shutdown()
    click.echo(f"{count} spans sent to {url}")


@traces.command(cls=Command, example="intarsia traces rm --older 30d\nintarsia traces rm --larger 500MB")
@click.argument("ids", nargs=-1, metavar="ID...")
@path_option
@click.option("--older", metavar="AGE", help="Those not written to for so long: 12h, 30d, 8w.")
@click.option("--larger", metavar="SIZE", help="The oldest, until the file is no larger than this: 500MB, 2GB.")
def rm(ids: tuple[str, ...], path: Path | None, older: str | None, larger: str | None) -> None:
    """Remove traces for good: by ID, by age, or the oldest until the file is small enough."""
    from intarsia.prompting.tracing import remove, size

    age = None if older is None else _amount(older, _AGES, "an age: 12h, 30d, 8w")
    most = None if larger is None else int(_amount(larger, _SIZES, "a size: 500MB, 2GB"))
    before = size(path)
    gone = remove(path, ids, older=age, most=most)
    freed = max(0, before - size(path))
    if settings_of().json:
        print_json({"removed": [t.id for t in gone], "freed": freed})
    else:
        click.echo(f"{len(gone)} traces removed, {freed / 1e6:,.1f} MB freed")


def _amount(text: str, units: dict[str, int], what: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]+)", text.strip().lower())
    if found is None or found[2] not in units:
        raise BadInput(f"'{text}' is no {what.partition(' ')[2].partition(':')[0]}: give{what.partition(':')[2]}")
    return float(found[1]) * units[found[2]]
