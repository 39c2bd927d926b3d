"""A name of the standard library: its signature and its documentation, as the running interpreter has them."""

from __future__ import annotations

import builtins
import importlib
import inspect
import sys
from typing import Any

from intarsia.errors import BadInput

# Importing these does something: opens a browser, prints, starts a window.
NEVER = frozenset({"antigravity", "this", "idlelib", "turtledemo", "turtle", "__main__", "test", "tkinter"})


def describe(name: str) -> str:
    """`json.loads(s, *, ...)` and its docstring. Only modules of the standard library are imported.

    Raises `BadInput` for a name that is not there."""
    name = name.strip().removesuffix("()")
    found = _found(name)
    try:
        signature = str(inspect.signature(found))
    except (TypeError, ValueError):
        signature = ""
    return f"{name}{signature}\n\n{inspect.getdoc(found) or 'It has no documentation.'}"


def _found(name: str) -> Any:
    parts = name.split(".")
    if not all(part.isidentifier() for part in parts):
        raise BadInput(f"'{name[:60]}' is no name: give one like json.loads")
    if parts[0] in sys.stdlib_module_names and parts[0] not in NEVER:
        for end in range(len(parts), 0, -1):
            try:
                found: Any = importlib.import_module(".".join(parts[:end]))
            except ImportError:
                continue
            for part in parts[end:]:
                found = getattr(found, part, None)
                if found is None:
                    break
            else:
                return found
    found = builtins
    for part in parts:
        found = getattr(found, part, None)
        if found is None or part.startswith("__"):
            raise BadInput(f"no '{name[:60]}' in the standard library: give a name like json.loads")
    return found
