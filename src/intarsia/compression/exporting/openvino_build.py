"""A GGUF file as an OpenVINO graph: `python openvino_build.py GGUF OUT`.

OpenVINO's GenAI package reads the file, its codes as they are, and writes the graph beside it, with a cache of keys and
values inside. A program of its own, which need not import Intarsia."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

GRAPH = "openvino_model.xml"


@contextmanager
def graph(source: Path, near: Path) -> Iterator[Path]:
    """The graph's file, in a folder beside `near` that goes away afterwards."""
    import openvino_genai

    with tempfile.TemporaryDirectory(dir=near.parent) as scratch:
        # The graph is written beside the file it was read from.
        link = Path(scratch) / "model.gguf"
        try:
            os.link(source, link)
        except OSError:  # another disk
            shutil.copy(source, link)
        openvino_genai.LLMPipeline(str(link), "CPU", enable_save_ov_model=True)
        yield Path(scratch) / GRAPH


def main(source: str, out: str) -> None:
    """Read the file, and write graph and weights into the folder `out`."""
    with graph(Path(source), Path(out)) as found:
        for file in (found, found.with_suffix(".bin")):
            shutil.copy(file, out)


if __name__ == "__main__":
    main(*sys.argv[1:])
