"""The command line: `intarsia`, also `python -m intarsia`. Its commands derive from the catalog."""

from __future__ import annotations

from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 all well, 1 a failure, 2 bad input, 3 a budget that was not reached, 130 stopped
    by Ctrl-C."""
    from intarsia.cli.app import run

    raise SystemExit(run(arguments))
