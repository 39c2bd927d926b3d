"""Whose text is it? Detectors on domains, generators and prompts that they were not trained on.

    python -m bench.detection [--quick] [--json FILE] [--parts domains ...] [--only DOMAIN ...] [--fpr 0.01]
                              [--keep DIR]

Data from the set `detect` (INTARSIA_DATA). `--keep`: what is finished and what the language model has read lie there.
--quick: a few texts of each corpus."""

from __future__ import annotations

from pathlib import Path

import intarsia as ia
from bench.common import parser, start, write
from bench.detection import chinese, domains, fairness, published, shifts, speed
from bench.detection.sets import DOMAINS, OTHERS, read_set
from bench.kept import Kept as Finished
from intarsia.data import shared_data
from intarsia.detection.statistics import Kept

PARTS = ("domains", "published", "shifts", "fairness", "chinese", "speed")
MODEL = "smollm2-135m"


def main() -> None:
    """Measure and print."""
    arguments = parser(__doc__)
    arguments.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    arguments.add_argument("--only", nargs="+", metavar="DOMAIN", help="judge only these domains")
    arguments.add_argument("--fpr", type=float, default=0.01, help="false-positive budget")
    arguments.add_argument("--keep", type=Path, metavar="DIR")
    options = arguments.parse_args()
    start(options)
    folder = shared_data("detect")
    if folder is None:
        raise SystemExit("the data set detect is not there (INTARSIA_DATA)")
    kept = Kept(ia.load(MODEL), path=options.keep and options.keep / "statistics.sqlite")
    finished = Finished(options.keep, "detect", options.quick)
    sets = {name: read_set(folder, name, quick=options.quick) for name in (*DOMAINS, *OTHERS)}
    found: dict[str, float] = {}
    if "domains" in options.parts:
        found |= domains.run(sets, kept, finished, options.fpr, options.only)
    if "published" in options.parts:
        published.run(folder, sets, finished)
    if "shifts" in options.parts:
        found |= shifts.run(folder, sets["arxiv"], kept, finished, options.fpr, quick=options.quick)
    if "fairness" in options.parts:
        found |= fairness.run(sets, kept, finished, options.fpr)
    if "chinese" in options.parts:
        chinese.run(folder, kept, finished, options.fpr, quick=options.quick)
    if "speed" in options.parts:
        speed.run(sets, kept, options.fpr, quick=options.quick)
    write(found, options.json)


if __name__ == "__main__":
    main()
