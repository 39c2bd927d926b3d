"""Train the test bed's models, or go on training, and print how good they are."""

from __future__ import annotations

import argparse
import time

from bench.common import show
from bench.tokens import bed


def main(arguments: list[str] | None = None) -> None:
    """Train what is not trained yet; a table of what was asked for."""
    parser = argparse.ArgumentParser(description=bed.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", default="all", choices=(*bed.KINDS, "all"), help="which model (default: all)")
    parser.add_argument("--threads", type=int, default=1, help="torch threads (default: 1)")
    options = parser.parse_args(arguments)
    import torch

    torch.set_num_threads(options.threads)
    rows = []
    for kind in bed.KINDS if options.train == "all" else (options.train,):
        made = bed.load(kind, lambda text: print(text, flush=True))
        for split in ("test", "unseen"):
            begin = time.perf_counter()
            found = made.evaluate(made.model.network, split)
            spent = time.perf_counter() - begin
            more = ", ".join(
                f"{name.removeprefix('accuracy_')} {value:.2f}"
                for name, value in found.items()
                if isinstance(value, float) and name not in ("accuracy", "standard_error")
            )
            share = f"{found['accuracy']:.3f} ± {found['standard_error']:.3f}"
            rows.append([f"{kind}, {split}", share, f"{made.blind(split):.3f}", more, f"{spent:.1f}"])
            print(" | ".join(rows[-1]), flush=True)
    show("Dense models", ("", "accuracy", "blind", "more", "seconds"), rows)


if __name__ == "__main__":
    main()
