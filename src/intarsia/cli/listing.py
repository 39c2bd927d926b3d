"""`catalog` and `models`."""

from __future__ import annotations

from typing import Any

import click

from intarsia import catalog as techniques
from intarsia.cli import options
from intarsia.cli.base import Command, print_json, print_table, settings_of
from intarsia.errors import BadInput, did_you_mean


def row(technique: techniques.Technique) -> dict[str, Any]:
    """A technique as plain data: what the docs, the web page and scripts read."""
    return {
        "name": technique.name,
        "kind": technique.kind,
        "family": technique.family,
        "summary": technique.summary,
        "source": technique.source,
        "needs": technique.needs,
        "gives": technique.gives,
        "extra": technique.extra,
        "inputs": {name: {"type": kind, "required": need} for name, (kind, need) in technique.inputs.items()},
        "config": technique.config.model_json_schema(),
    }


@click.command(cls=Command, example="intarsia catalog compression")
@click.argument("room", required=False)
def catalog(room: str | None) -> None:
    """List every technique, or those of one ROOM."""
    known = techniques.load()
    if room is not None and room not in {t.room for t in known.values()}:
        rooms = sorted({t.room for t in known.values()})
        raise BadInput(f"no room '{room}'{did_you_mean(room, rooms)}; there are: {', '.join(rooms)}")
    chosen = [t for t in known.values() if room in (None, t.room)]
    if settings_of().json:
        print_json([row(t) for t in chosen])
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("technique", "kind", "family", "what it does"):
        table.add_column(name, no_wrap=name in ("technique", "kind"))
    for t in chosen:
        table.add_row(t.name, t.kind, t.family, t.summary)
    print_table(table)


@click.command(cls=Command, example="intarsia models")
def models() -> None:
    """List the models that have a short name, and which of them are on this machine."""
    from intarsia.models.names import known_models

    found = {name: model.cached() for name, model in known_models().items()}
    if settings_of().json:
        from dataclasses import asdict

        print_json([{**asdict(model), "cached": found[name]} for name, model in known_models().items()])
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("name", "here", "what", "size", "licence", "hub"):
        table.add_column(name, no_wrap=name == "name", overflow="fold")
    for name, model in known_models().items():
        table.add_row(name, "yes" if found[name] else "", model.what, model.size, model.licence, model.hub)
    print_table(table)


__all__ = ["catalog", "models", "options", "row"]
