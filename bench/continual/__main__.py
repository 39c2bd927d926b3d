"""Ways to take on one task after another, on real streams with SmolLM2-135M; and what a step costs beside plain PEFT.

    python -m bench.continual [--quick] [--json FILE] [--streams mini3 ...] [--methods ...] [--seeds N] [--keep DIR]

Every run is kept in --keep as it goes, with the states of the frozen blocks that all runs share: a benchmark that was
stopped, or killed, goes on when it is started again. A method may be followed by settings: `transfer+warm=false`.
--quick: three tasks, four methods."""

from __future__ import annotations

from pathlib import Path

import intarsia as ia
from bench.common import parser, start, write
from bench.continual import cost, routing, runs

METHODS = ("transfer", "sapt", "snapshot", "oracle", "sequential", "replay", "ewc", "olora", "inclora", "multitask")
QUICK = ("transfer", "sapt", "oracle", "sequential")


def main() -> None:
    """Measure and print."""
    arguments = parser(__doc__)
    arguments.add_argument("--streams", nargs="+", help="default: mini6 and mini6-back")
    arguments.add_argument("--methods", nargs="+", help=f"default: {' '.join(METHODS)}")
    arguments.add_argument("--seeds", type=int, default=1, help="of each")
    arguments.add_argument("--keep", type=Path, default=Path("runs/bench-continual"), help="where runs are kept")
    arguments.add_argument("--no-cost", action="store_true", help="only the streams")
    arguments.add_argument("--only-cost", action="store_true", help="only the cost of a step, and the routing")
    options = arguments.parse_args()
    start(options)
    model = ia.load("smollm2-135m")
    found: dict[str, float] = {}
    streams = options.streams or (("mini3",) if options.quick else ("mini6", "mini6-back"))
    for stream in () if options.only_cost else streams:
        methods = options.methods or (QUICK if options.quick else METHODS)
        findings = runs.runs(model, stream, methods, range(options.seeds), options.keep)
        runs.table(stream, findings)
        if stream == streams[0]:
            found |= runs.figures(findings)
    if not options.no_cost:
        found |= routing.run(model, quick=options.quick)
        found |= cost.run(model, quick=options.quick)
    write(found, options.json)


if __name__ == "__main__":
    main()
