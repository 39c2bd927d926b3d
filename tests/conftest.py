"""Settings for all tests: one process a core, one thread a process.

The networks are tiny, so a second thread costs more than it gives; and several processes with several threads each
spin against one another."""

import gc
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

torch.set_num_threads(1)


def pytest_collection_modifyitems(items):
    """Tests of real models run in one process, so that each model is loaded once and memory stays small."""
    for item in items:
        if item.get_closest_marker("real"):
            item.add_marker(pytest.mark.xdist_group("real"))


def pytest_collection_finish():
    """What is imported and collected stays to the end, a million objects: looking through them is most of what
    `gc.collect()` takes, which every step of a recipe calls."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def cli(capsys):
    """A command line, run in this process: gives (exit code, stdout, stderr)."""
    from intarsia.cli import app

    def call(*arguments) -> tuple[int, str, str]:
        code = app.run([str(a) for a in arguments])
        out, errors = capsys.readouterr()
        return code, out, errors

    return call
