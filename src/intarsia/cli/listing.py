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
        "place": technique.place,
        "inputs": {name: {"type": kind, "required": need} for name, (kind, need) in technique.inputs.items()},
        "config": technique.config.model_json_schema(),
    }


@click.command(cls=Command, example="intarsia catalog --family interpretation")
@click.argument("room", required=False)
@click.option("--family", metavar="NAME", help="Only techniques of this family; a room's name gives the whole room.")
def catalog(room: str | None, family: str | None) -> None:
    """List every technique, or those of one ROOM or family."""
    known = techniques.load()
    if family is not None:
        if family in {t.room for t in known.values()}:
            room, family = room or family, None
        elif family not in (families := sorted({t.family for t in known.values()})):
            raise BadInput(f"no family '{family}'{did_you_mean(family, families)}; there are: {', '.join(families)}")
    if room is not None and room not in {t.room for t in known.values()}:
        rooms = sorted({t.room for t in known.values()})
        raise BadInput(f"no room '{room}'{did_you_mean(room, rooms)}; there are: {', '.join(rooms)}")
    chosen = [t for t in known.values() if room in (None, t.room) and family in (None, t.family)]
    if settings_of().json:
        print_json([row(t) for t in chosen])
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    placed = any(t.place for t in chosen)
    for name in ("technique", "kind", "family", "what it does", *(["place in the field"] if placed else [])):
        table.add_column(name, no_wrap=name in ("technique", "kind"))
    for t in chosen:
        table.add_row(t.name, t.kind, t.family, t.summary, *([t.place] if placed else []))
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
