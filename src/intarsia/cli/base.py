"""What every command has: the options --json, --quiet and --debug, an example at the end of its help, and hints."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Any

import click

from intarsia.errors import did_you_mean


@dataclass
class Settings:
    """The options that hold for any command, given before or after its name."""

    json: bool = False
    quiet: bool = False
    debug: bool = False


def settings_of(context: click.Context | None = None) -> Settings:
    """The settings of the command that is running."""
    context = (context or click.get_current_context()).find_root()
    return context.ensure_object(Settings)


def _set(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        setattr(settings_of(context), parameter.name, True)  # type: ignore[arg-type]


def _common() -> list[click.Parameter]:
    told = {
        "json": "Print JSON for scripts.",
        "quiet": "No progress, only results and errors.",
        "debug": "Show tracebacks.",
    }
    return [
        click.Option([f"--{name}"], is_flag=True, expose_value=False, callback=_set, is_eager=True, help=text)
        for name, text in told.items()
    ]


class _Common:
    """The common options, and the example."""

    def __init__(self, *arguments: Any, example: str = "", **given: Any):
        self.example = example
        super().__init__(*arguments, **given)
        self.params += _common()  # type: ignore[attr-defined]

    def format_epilog(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_epilog(context, formatter)  # type: ignore[misc]
        if self.example:
            with formatter.section("Example"):
                for line in self.example.splitlines():
                    formatter.write(f"  {line}\n")


class Command(_Common, click.Command):
    """A command with the common options and an example."""


class Group(_Common, click.Group):
    """A group whose unknown commands get a hint. `leave-one-out` is understood as `leave_one_out`."""

    command_class = Command

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        return super().get_command(context, name) or super().get_command(context, name.replace("-", "_"))

    def resolve_command(
        self, context: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        command = self.get_command(context, name)
        if command is None and not name.startswith("-"):
            known = self.list_commands(context)
            hint = did_you_mean(name, known) or f"; there are: {', '.join(known)}"
            context.fail(f"no command '{name}'{hint}")
        return super().resolve_command(context, args)


def print_json(value: Any) -> None:
    """JSON on stdout."""
    click.echo(json.dumps(value, indent=1, ensure_ascii=False, default=str))


def console(**options: Any) -> Any:
    """A rich console on stdout; as wide as it takes where that is no terminal."""
    from rich.console import Console

    if not sys.stdout.isatty():
        options.setdefault("width", 120)
    return Console(highlight=False, soft_wrap=False, **options)


def print_table(table: Any) -> None:
    """A rich table on stdout; where that is no terminal, a line a row, however long, for `grep` and the like."""
    if sys.stdout.isatty():
        console().print(table)
        return
    lines = console(width=10_000)
    with lines.capture() as text:
        lines.print(table)
    click.echo("\n".join(line.rstrip() for line in text.get().splitlines()))


def told(*parts: str) -> None:
    """A line for the person on stderr, unless --quiet or --json."""
    settings = settings_of()
    if not (settings.quiet or settings.json):
        click.echo(" ".join(parts), err=True)
