"""Experts on devices: how often tokens cross, how near the optimum, how fast it is found, and what running it moves.

    python -m bench.moe [--quick] [--json FILE] [--parts crossing synthetic solvers training runtime links simulation]

Trained networks and their traces come from the data set 'moe' (INTARSIA_DATA). Figures of `runtime` are counted; wall
times are printed beside them with the number of processes. `links` needs root. --quick: a
quarter of the time for the programmes, one round of running."""

from __future__ import annotations

from bench.common import parser, start, write
from bench.moe import crossing, solvers, synthetic, training
from intarsia.data import shared_data

PARTS = ("crossing", "synthetic", "solvers", "training", "runtime", "links", "simulation")


def main() -> None:
    """Measure and print."""
    arguments = parser(__doc__)
    arguments.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    options = arguments.parse_args()
    start(options)
    folder = shared_data("moe")
    if folder is None:
        raise SystemExit("the data set 'moe' is not there: set INTARSIA_DATA to a folder that has it")
    found: dict[str, float] = {}
    if "crossing" in options.parts:
        found |= crossing.run(folder)
    if "synthetic" in options.parts:
        found |= synthetic.run(quick=options.quick)
    if "solvers" in options.parts:
        found |= solvers.run(folder, quick=options.quick)
    if "training" in options.parts:
        training.run(folder)
    if "runtime" in options.parts:
        from bench.moe import runtime

        found |= runtime.run(folder, quick=options.quick)
    if "links" in options.parts:
        from bench.moe import linked

        linked.run(folder)
    if "simulation" in options.parts:
        from bench.moe import simulated

        simulated.run(quick=options.quick)
    write(found, options.json)


if __name__ == "__main__":
    main()
