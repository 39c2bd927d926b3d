"""Pages of the documentation that follow from the declarations: the catalog, a page a technique, the command line."""

from __future__ import annotations

import inspect

import click
from pydantic_core import PydanticUndefined

from intarsia import catalog
from intarsia.catalog import Technique
from intarsia.cli import options


def pages() -> dict[str, str]:
    """Every generated page: path under the docs folder -> Markdown."""
    known = list(catalog.load().values())
    out = {"catalog.md": catalog_page(known), "cli.md": cli_page(), "recipes-shipped.md": recipes_page()}
    for technique in known:
        out[f"techniques/{technique.name}.md"] = technique_page(technique)
    return out


def catalog_page(known: list[Technique]) -> str:
    """The table of all techniques."""
    lines = [
        "# Catalog",
        "",
        f"{len(known)} techniques, each declared once in code. A *change* gives a new model, a *look* a finding.",
        "",
    ]
    for room in sorted({t.room for t in known}):
        lines += [f"## {room}", "", "| technique | kind | family | what it does | source |", "|---|---|---|---|---|"]
        for t in known:
            if t.room == room:
                link = f"[`{t.name}`](techniques/{t.name}.md)"
                lines.append(f"| {link} | {t.kind} | {_cell(t.family)} | {_cell(t.summary)} | {_cell(t.source)} |")
        lines.append("")
    return "\n".join(lines)


def overview(known: list[Technique]) -> str:
    """The README's table: a row a family, with the names of its techniques."""
    rows: dict[tuple[str, str], list[str]] = {}
    for t in known:
        rows.setdefault((t.room, t.family), []).append(t.name.partition(".")[2])
    lines = ["| room | family | techniques |", "|---|---|---|"]
    for (room, family), names in sorted(rows.items()):
        lines.append(f"| {room} | {family} | {', '.join(f'`{name}`' for name in names)} |")
    return "\n".join(lines)


def technique_page(technique: Technique) -> str:
    """The page of one technique: what it does, its settings, how it is called in each of the three ways."""
    from intarsia.cli.examples import example, python_example
    from intarsia.recipes.binding import FACTS, data_inputs, fact_inputs, model_inputs

    lines = [
        f"# {technique.name}",
        "",
        inspect.getdoc(technique.function) or technique.summary,
        "",
        f"- **Kind**: {technique.kind}, gives a {technique.gives}",
        f"- **Family**: {technique.family}",
        f"- **Source**: {technique.source}",
        *([f"- **Place in the field**: {technique.place}"] if technique.place else []),
        f"- **Needs**: {technique.needs}" + (f", the extra `{technique.extra}`" if technique.extra else ""),
        "",
    ]
    if technique.inputs:
        models, data, facts = model_inputs(technique), data_inputs(technique), fact_inputs(technique)
        lines += ["## Inputs", "", "| input | what | required |", "|---|---|---|"]
        for name, (_, needed) in technique.inputs.items():
            what = (
                "another model: a state of the run"
                if name in models
                else "facts that are new: a path, or in Python a list"
                if name == FACTS
                else "records: a split of the data"
                if name in data
                else "a fact of the data set"
                if name in facts
                else "of every random choice"
            )
            lines.append(f"| `{name}` | {what} | {'yes' if needed else 'no'} |")
        lines.append("")
    if technique.config.model_fields:
        lines += ["## Settings", "", "| setting | type | default | what it does |", "|---|---|---|---|"]
        for name, field in technique.config.model_fields.items():
            default = options.default_of(field)
            shown = "*required*" if default is PydanticUndefined else f"`{options.shown(default)}`"
            kind = options.kind_of(field.annotation)
            lines.append(f"| `{name}` | {kind} | {_cell(shown)} | {_cell(field.description or '')} |")
        lines.append("")
    lines += ["## Use", ""]
    if python := python_example(technique):
        lines += ["```python", python, "```", ""]
    lines += ["```console", *(f"$ {line}" for line in example(technique).splitlines()), "```", ""]
    if technique.kind != "learn" and technique.subject is None:
        lines += ["```yaml", *_step(technique), "```", ""]
    return "\n".join(lines)


def cli_page() -> str:
    """The reference of the command line: every command's help."""
    from intarsia.cli.app import root

    lines = ["# Command line", "", "Every command takes `--json`, `--quiet` and `--debug`. Exit codes: 0 all well,", ""]
    lines[2] += " 1 a failure, 2 bad input, 3 a budget not reached, 130 stopped by Ctrl-C."
    context = click.Context(root, info_name="intarsia", max_content_width=100, terminal_width=100)
    lines += _command_help(root, context, 2)
    return "\n".join(lines)


def _command_help(command: click.Command, context: click.Context, level: int) -> list[str]:
    lines = [f"{'#' * min(level, 4)} `{context.command_path}`", "", "```text", command.get_help(context), "```", ""]
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            if inner is not None:
                child = click.Context(inner, info_name=name, parent=context, max_content_width=100, terminal_width=100)
                lines += _command_help(inner, child, level + 1)
    return lines


def recipes_page() -> str:
    """The shipped recipes in full."""
    from importlib import resources

    from intarsia.recipes import shipped

    lines = ["# Shipped recipes", ""]
    for name, description in shipped().items():
        text = resources.files("intarsia.recipes").joinpath("shipped", f"{name}.yaml").read_text(encoding="utf-8")
        lines += [
            f"## {name}",
            "",
            description,
            "",
            "```console",
            f"$ intarsia run {name}",
            "```",
            "",
            "```yaml",
            text.strip(),
        ]
        lines += ["```", ""]
    return "\n".join(lines)


def _step(technique: Technique) -> list[str]:
    from intarsia.recipes.binding import model_inputs

    settings = [f"{name}: base" for name, needed in model_inputs(technique).items() if needed]
    for name, field in technique.config.model_fields.items():
        default = options.default_of(field)
        if default is PydanticUndefined:
            settings.append(f"{name}: ...")
        elif isinstance(default, int | float | str) and default != "" and len(settings) < 3:
            settings.append(f"{name}: {str(default).lower() if isinstance(default, bool) else default}")
    return ["steps:", f"  - {technique.name}: {{{', '.join(settings)}}}"]


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|") if "\\|" not in text else text
