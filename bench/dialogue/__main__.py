"""Labels of dialogue turns on MELD and EmoryNLP: who is how good within the same CPU time.

    python -m bench.dialogue [--quick] [--json FILE] [--data meld emorynlp python-docs]
                             [--parts contenders ablations speed ladder] [--only NAME ...] [--cpu-minutes 50]
                             [--keep DIR]

Data from the sets dialogue/meld and dialogue/emorynlp (INTARSIA_DATA); the ladder also climbs on Python's docstrings.
Every contender is fitted on train, chosen on dev, and judged on test once. `--cpu-minutes`: what a tuned contender may
use in all (50: 25 minutes of two cores). `--keep`: what is finished lies there and is not run again. --quick: a tenth
of train, the test subset M300."""

from __future__ import annotations

from pathlib import Path

from bench.common import parser, start, write
from bench.dialogue import ablations, contenders, ladder, speed
from bench.kept import Kept
from intarsia.data import load_data, shared_data

DATA = ("meld", "emorynlp", "python-docs")
PARTS = ("contenders", "ablations", "speed", "ladder")


def main() -> None:
    """Measure and print."""
    arguments = parser(__doc__)
    arguments.add_argument("--data", nargs="+", choices=DATA, default=DATA)
    arguments.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    arguments.add_argument("--only", nargs="+", metavar="NAME", help="only these contenders, ablations or rungs")
    arguments.add_argument("--cpu-minutes", type=float, default=50.0)
    arguments.add_argument("--keep", type=Path, metavar="DIR")
    options = arguments.parse_args()
    start(options)
    found: dict[str, float] = {}
    for name in options.data:
        if name == "python-docs":
            if "ladder" in options.parts:
                ladder.run(name, load_data(name), options.keep, options.only, quick=options.quick)
            continue
        folder = shared_data(f"dialogue/{name}")
        if folder is None:
            print(f"left out: the data set dialogue/{name} is not there (INTARSIA_DATA)")
            continue
        data, kept = load_data(folder), Kept(options.keep, name, options.quick)
        if "contenders" in options.parts:
            found |= contenders.run(name, data, kept, options.cpu_minutes, options.only, quick=options.quick)
        if "ablations" in options.parts and name == "meld":
            ablations.run(name, data, kept, options.only, quick=options.quick)
        if "speed" in options.parts and name == "meld":
            found |= speed.run(data, quick=options.quick)
        if "ladder" in options.parts and name == "meld":
            ladder.run(name, data, options.keep, options.only, quick=options.quick)
    write(found, options.json)


if __name__ == "__main__":
    main()
