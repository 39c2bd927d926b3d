"""Beside the scores that ten published detectors gave to the same documents, as their authors' code computed them."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import numpy as np

from bench.common import show
from bench.detection.sets import Set, clean_set
from bench.kept import Kept as Finished
from intarsia.detection.evaluating.protocol import auroc_interval

FLIPPED = ("entropy_neo",)  # given without the change of sign that makes a machine's higher


def run(folder: Path, sets: dict[str, Set], finished: Finished) -> None:
    """On the documents that were judged as domains of their own (`--parts domains` first)."""
    official: dict[tuple[str, str, str], dict[str, tuple[float, float]]] = {}
    with gzip.open(folder / "peer_scores.csv.gz", "rt") as file:
        for row in csv.DictReader(file):
            sign = -1 if row["method"] in FLIPPED else 1
            pair = sign * float(row["score_human"]), sign * float(row["score_machine"])
            official.setdefault((row["corpus"], row["generator"], row["method"]), {})[row["index"]] = pair
    methods = list(dict.fromkeys(method for *_, method in official))
    rows = []
    for name in ("fdg_pubmed", "fdg_xsum", "fdg_writing"):
        mine = finished(f"domain {name}", dict).get("scores", {})
        if not mine:
            print(f"left out: {name} was not judged yet (--parts domains)")
            continue
        one, stands = sets[name], _places(folder, name)
        for generator in dict.fromkeys(d.generator for d in one.machine):
            people = [(d, stands[d.text][generator]) for d in one.people if generator in stands[d.text]]
            machine = [(d, _index(d.group)) for d in one.machine if d.generator == generator]
            topics = [f"{generator}-{i}" for _, i in people], [f"{generator}-{i}" for _, i in machine]

            def figure(human, made, topics=topics):
                whole, low, high = auroc_interval(np.array(human), np.array(made), *topics)
                return f"{whole:.3f} ({low:.2f} to {high:.2f})"

            ours = figure([_low(mine[d.name]) for d, _ in people], [_low(mine[d.name]) for d, _ in machine])
            theirs = []
            for method in methods:
                known = official[name, generator, method]
                theirs.append(figure([known[i][0] for _, i in people], [known[i][1] for _, i in machine]))
            rows.append([name, generator, f"{len(people)} / {len(machine)}", ours, *theirs])
    show("AUROC on the same documents", ["set", "generator", "people / machine", "default", *methods], rows)


def _low(score: float) -> float:
    return -1e9 if np.isnan(score) else score


def _index(group: str | None) -> str:
    return (group or "").rpartition("-")[2]


def _places(folder: Path, name: str) -> dict[str, dict[str, str]]:
    """Person's text -> generator -> number of the pair it stands in."""
    out: dict[str, dict[str, str]] = {}
    for d in clean_set(folder, name):
        if d.label == "human":
            generator = (d.group or "").rpartition("/")[2].rpartition("-")[0]
            out.setdefault(d.text, {})[generator] = _index(d.group)
    return out
