"""Where a graph lies, and where its facts come from, by what a person gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from intarsia.data import FactSnapshot

FILE = "graph.sqlite"
RUNS = Path("runs")


def _python() -> list[FactSnapshot]:
    from intarsia.data.python_graph import python_graph

    return python_graph()


KNOWN: dict[str, Callable[[], list[FactSnapshot]]] = {"python": _python}
"""Growing graphs that need no file, by name."""


def place_of(source: str | Path) -> tuple[Path, str | Path | None]:
    """(the folder of the graph, what its facts are read from or None).

    - a folder with a graph in it: that one;
    - a known name (`python`), or a file, archive or folder of facts: a graph of that name under `runs`;
    - anything else: a folder that is still to be made."""
    path = Path(source).expanduser()
    if (path / FILE).is_file():
        return path, None
    if str(source) in KNOWN:
        return RUNS / str(source), str(source)
    if path.is_file() or (path.is_dir() and any(path.iterdir())):
        from intarsia.data.files import split_name

        name = split_name(path.name)[0] if path.is_file() else path.resolve().name
        return RUNS / name.removesuffix(".tar"), path
    return path, None
