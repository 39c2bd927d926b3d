"""What reaches stderr beside progress and errors: Intarsia's own notes, one line each; other libraries' chatter not."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from intarsia.errors import Note


@contextmanager
def notes(*, quiet: bool = False, debug: bool = False) -> Iterator[None]:
    """Inside the block a `Note` is said once, as one line on stderr, and warnings of other libraries stay unsaid.

    `quiet` leaves out the notes too; `debug` lets every warning through. A person's own filters (`python -W`,
    `PYTHONWARNINGS`) are left to Python."""
    if sys.warnoptions:
        yield
        return
    if not debug:
        # Read by transformers when it is imported; its warnings do not come as Python's.
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    said: set[str] = set()
    with warnings.catch_warnings():
        as_python_does = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
            text = " ".join(str(message).split())
            if issubclass(category, Note):
                if not quiet and text not in said:
                    said.add(text)
                    click.echo(f"intarsia: note: {text}", err=True)
            elif debug:
                as_python_does(message, category, *where, **more)

        warnings.filterwarnings("always", category=Note)
        # Not only a filter: a library may set filters of its own while it is imported.
        warnings.showwarning = show
        yield
