"""Run the parts that were asked for, print their tables, write one flat JSON object."""

from __future__ import annotations

import argparse
import importlib
import time
from typing import Any

import bench.patchscopes
from bench.common import parser, show, start, write

PARTS = {"speed": "speed", "lenses": "lenses", "contamination": "tasks", "attributes": "tasks", "multihop": "tasks"}


def parts(text: str) -> list[str]:
    """The parts named in a comma-separated list, in the order in which they run."""
    wanted = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in wanted if name not in PARTS]
    if unknown or not wanted:
        raise argparse.ArgumentTypeError(f"'{text}': give some of {', '.join(PARTS)}")
    return [name for name in PARTS if name in wanted]


def run_part(name: str, options: argparse.Namespace) -> tuple[bench.patchscopes.Figures, list[Any]]:
    """Figures and tables of one part."""
    module = importlib.import_module(f"bench.patchscopes.{PARTS[name]}")
    return getattr(module, f"run_{name}")(options)


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, write."""
    options = parser(bench.patchscopes.__doc__)
    options.add_argument("--only", type=parts, default=list(PARTS), metavar="PARTS", help=f"some of {','.join(PARTS)}")
    chosen = options.parse_args(arguments)
    start(chosen)
    figures: dict[str, float] = {}
    for name in chosen.only:
        begin = time.perf_counter()
        more, tables = run_part(name, chosen)
        if twice := sorted(set(more) & set(figures)):
            raise TypeError(f"part '{name}' gives figures that another part gives too: {', '.join(twice)}")
        figures |= more
        for title, columns, rows in tables:
            show(title, columns, rows)
        print(f"{name}: {time.perf_counter() - begin:.0f} s")
    write(figures, chosen.json)


if __name__ == "__main__":
    main()
