"""A language that the shipped detector does not know: that it refuses, and what one trained on it does. People's
abstracts and what GPT-3.5 made of each."""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np

from bench.common import show
from bench.detection.domains import alone
from bench.detection.sets import clean_set, drawn_by
from bench.kept import Kept as Finished
from intarsia.detection import Detector
from intarsia.detection.checking.checker import Checker
from intarsia.detection.evaluating.protocol import Measured, Split, measure
from intarsia.detection.evaluating.run import judge_with
from intarsia.detection.learning import Corpus, learn
from intarsia.detection.statistics import Kept
from intarsia.detection.topics import drawn, topics_of

SET = "csl_zh"


def run(folder: Path, kept: Kept, finished: Finished, rate: float, *, quick: bool) -> None:
    """Refusals, and a detector of its own on topics that it did not see."""
    documents = sorted(clean_set(folder, SET), key=lambda d: drawn_by(d.name))[: 260 if quick else None]
    english = Checker(Detector.open("english"), None, rate, passages=0)
    said = Counter(c.verdict for c in english(documents))
    show("The English detector on Chinese abstracts", ["verdict", "texts"], [[v, str(n)] for v, n in said.items()])
    made = finished("chinese", lambda: {"rows": [row.model_dump() for row in _own(documents, kept, rate)]})
    rows = [Measured(**row) for row in made["rows"]]
    show(
        f"Trained on Chinese abstracts, other topics judged ({rows[0].people} people, {rows[0].machine} polished)",
        ["detector", "AUROC", "95 %", f"found at {rate:.0%}", "people flagged"],
        [[r.detector, f"{r.auroc[0]:.3f}", f"{r.auroc[1]:.3f} to {r.auroc[2]:.3f}", f"{r.found[0]:.0%}",
          f"{r.false[0]:.1%}"] for r in rows],
    )  # fmt: skip


def _own(documents: list, kept: Kept, rate: float) -> list[Measured]:
    topics = topics_of(documents)
    learned = ~np.array(drawn(topics, 0.6))
    rest = [i for i in range(len(documents)) if not learned[i]]
    banked = {i for i, yes in zip(rest, drawn([topics[i] for i in rest], 0.6, 1), strict=True) if yes}
    bank = [documents[i] for i in rest if i in banked and documents[i].label == "human"]
    judged = [documents[i] for i in rest if i not in banked]
    mine = [d for d, yes in zip(documents, learned, strict=True) if yes]
    corpus = Corpus(
        SET, [d.text for d in mine], np.array([d.label != "human" for d in mine]),
        np.array(drawn(topics_of(mine), 0.5, 2)), "zh", topics_of(mine),
    )  # fmt: skip
    detector = learn([corpus], kept)
    detector.hold(kept)
    people, machine = ([d for d in judged if (d.label == "human") == human] for human in (True, False))
    split = Split(SET, bank, people, machine)
    scorers = {"default": detector, **{voice: alone(detector, voice) for voice in ("words", "states", "loglik")}}
    return [row for name, one in scorers.items() for row in measure(name, split, partial(judge_with, one), rate)]
