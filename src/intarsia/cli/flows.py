"""`flow`: run, list, show and go on with flows."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import click

from intarsia.cli.base import Command, Group, print_json, print_table, settings_of, told
from intarsia.cli.inputs import inputs_of, named
from intarsia.cli.progress import shown
from intarsia.cli.traces import path_option, rows_of, show
from intarsia.errors import BadInput


@click.group(cls=Group, example="intarsia flow run assistant.py:answer --input question.json\nintarsia flow ls")
def flow() -> None:
    """Plain Python functions whose steps are recorded, and which go on where they stopped."""


@flow.command(cls=Command, example='echo \'{"question": "why"}\' | intarsia flow run assistant.py:answer --input -')
@click.argument("target", metavar="FILE.py:NAME")
@click.option("--input", "file", metavar="FILE", help="A JSON object of its inputs; - reads it from standard input.")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="One input; JSON, or a text.")
@click.option("--resume", metavar="ID", help="Go on with this trace: what it holds is not done again.")
@path_option
def run(target: str, file: str | None, settings: tuple[str, ...], resume: str | None, path: Path | None) -> None:
    """Run the flow NAME in FILE.py. A model or a store among its inputs is given by its name or folder."""
    from intarsia.prompting.execute.flows.loading import load_flow

    found = load_flow(target)
    _finish(found, {**inputs_of(file), **_settings(settings)}, resume, (), path)


@flow.command(cls=Command, example="intarsia flow resume 3f9a --answer yes")
@click.argument("id")
@click.option(
    "--answer", "answers", multiple=True, metavar="TEXT", help="To what it waits for; ID=TEXT if for several."
)
@path_option
def resume(id: str, answers: tuple[str, ...], path: Path | None) -> None:
    """Go on with the flow whose trace begins with ID."""
    from intarsia.prompting.execute.flows.loading import flow_of
    from intarsia.prompting.tracing import Trace

    old = Trace.open(path, id)
    _finish(flow_of(old), old.facts.get("given") or {}, old.id, answers, path)


@flow.command(cls=Command, name="ls", example="intarsia flow ls --limit 50")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1), help="The latest so many.")
@path_option
def list_flows(limit: int, path: Path | None) -> None:
    """List runs of flows, the latest first, and what they wait for."""
    from itertools import islice

    from intarsia.prompting.execute.flows import questions
    from intarsia.prompting.tracing import traces

    found = list(islice((t for t in traces(path) if t.facts.get("flow")), limit))
    rows = [row | {"flow": t.facts["flow"], "questions": questions(t) if row["state"] == "waiting" else {}}
            for t, row in zip(found, rows_of(found), strict=True)]  # fmt: skip
    if settings_of().json:
        print_json(rows)
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("id", "when", "flow", "state", "steps", "waits for"):
        table.add_column(name, no_wrap=name != "waits for")
    for row in rows:
        waits = "; ".join(row["questions"].values())
        table.add_row(row["id"][:12], row["when"], row["name"], row["state"], str(row["events"]), waits)
    print_table(table)


flow.add_command(show, "show")


def _finish(found: Any, given: dict[str, Any], resume: str | None, answers: tuple[str, ...], path: Path | None) -> None:
    """Run it to its end, and print what it gave."""
    from intarsia.prompting.tracing import pack, plain

    inputs = found.from_json(given)
    with shown():
        done = asyncio.run(
            found.run(inputs, path=path, resume=resume, answers=answers, asker=_asker(), facts={"given": given})
        )
    try:
        value = plain(pack(done.value, "output"))
    except BadInput:
        value = str(done.value)
    id = done.trace.id if done.trace is not None else None
    if settings_of().json:
        print_json({"value": value, "trace": id})
        return
    click.echo(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=1))
    if id is not None:
        told(f"trace {id[:12]}: `intarsia flow show {id[:12]}`")


def _asker() -> Any:
    """Who answers: the person at the terminal, if there is one."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()) or settings_of().quiet or os.environ.get("CI"):
        return None
    return lambda question: asyncio.to_thread(click.prompt, question, err=True)


def _settings(given: tuple[str, ...]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for pair in given:
        name, value = named("set", pair)
        try:
            out[name] = json.loads(value)
        except ValueError:
            out[name] = value
    return out
