"""`run`, `show`, `recipes`, `recipe check`."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING

import click

from intarsia.cli.base import Command, Group, console, print_json, settings_of, told
from intarsia.cli.progress import shown

if TYPE_CHECKING:
    from intarsia.recipes import Recipe
    from intarsia.report import Table


@click.command(cls=Command, example="intarsia run python-docs --set seed=1 --out runs/second --dry-run")
@click.argument("recipe")
@click.option("--out", type=click.Path(path_type=Path), help="The run's folder.  [default: runs/<name>]")
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Override a key: seed=1, adaptation.label.epochs=2."
)
@click.option("--dry-run", is_flag=True, help="Check everything and list the steps; do nothing.")
@click.option("--force", is_flag=True, help="Forget finished steps and start afresh.")
def run(recipe: str, out: Path | None, settings: tuple[str, ...], dry_run: bool, force: bool) -> None:
    """Run RECIPE, a YAML file or the name of a shipped recipe.

    A run that was stopped goes on where it was: give the same command again."""
    from intarsia.recipes import Recipe
    from intarsia.recipes import run as execute

    with shown():
        read = Recipe.read(recipe, settings)
        if dry_run:
            _list_steps(read)
            return
        bundle = execute(read, out, force=force)
    if settings_of().json:
        print_json(
            {
                "bundle": str(bundle.path),
                "report": str(bundle.report),
                "headline": bundle.headline().model_dump(mode="json"),
            }
        )
        return
    _print_table(bundle.headline())
    click.echo(f"report: {bundle.report}")


@click.command(cls=Command, example="intarsia run python-docs\nintarsia show python-docs")
@click.argument("run", metavar="RUN")
@click.option("--open", "open_page", is_flag=True, help="Open the page in the browser.")
@click.option("--full", is_flag=True, help="Print every finding in full.")
def show(run: str, open_page: bool, full: bool) -> None:
    """Show RUN: a run's folder, its name under runs/, or a bundle. Works while it goes on, too."""
    from intarsia.recipes import status

    state = status(run)
    if settings_of().json:
        print_json(
            {
                "name": state.name,
                "path": str(state.path),
                "finished": state.bundle is not None,
                "steps": [{"title": title, "finished": done} for title, done in state.units],
                "headline": state.headline().model_dump(mode="json"),
                "findings": [
                    {"technique": e.technique, "on": e.on, "against": e.against, **e.finding.model_dump(mode="json")}
                    for e in state.entries
                ],
                "report": str(state.bundle.report) if state.bundle else None,
            }
        )
        return
    if state.bundle is None:
        done = sum(finished for _, finished in state.units)
        click.echo(f"{state.name}: {done} of {len(state.units)} steps finished")
        for title, finished in state.units:
            click.echo(f"  {'done' if finished else '    '}  {title}")
    _print_table(state.headline())
    for entry in state.entries:
        against = f" against {', '.join(entry.against)}" if entry.against else ""
        click.echo(f"\n{entry.technique} on {entry.on}{against}: {entry.title}")
        if full:
            from intarsia.report import print_finding

            print_finding(entry.finding, console())
        elif entry.finding.summary:
            click.echo(f"  {entry.finding.summary}")
    if state.bundle is not None:
        click.echo(f"\nreport: {state.bundle.report}")
        if open_page:
            webbrowser.open(state.bundle.report.as_uri())
    elif open_page:
        told("the page is drawn when the run is finished")


@click.command(cls=Command, example="intarsia recipes")
def recipes() -> None:
    """List the recipes that come with Intarsia; run one by its name."""
    from intarsia.recipes import shipped

    if settings_of().json:
        print_json(shipped())
        return
    for name, description in shipped().items():
        click.echo(f"{name}\n  {description}")


@click.group(cls=Group, example="intarsia recipe check python-docs")
def recipe() -> None:
    """Check a recipe before running it; tidy up after it."""


@recipe.command(cls=Command, example="intarsia recipe check python-docs")
@click.argument("file")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Override a key: seed=1.")
def check(file: str, settings: tuple[str, ...]) -> None:
    """Check FILE, a recipe or the name of a shipped one: keys, settings, states, splits, data files, extras."""
    from intarsia.recipes import Recipe

    with shown():
        _list_steps(Recipe.read(file, settings))


@recipe.command(cls=Command, example="intarsia run python-docs\nintarsia recipe tidy runs/python-docs")
@click.argument("run", type=click.Path(path_type=Path))
def tidy(run: Path) -> None:
    """Free the disk of finished steps in RUN that its recipe, as last run, does not need."""
    from intarsia.recipes import tidy as remove

    freed = remove(run)
    if settings_of().json:
        print_json({"freed": freed})
    else:
        click.echo(f"{freed / 1e6:,.1f} MB freed")


def _list_steps(recipe: Recipe) -> None:
    data = recipe.load_data()
    if settings_of().json:
        print_json(
            {
                "name": recipe.name,
                "model": recipe.model,
                "data": {name: len(rows) for name, rows in data.splits.items()} if data is not None else None,
                "steps": [
                    {
                        "technique": step.technique.name,
                        "on": step.on,
                        "gives": step.state,
                        "models": step.models,
                        "splits": recipe.bind(step, data),
                        "settings": step.config.model_dump(mode="json"),
                    }
                    for step in recipe.steps
                ],
            }
        )
        return
    click.echo(f"{recipe.name}: model {recipe.model}, seed {recipe.seed}")
    if data is not None:
        click.echo("data: " + ", ".join(f"{name} {len(rows):,}" for name, rows in data.splits.items()))
    for number, step in enumerate(recipe.steps, 1):
        gives = f" → {step.state}" if step.state else ""
        bound = {**step.models, **recipe.bind(step, data)}
        inputs = f"  ({', '.join(f'{k}: {v}' for k, v in bound.items())})" if bound else ""
        click.echo(f"  {number}. {step.technique.name} on {', '.join(step.on)}{gives}{inputs}")


def _print_table(table: Table) -> None:
    from intarsia.recipes.headline import Headline
    from intarsia.report import print_finding

    if table.rows:
        print_finding(Headline(title=table.title, shown=table.model_copy(update={"title": ""})), console())
