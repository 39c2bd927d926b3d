"""`data show`: what a data set holds, before anything is done with it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from intarsia.cli.base import Command, Group, console, settings_of
from intarsia.cli.progress import shown
from intarsia.errors import BadInput, did_you_mean

if TYPE_CHECKING:
    from intarsia.data import Dataset

FACTS_ONLY = (".nt", ".nq", ".ttl", ".gz", ".xz", ".tar", ".tgz", ".txz", ".zip")


@click.group(cls=Group, example="intarsia data show python-docs")
def data() -> None:
    """Look at a data set before anything is done with it."""


@data.command(cls=Command, example="intarsia data show turns.jsonl --label emotion --model smollm2-135m")
@click.argument("spec")
@click.option("--split", metavar="NAME", help="Only this split.")
@click.option("--label", metavar="COLUMN", help="Take the labels of turns from this column: emotion, sentiment.")
@click.option("--model", metavar="MODEL", help="Count tokens as this model does, and show what it would learn.")
@click.option(
    "--first", type=click.IntRange(1, 50), default=5, show_default=True, help="Show so many records of each split."
)
@click.option("--facts", is_flag=True, help="SPEC holds facts of a knowledge graph, whatever it looks like.")
def show(spec: str, split: str | None, label: str | None, model: str | None, first: int, facts: bool) -> None:
    """Show SPEC, a known data set, a file or a folder: counts, labels, speakers, lengths and the first records.

    With --model also tokens, how many records are longer than the model's context, and the first records in tokens,
    those that bear the loss marked."""
    from intarsia.data import Dataset, relabelled
    from intarsia.measure.survey import survey

    with shown():
        found = _facts(Path(spec).expanduser()) if facts else _open(spec)
        if split is not None and split not in found:
            raise BadInput(f"{spec}: no split '{split}'{did_you_mean(split, found)}; there are: {', '.join(found)}")
        splits = {name: list(found[name]) for name in ([split] if split else found)}
        if label is not None:
            splits = {name: relabelled(records, label) for name, records in splits.items()}
        chosen = Dataset(splits, found.name, found.facts)
        loaded = None
        if model is not None:
            from intarsia.models import load
            from intarsia.recipes.binding import with_task

            loaded = with_task(load(model), chosen)
        finding = survey(chosen, loaded, first)
        if loaded is not None:
            from intarsia.cli.marking import marked

            name = "train" if "train" in chosen else next(iter(chosen))
            some, why = marked(loaded, chosen, name, first)
            finding = finding.model_copy(update={"marked": some, "unmarked": why})
    if settings_of().json:
        click.echo(finding.to_json())
        return
    from rich.text import Text

    from intarsia.cli.marking import drawn
    from intarsia.report import print_finding

    out = console()
    print_finding(finding, out)
    for record in finding.marked:
        title = f"{record.split}, record {record.record}, as {record.by} reads it"
        out.print(Text(f"\n{title}: {len(record.ids)} tokens, {sum(record.learnt)} learnt", style="bold cyan"))
        out.print(drawn(record, out.color_system is not None))
    if finding.unmarked:
        out.print(Text(f"\nno tokens are marked: {finding.unmarked}", style="dim"))


def _open(spec: str) -> Dataset:
    """A data set, or the facts of a knowledge graph where SPEC holds such."""
    from intarsia.data import load_data
    from intarsia.data.columns import UnknownForm

    path = Path(spec).expanduser()
    if path.is_file() and (path.name.lower().endswith(FACTS_ONLY) or _three_columns(path)):
        return _facts(path)
    try:
        return load_data(spec, Path.cwd())
    except UnknownForm:
        try:
            return _facts(path)
        except BadInput:
            pass  # it holds neither; what records look like is the better hint
        raise


def _three_columns(path: Path) -> bool:
    """Whether the first line of a `.txt` file is head, relation and tail; in other formats the columns' names tell."""
    if path.suffix.lower() != ".txt":
        return False
    with path.open("rb") as file:
        line = file.readline(10_000)
    return line.count(b"\t") == 2


def _facts(path: Path) -> Dataset:
    from intarsia.data import Dataset, read_snapshots

    snapshots = read_snapshots(path)
    splits = {
        name if len(snapshots) == 1 else f"{snapshot.name}.{name}": facts
        for snapshot in snapshots
        for name, facts in (("train", snapshot.train), ("valid", snapshot.valid), ("test", snapshot.test))
        if facts
    }
    if not splits:
        raise BadInput(f"{path}: no facts in it")
    return Dataset(splits, name=path.resolve().name)
