"""`intarsia vllm`: the way to vLLM."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from intarsia.cli.base import Command, print_json, settings_of, told
from intarsia.cli.progress import shown
from intarsia.errors import BadInput


@click.command(
    "vllm",
    cls=Command,
    example="intarsia vllm runs/emotion --out for-vllm --name emotion",
    help="""Write a model for vLLM, and the command that serves it there.

    The folder is plain Hugging Face: rounded weights are multiplied out, adapters stay beside it and are named in the
    command. It is loaded anew by transformers and compared with the model before anything is said.

    MODEL: a run, a bundle, a known name, a hub id or a folder.""",
)
@click.argument("model")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Where to write the folder.")
@click.option("--name", help="What clients are to call it; unset: the model's own name.")
@click.option("--adapter", "adapters", multiple=True, metavar="NAME=PATH", help="A LoRA folder, served as model NAME.")
@click.option("--force", is_flag=True, help="Replace what is at --out.")
def vllm(model: str, out: Path, name: str | None, adapters: tuple[str, ...], force: bool) -> None:
    from intarsia.server.vllm import export

    folders: dict[str, Path] = {}
    for text in adapters:
        called, _, path = text.partition("=")
        if not called or not path:
            raise BadInput(f"--adapter {text}: give a name and a folder, as in law=adapters/law")
        folders[called] = Path(path)
    with shown():
        made = export(model, out, name=name, adapters=folders, force=force)
    facts: dict[str, Any] = {"folder": str(made.folder), "command": made.command, "gap": made.gap}
    if settings_of().json:
        print_json(facts)
        return
    told(f"{made.folder}: answers as the model does (largest difference of a logit: {made.gap:.1g} of the largest)")
    click.echo(made.command)
