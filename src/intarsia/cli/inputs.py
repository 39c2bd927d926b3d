"""What a command is given as JSON: a file, or standard input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from intarsia.errors import BadInput, first_line


def json_of(file: str) -> Any:
    """What a file of JSON holds; `-`: standard input. Raises `BadInput` where it cannot be read."""
    try:
        text = click.get_text_stream("stdin").read() if file == "-" else Path(file).expanduser().read_text("utf-8")
        return json.loads(text)
    except OSError as error:
        raise BadInput(f"{file}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise BadInput(f"{file}: is no JSON ({first_line(error)})") from None


def inputs_of(file: str | None) -> dict[str, Any]:
    """Inputs by name, out of such a file; none without one."""
    found = {} if file is None else json_of(file)
    if not isinstance(found, dict):
        raise BadInput(f"{file}: must hold one JSON object, an input a key; is {type(found).__name__}")
    return found


def named(option: str, pair: str) -> tuple[str, str]:
    """The name and the text of one NAME=VALUE."""
    name, equals, text = pair.partition("=")
    if not equals or not name:
        raise BadInput(f"--{option} {pair}: give NAME=VALUE")
    return name, text
