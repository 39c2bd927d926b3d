"""`assistant`: ask an assistant, talk to it, keep it up to date, measure it."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from intarsia.cli.base import Command, Group, console, print_json, print_table, settings_of, told
from intarsia.cli.progress import shown

if TYPE_CHECKING:
    from intarsia.prompting.assistant import Assistant, Reply, Turn


@click.group(cls=Group, name="assistant", example='intarsia assistant ask helper "How long is the warranty?"')
def assistant() -> None:
    """Ask the assistant that `intarsia new assistant` made; keep it up to date; measure it."""


@assistant.command(cls=Command, example='intarsia assistant ask helper "How long is the warranty of a kettle?"')
@click.argument("folder", metavar="DIR")
@click.argument("question")
def ask(folder: str, question: str) -> None:
    """Ask the assistant in DIR. The answer stands with its citations; “...” and underlined words are the documents'."""
    opened = _open(folder)
    with shown():
        reply, trace = asyncio.run(_answered(opened, question, []))
    if settings_of().json:
        print_json({**asdict(reply), "trace": trace})
        return
    _print(reply)
    if trace is not None:
        told(f"trace {trace[:12]}: `intarsia flow show {trace[:12]}`")


@assistant.command(cls=Command, example="intarsia assistant chat helper")
@click.argument("folder", metavar="DIR")
def chat(folder: str) -> None:
    """Talk to the assistant in DIR: a question a line; an empty line, or the end of the input, ends it.

    What was said before goes with each question, as far as it fits the prompt."""
    from intarsia.prompting.assistant import Turn

    opened = _open(folder)
    stdin, history = click.get_text_stream("stdin"), list[Turn]()

    async def talk() -> None:
        while True:
            told("> ") if not stdin.isatty() else click.echo("> ", nl=False, err=True)
            question = (await asyncio.to_thread(stdin.readline)).strip()
            if not question:
                return
            with shown():
                reply, _ = await _flow(opened, question, history)
            if settings_of().json:
                print_json(asdict(reply))
            else:
                _print(reply)
            history.append(Turn(question, reply.answer))

    asyncio.run(_closing(opened, talk()))


@assistant.command(cls=Command, example="intarsia assistant update helper")
@click.argument("folder", metavar="DIR")
def update(folder: str) -> None:
    """Bring the store of the assistant in DIR up to date with its documents and facts."""
    from intarsia.prompting.assistant import update as bring

    with shown():
        added, facts = bring(_open(folder))
    if settings_of().json:
        print_json({**asdict(added), "facts": facts})
        return
    parts = [f"{getattr(added, name):,} {name}" for name in ("new", "changed", "unchanged", "removed")]
    click.echo(f"{folder}: {', '.join(parts)}; {facts:,} new facts")


@assistant.command(cls=Command, example="intarsia assistant measure helper\nintarsia assistant measure helper --json")
@click.argument("folder", metavar="DIR")
@click.option("--questions", metavar="FILE", help="JSONL: question, sources.  [default: questions.jsonl]")
@click.option("--unanswerable", metavar="FILE", help="JSONL: question.  [default: unanswerable.jsonl]")
def measure(folder: str, questions: str | None, unanswerable: str | None) -> None:
    """Ask the assistant in DIR every question of its sets: how often it cites a right place, and when it refuses."""
    from intarsia.prompting.assistant import measure as of

    opened = _open(folder)
    with shown():
        found = asyncio.run(_closing(opened, of(opened, questions, unanswerable)))
    if settings_of().json:
        print_json(asdict(found))
        return
    from rich.table import Table

    table = Table("", "share", box=None, header_style="bold")
    for k, share in found.right.items():
        table.add_row(f"a right place among the first {k}", f"{share:.2f}")
    table.add_row("the answer cites a right place", f"{found.cited:.2f}")
    table.add_row("refused, though answerable", f"{found.refused:.2f}")
    if found.kept is not None:
        table.add_row(f"refused, of {found.unanswerable} that nothing answers", f"{found.kept:.2f}")
    table.add_row("answers with copied words marked", f"{found.copied:.2f}")
    print_table(table)
    made = ", ".join(f"{count} by {by}" for by, count in found.by.items() if count)
    click.echo(f"{found.questions} questions: {made}; {found.seconds[0]:.2f} s each (slowest {found.seconds[1]:.2f} s)")


def _open(folder: str) -> Assistant:
    from intarsia.prompting.assistant import Assistant

    return Assistant.open(Path(folder))


async def _answered(opened: Assistant, question: str, history: list[Turn]) -> tuple[Reply, str | None]:
    return await _closing(opened, _flow(opened, question, history))


async def _flow(opened: Assistant, question: str, history: list[Turn]) -> tuple[Reply, str | None]:
    done = await opened.flow("answer").run({"question": question, "history": list(history)})
    return done.value, done.trace.id if done.trace is not None else None


async def _closing(opened: Assistant, work: Any) -> Any:
    try:
        return await work
    finally:
        await opened.close()


def _print(reply: Reply) -> None:
    """The answer, its copied words underlined, and where it stands."""
    from rich.text import Text

    out = console()
    text = Text(reply.answer)
    for mark in reply.copied:
        text.stylize("underline", mark.start, mark.end)
    out.print(text)
    for citation in reply.citations:
        out.print(Text(f"[{citation.id}] {citation.place}" + (f"  {citation.about}" if citation.about else ""), "dim"))
    if reply.refused and reply.nearest:
        out.print(Text("nearest: " + ", ".join(citation.place for citation in reply.nearest[:3]), "dim"))


__all__ = ["assistant"]
