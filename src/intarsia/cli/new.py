"""`new`: projects to begin with."""

from __future__ import annotations

from typing import Literal

import click

from intarsia.cli.base import Command, Group, print_json, settings_of
from intarsia.cli.progress import shown


@click.group(cls=Group, example="intarsia new assistant handbook-assistant --documents handbook/")
def new() -> None:
    """Begin a project: files that are yours from then on."""


@new.command(
    cls=Command,
    example="intarsia new assistant helper --documents handbook/ --model smollm2-135m\n"
    "intarsia new assistant python-helper --python-docs",
)
@click.argument("folder", metavar="DIR")
@click.option(
    "--documents", metavar="SOURCE", multiple=True, help="A file, a folder or a database; may be given again."
)
@click.option("--python-docs", "python", is_flag=True, help="The installed Python's documentation and facts instead.")
@click.option("--graph", metavar="GRAPH", help="Facts: a knowledge graph's folder, a file of facts, or python.")
@click.option("--model", default="smollm2-135m", show_default=True, help="A model's name; openai:http://host/v1#name.")
@click.option("--encoder", default="minilm", show_default=True, help="What embeds passages; none: words alone.")
@click.option(
    "--answers", type=click.Choice(("quote", "write")),
    help="The documents' sentences, or the model's own, checked.  [default: write, with a model behind a server]",
)  # fmt: skip
@click.option("--name", default="", help="What it is called.  [default: the folder's name]")
@click.option("--about", default="", help="What the documents are about, as the prompts say it.")
def assistant(
    folder: str, documents: tuple[str, ...], python: bool, graph: str | None, model: str, encoder: str,
    answers: Literal["quote", "write"] | None, name: str, about: str,
) -> None:  # fmt: skip
    """Write an assistant into DIR, a new folder: it answers questions from documents, and says where it stands.

    Settings, prompts, tools, the flow and questions to measure it by are plain files in it."""
    from intarsia.prompting.assistant import new_assistant

    with shown():
        made = new_assistant(
            folder, documents, python=python, graph=graph, model=model, encoder=None if encoder == "none" else encoder,
            answers=answers, name=name, about=about,
        )  # fmt: skip
    documents_, facts = len(made.store.documents()), sum(made.store.facts_by_source().values())
    if settings_of().json:
        print_json({"folder": folder, "documents": documents_, "facts": facts, "settings": made.settings.model_dump()})
        return
    click.echo(f"{folder}: {documents_:,} documents, {facts:,} facts; `intarsia assistant ask {folder} QUESTION`")
