"""Ways to learn growing graphs, on the four benchmark graphs and WORLD; and LKGE's epochs against its released code.

    python -m bench.knowledge [--quick] [--json FILE] [--data ENTITY RELATION FACT HYBRID WORLD] [--keep DIR]
                              [--peer official=CHECKOUT]

Each table stands three times: among the candidates of a test's time with the correct filter, among all candidates, and
with the filter of LKGE's released code, beside the published figures. Every run is kept in --keep as it goes: a
benchmark that was stopped, or killed, goes on when it is started again. Methods are named as in `knowledge.compare`;
A@B is A with the settings of B. --quick: WORLD only, one seed of each: two minutes. --peer official=: a checkout of
LKGE's released code, whose epochs are timed beside ours (ten minutes)."""

from __future__ import annotations

from pathlib import Path

from bench.common import parser, start, write
from bench.knowledge import graphs, speed

LARGE = ("ENTITY", "RELATION", "FACT", "HYBRID")
MAIN = ("distil", "lkge", "finetune", "retrain@distil")
OTHERS = ("lkge-code", "incde", "fastkge", "retrain", "snapshot", "mean", "pnn", "cwr", "si", "ewc", "emr", "gem")


def main() -> None:
    """Measure and print."""
    arguments = parser(__doc__)
    arguments.add_argument("--data", nargs="+", choices=(*LARGE, "WORLD"), help="only these")
    arguments.add_argument("--methods", nargs="+", help=f"default: {' '.join(MAIN)}; on ENTITY and WORLD all")
    arguments.add_argument("--seeds", type=int, help="of each main method (default: 3 on ENTITY and WORLD, else 1)")
    arguments.add_argument("--keep", type=Path, default=Path("runs/bench-knowledge"), help="where runs are kept")
    arguments.add_argument("--epochs", type=int, default=1, help="of the released code, a snapshot")
    arguments.add_argument("--only-speed", action="store_true", help="no graphs, only the released code's epochs")
    options = arguments.parse_args()
    start(options)
    found: dict[str, float] = {}
    for data in () if options.only_speed else options.data or (("WORLD",) if options.quick else (*LARGE, "WORLD")):
        wide = data in ("ENTITY", "WORLD")
        seeds = options.seeds or (3 if wide and not options.quick else 1)
        runs = graphs.courses(data, options.methods or MAIN, range(seeds), options.keep)
        if wide and not options.methods:
            others = (*OTHERS, "lan") if data == "WORLD" else OTHERS
            runs += graphs.courses(data, others, range(1), options.keep)
        graphs.tables(data, runs)
        if data == "ENTITY":
            found |= graphs.figures(runs)
    for name, checkout in options.peer:
        if name == "official":
            found |= speed.run(checkout, options.epochs, 4, options.threads)
    write(found, options.json)


if __name__ == "__main__":
    main()
