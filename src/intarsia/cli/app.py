"""The root command, and how every error ends: one line on stderr and an exit code."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence

import click

import intarsia
from intarsia.cli.base import Group, settings_of
from intarsia.cli.notes import notes
from intarsia.errors import IntarsiaError

# Module of each command, imported when it is asked for, so that `intarsia --help` is quick.
COMMANDS = {
    "run": ("intarsia.cli.running", "run", "Run a recipe: a model's whole life in one file."),
    "show": ("intarsia.cli.running", "show", "Show what a run found, finished or not."),
    "recipes": ("intarsia.cli.running", "recipes", "List the recipes that come with Intarsia."),
    "recipe": ("intarsia.cli.running", "recipe", "Check a recipe before running it."),
    "store": ("intarsia.cli.store", "store", "Documents and facts that answers are drawn from: add, search."),
    "data": ("intarsia.cli.data", "data", "Look at a data set before anything is done with it."),
    "prompt": ("intarsia.cli.prompts", "prompt", "See what prompts say, exactly, before anything is sent."),
    "eval": ("intarsia.cli.evaluation", "evaluate", "Measure a prompt and a model on a set, with gates."),
    "flow": ("intarsia.cli.flows", "flow", "Run flows: functions whose steps are recorded, and go on after a stop."),
    "new": ("intarsia.cli.new", "new", "Begin a project: an assistant over your documents."),
    "assistant": ("intarsia.cli.assistants", "assistant", "Ask an assistant, keep it up to date, measure it."),
    "traces": ("intarsia.cli.traces", "traces", "What models were asked and answered, step by step."),
    "serve": ("intarsia.cli.service", "serve", "Serve models behind an API that every OpenAI client speaks."),
    "mcp": ("intarsia.cli.service", "mcp", "Give tools to another program (Model Context Protocol)."),
    "vllm": ("intarsia.cli.vllm", "vllm", "Write a model for vLLM, and the command that serves it there."),
    "keys": ("intarsia.cli.keys", "keys", "Say who may use a server."),
    "catalog": ("intarsia.cli.listing", "catalog", "List every technique."),
    "models": ("intarsia.cli.listing", "models", "List the models that have a short name."),
    "doctor": ("intarsia.cli.doctor", "doctor", "Say what is installed and what works here."),
}


class Root(Group):
    """The fixed commands, and one group a room of the catalog."""

    def list_commands(self, context: click.Context) -> list[str]:
        from intarsia.cli.techniques import rooms

        return [*COMMANDS, *rooms()]

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name in COMMANDS:
            import importlib

            module, attribute, _ = COMMANDS[name]
            return getattr(importlib.import_module(module), attribute)
        from intarsia.cli.techniques import room, rooms

        if name in rooms():
            return room(name)
        # `adapt plan`: the beginning of a room's name will do where nothing else begins so.
        begun = [known for known in (*COMMANDS, *rooms()) if name and known.startswith(name)]
        return room(begun[0]) if len(begun) == 1 and begun[0] not in COMMANDS else None

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        from intarsia.cli.techniques import room_help, rooms

        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in COMMANDS.items()])
        with formatter.section("Techniques, by room"):
            formatter.write_dl([(name, room_help(name)) for name in rooms()])


@click.group(
    cls=Root,
    example="intarsia run python-docs --dry-run",
    help="What a team does to a pretrained transformer after it was pretrained: adapt, shrink, see inside, serve.",
)
@click.version_option(intarsia.__version__, "--version", message="intarsia %(version)s", help="Show the version.")
def root() -> None:
    pass


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and give the exit code."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    debug = "--debug" in arguments or bool(os.environ.get("INTARSIA_DEBUG"))
    try:
        with notes(quiet="--quiet" in arguments, debug=debug):
            result = root.main(args=arguments, prog_name="intarsia", standalone_mode=False)
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return 0
    except click.Abort as error:
        message = str(error.__cause__ or error.__context__ or "") or "stopped"
        return _say(message, 130)
    except KeyboardInterrupt as error:
        return _say(str(error) or "stopped", 130)
    except click.UsageError as error:
        hint = f" (`{error.ctx.command_path} --help` shows how)" if error.ctx else ""
        return _say(error.format_message() + hint, 2)
    except click.ClickException as error:
        return _say(error.format_message(), 1)
    except BrokenPipeError:
        # The reader (`head`, say) has had enough: nothing is wrong. Python must not try to flush once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except IntarsiaError as error:
        if debug:
            traceback.print_exc()
        return _say(str(error), error.exit_code)
    except Exception as error:
        if debug:
            traceback.print_exc()
            return 1
        return _say(f"{type(error).__name__}: {error} (--debug shows where)", 1)


def _say(message: str, code: int) -> int:
    click.echo("intarsia: " + message, err=True)
    return code


__all__ = ["root", "run", "settings_of"]
