"""`intarsia keys`: who may use a server."""

from __future__ import annotations

import time
from pathlib import Path

import click

from intarsia.cli.base import Group, print_json, print_table, settings_of, told

_FILE = click.option(
    "--file", "file", type=click.Path(path_type=Path), help="The file of keys; unset: the user's own (INTARSIA_KEYS)."
)


@click.group("keys", cls=Group, example="intarsia keys add ann --scopes chat,embed --rate 60/min")
def keys() -> None:
    """Make and remove keys for `intarsia serve`.

    A key is shown once; the file holds its sha256 alone. A server that runs sees changes at once."""


@keys.command("add", example="intarsia keys add ann --scopes chat,embed --models assistant --tokens-per-day 200000")
@click.argument("name")
@click.option("--scopes", default="chat,embed", show_default=True, help="Groups of routes, by commas; `all`: each.")
@click.option("--models", default="", help="Models that it is for, by commas; unset: all.")
@click.option("--rate", help="Requests in a time, as in 60/min; unset: any number.")
@click.option(
    "--tokens-per-day", type=click.IntRange(1), help="Tokens read and made in a day (UTC); unset: any number."
)
@_FILE
def add(name: str, scopes: str, models: str, rate: str | None, tokens_per_day: int | None, file: Path | None) -> None:
    """Make a key and show it, once."""
    from intarsia.server.keys import SCOPES, Rate
    from intarsia.server.keys.store import Keys, default_file

    wanted = SCOPES if scopes == "all" else _listed(scopes)
    rated = Rate.parse(rate) if rate is not None else None
    store = Keys(file or default_file(), make=True)
    made = store.add(name, scopes=wanted, models=_listed(models), rate=rated, tokens_per_day=tokens_per_day)
    if settings_of().json:
        print_json({"name": name, "key": made, "scopes": list(wanted), "file": str(store.path)})
        return
    told(f"key '{name}' in {store.path}, shown this once:")
    click.echo(made)


@keys.command("ls", example="intarsia keys ls --json")
@_FILE
def ls(file: Path | None) -> None:
    """List keys: what they may, never what they are."""
    from intarsia.server.keys.store import Keys, default_file

    day = time.strftime("%Y-%m-%d", time.gmtime())
    store = Keys(file or default_file())
    rows = [
        {"name": k.name, "scopes": list(k.scopes), "models": list(k.models), "rate": str(k.rate) if k.rate else None,
         "tokens_per_day": k.tokens_per_day, "tokens_today": store.used(k.name, day), "made": k.made}
        for k in store.rows()
    ]  # fmt: skip
    if settings_of().json:
        print_json(rows)
        return
    from rich.table import Table

    table = Table("name", "scopes", "models", "rate", "tokens a day", "today", "made")
    for row in rows:
        table.add_row(
            row["name"], ", ".join(row["scopes"]), ", ".join(row["models"]) or "all", row["rate"] or "any",
            f"{row['tokens_per_day']:,}" if row["tokens_per_day"] else "any", f"{row['tokens_today']:,}",
            time.strftime("%Y-%m-%d", time.localtime(row["made"])),
        )  # fmt: skip
    print_table(table)


@keys.command("rm", example="intarsia keys rm ann")
@click.argument("name")
@_FILE
def rm(name: str, file: Path | None) -> None:
    """Remove a key: from now on it opens nothing."""
    from intarsia.server.keys.store import Keys, default_file

    Keys(file or default_file()).remove(name)
    told(f"key '{name}' is gone")


def _listed(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())
