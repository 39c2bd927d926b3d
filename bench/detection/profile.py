"""Make the detector that comes along.

    python -m bench.detection.profile --keep DIR [--to src/intarsia/detection/profiles/english]

From the corpora of the set `detect` whose licences (MIT, Apache-2.0) allow it; no text of them is in it."""

from __future__ import annotations

import argparse
from pathlib import Path

import intarsia as ia
from bench.detection.sets import read_set
from intarsia.data import shared_data
from intarsia.detection.learning import learn
from intarsia.detection.statistics import Kept

NAMES = {
    "essay": "school essays",
    "cs224n": "student report abstracts",
    "toefl": "TOEFL essays",
    "hewlett": "grade 8 essays",
    "college": "admission essays",
    "nature": "journal abstracts",
    "fdg_pubmed": "biomedical answers",
    "fdg_xsum": "news",
    "fdg_writing": "stories",
}
"""Corpora, and what their banks are called."""


def main() -> None:
    """Train and save."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--keep", type=Path, required=True)
    options.add_argument("--to", type=Path, default=Path("src/intarsia/detection/profiles/english"))
    given = options.parse_args()
    folder = shared_data("detect")
    if folder is None:
        raise SystemExit("the data set detect is not there (INTARSIA_DATA)")
    kept = Kept(ia.load("smollm2-135m"), path=given.keep / "statistics.sqlite")
    corpora = [read_set(folder, name).corpus() for name in NAMES]
    for corpus in corpora:
        corpus.domain = NAMES[corpus.domain]
    detector = learn(corpora, kept)
    detector.hold(kept)
    print(detector.facts)
    print(detector.save(given.to, force=True))


if __name__ == "__main__":
    main()
