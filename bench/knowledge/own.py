"""A process in which the same epochs run here: the twin of `official`, with `lkge-code`.

python -m bench.knowledge.own DATA [--epochs N] [--threads N]"""

from __future__ import annotations

import argparse
import dataclasses
import json
import resource
import time
from pathlib import Path

import torch

from intarsia.data import read_snapshots
from intarsia.knowledge.graph.growing import GrowingGraph
from intarsia.knowledge.learning.learner import Learner
from intarsia.knowledge.methods import method_called


def main() -> None:
    """Run the epochs, and print what they took."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("data", type=Path, help="folder that holds the folder ENTITY")
    arguments.add_argument("--epochs", type=int, default=1)
    arguments.add_argument("--snapshots", type=int, default=2)
    arguments.add_argument("--threads", type=int, default=1)
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    graph = GrowingGraph.of(read_snapshots(options.data / "ENTITY"))
    graph = dataclasses.replace(graph, snapshots=graph.snapshots[: options.snapshots])
    method = method_called("lkge-code")
    warm(graph)
    learner = Learner(graph, method, method.defaults().with_(epochs=options.epochs), seed=11)
    told = []
    for i in range(options.snapshots):
        result = learner.take()
        each = (result.cpu_seconds - result.validating_cpu, result.validating_cpu)
        row = {"snapshot": i, "train": each[0] / result.epochs, "valid": each[1] / result.epochs}
        told.append({**row, "mrr": result.tests[i]["official"].mrr})
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"epochs": told, "peak_mb": peak, "at": time.time()}))


def warm(graph: GrowingGraph) -> None:
    """Load the compiled kernels."""
    few = [dataclasses.replace(s, train=s.train[:64], valid=s.valid[:8], test=s.test[:8]) for s in graph.snapshots[:1]]
    method = method_called("lkge-code")
    Learner(dataclasses.replace(graph, snapshots=tuple(few)), method, method.defaults().with_(epochs=1)).take()


if __name__ == "__main__":
    main()
