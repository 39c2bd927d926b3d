"""Settings for all tests."""

import os

# Tiny networks: a second thread costs more than it gives, and several test processes would fight over the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _threads(request):
    """Tests of real models get the cores there are."""
    if request.node.get_closest_marker("real") is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(os.cpu_count() or 1)
    yield
    torch.set_num_threads(before)
