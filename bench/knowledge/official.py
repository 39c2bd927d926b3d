"""A process in which LKGE's released code runs as it is, on a CPU: CPU seconds of its epochs, and the peak memory.

    python -m bench.knowledge.official CHECKOUT DATA [--epochs N] [--threads N]

Nothing of the code is changed. What it needs of the machine is put in its place before it is imported: torch_scatter's
two sums by torch's own scatter, tables for its log, `.cuda()` as identity, and masks as booleans where today's torch
refuses bytes. Tests between snapshots are left out: only epochs are timed. Prints one JSON object."""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
import time
import types
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def prepare() -> None:
    """Stand-ins for what is not installed, and for a graphics card."""

    def spread(index: Tensor, src: Tensor) -> Tensor:
        return index.view(-1, *[1] * (src.dim() - 1)).expand_as(src)

    def scatter_add(src: Tensor, index: Tensor, dim: int = -1, dim_size: int | None = None) -> Tensor:
        size = list(src.shape)
        size[0] = dim_size if dim_size is not None else int(index.max()) + 1
        return torch.zeros(size, dtype=src.dtype, device=src.device).scatter_add_(0, spread(index, src), src)

    def scatter_mean(src: Tensor, index: Tensor, dim: int = -1, dim_size: int | None = None) -> Tensor:
        total = scatter_add(src, index, 0, dim_size)
        count = scatter_add(torch.ones_like(index, dtype=src.dtype), index, 0, dim_size).clamp_(min=1)
        return total / count.view(-1, *[1] * (total.dim() - 1))

    scatter: Any = types.ModuleType("torch_scatter")
    scatter.scatter_add, scatter.scatter_mean, scatter.scatter_max = scatter_add, scatter_mean, None
    sys.modules["torch_scatter"] = scatter

    class PrettyTable:
        def add_row(self, row: list[Any]) -> None:
            pass

    pretty: Any = types.ModuleType("prettytable")
    pretty.PrettyTable = PrettyTable
    sys.modules["prettytable"] = pretty
    sys.modules["quadprog"] = types.ModuleType("quadprog")  # of GEM, which is not run
    torch.cuda.set_device = lambda device: None  # type: ignore[assignment]
    load = torch.load
    torch.load = lambda file, map_location=None, **given: load(file, map_location="cpu", **given)
    Tensor.cuda = lambda self, *a, **k: self  # type: ignore[method-assign]
    Tensor.byte = Tensor.bool  # type: ignore[method-assign]


def cpu_seconds() -> float:
    """Of this process and of its finished children (the loader's workers)."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def main() -> None:
    """Run the epochs, and print what they took."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("checkout", type=Path)
    arguments.add_argument("data", type=Path, help="folder that holds the folder ENTITY")
    arguments.add_argument("--epochs", type=int, default=1)
    arguments.add_argument("--snapshots", type=int, default=2)
    arguments.add_argument("--threads", type=int, default=1)
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    prepare()
    data = f"{options.data.resolve()}/"
    sys.path.insert(0, str(options.checkout.resolve()))
    sys.argv = ["main.py", "-dataset", "ENTITY", "-lifelong_name", "LKGE", "-data_path", data]
    sys.argv += ["-snapshot_num", str(options.snapshots), "-epoch_num", str(options.epochs), "-seed", "11"]
    told: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        import main as official  # type: ignore[import-not-found]
        from src.train import Trainer  # type: ignore[import-not-found]

        def run_epoch(trainer: Any) -> Any:
            trainer.args.valid = True
            begun = cpu_seconds()
            loss = trainer.train_processor.process_epoch(trainer.model, trainer.optimizer)
            trained = cpu_seconds()
            found = trainer.valid_processor.process_epoch(trainer.model)
            trainer.args.valid = False
            row = {"snapshot": trainer.args.snapshot, "train": trained - begun, "valid": cpu_seconds() - trained}
            told.append({**row, "loss": float(loss), "mrr": float(found["mrr"])})
            print(told[-1], file=sys.stderr, flush=True)
            return loss, found

        Trainer.run_epoch = run_epoch
        nothing = dict.fromkeys(("mrr", "hits1", "hits3", "hits5", "hits10"), 0.0)
        official.experiment.test = lambda self: nothing
        official.same_seeds(11)
        from src.parse_args import args  # type: ignore[import-not-found]

        args.snapshot_num = options.snapshots  # which it compares with numbers
        official.config(args)
        official.experiment(args).continual_learning()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"epochs": told, "peak_mb": peak}))


if __name__ == "__main__":
    main()
