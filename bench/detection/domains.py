"""Every domain judged by a detector that was trained on the other domains alone, among a bank of its own people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from bench.common import show
from bench.detection.sets import Set, kinds_of
from bench.kept import Kept as Finished
from intarsia.detection.combining import Weights
from intarsia.detection.detector import VOICES, Detector
from intarsia.detection.evaluating.protocol import Measured, Split, by_threshold, measure_judged
from intarsia.detection.evaluating.run import judge_with
from intarsia.detection.learning import Corpus, learn
from intarsia.detection.methods import Engines, find_method
from intarsia.detection.peers.stylometry import Stylometry
from intarsia.detection.statistics import Kept

PEERS = ("loglik", "logrank", "lrr", "neg_entropy", "neg_var", "curvature", "binoculars")
ALONE = ("words", "states", "polished words", "polished states")


def run(
    sets: dict[str, Set], kept: Kept, finished: Finished, rate: float, only: Sequence[str] | None
) -> dict[str, float]:
    """All domains; figures for `--json`."""
    corpora = {name: one.corpus() for name, one in sets.items() if one.learned}
    found: dict[str, list[Measured]] = {}
    for name, one in sets.items():
        if not one.machine or not one.people or (only and name not in only):
            continue
        made = finished(f"domain {name}", partial(_one, one, corpora, kept, rate))
        found[name] = [Measured(**row) for row in made["rows"]]
    _tables(found, rate)
    return _figures(found, rate)


def _one(one: Set, corpora: dict[str, Corpus], kept: Kept, rate: float) -> dict:
    detector = learn([c for name, c in corpora.items() if name != one.name], kept)
    detector.hold(kept)
    split = Split(one.name, one.bank, one.people, one.machine)
    kinds = dict(zip(map(id, one.machine), kinds_of(one.machine), strict=True))
    scorers = {"default": partial(judge_with, detector)}
    scorers |= {voice: partial(judge_with, alone(detector, voice)) for voice in ALONE}
    engines = Engines(kept=kept)
    for name in PEERS:
        method = find_method(name)
        scorers[name] = by_threshold(lambda documents, method=method: method(documents, engines))
    style = stylometry([c for name, c in corpora.items() if name != one.name])
    scorers["stylometry"] = by_threshold(lambda documents: style.scores([d.text for d in documents]))
    rows = []
    documents, said = [*one.people, *one.machine], {}
    for name, scorer in scorers.items():
        scores, p = scorer(one.bank, documents)
        if name == "default":
            said = {d.name: float(score) for d, score in zip(documents, scores, strict=True)}
        rows += [row.model_dump() for row in measure_judged(name, split, scores, p, rate, kinds=lambda d: kinds[id(d)])]
    weights = {"short": detector.weights.short.tolist(), "long": detector.weights.long.tolist()}
    return {"rows": rows, "weights": weights, "facts": detector.facts, "scores": said}


def stylometry(corpora: Sequence[Corpus]) -> Stylometry:
    """Learned from all texts of some domains."""
    texts = [text for c in corpora for text in c.texts]
    kinds = np.concatenate([c.machine for c in corpora])
    return Stylometry.fit(texts, kinds, [c.domain for c in corpora for _ in c.texts])


def alone(detector: Detector, voice: str) -> Detector:
    """The detector with one voice."""
    one = (np.array(VOICES) == voice).astype(float)
    return replace(detector, weights=Weights(VOICES, one, one), _kept=detector.kept)


def _tables(found: dict[str, list[Measured]], rate: float) -> None:
    names = list(dict.fromkeys(row.detector for rows in found.values() for row in rows))
    rows = []
    for domain, some in found.items():
        mine = {row.detector: row for row in some if row.kind == "all"}
        first = mine["default"]
        rows.append([
            domain, f"{first.people} / {first.machine}", str(first.bank),
            *(f"{mine[n].auroc[0]:.3f}" for n in names),
        ])  # fmt: skip
    show("AUROC on domains that were not trained on", ["domain", "people / machine", "bank", *names], rows)
    rows = []
    for domain, some in found.items():
        for row in (r for r in some if r.detector == "default"):
            rows.append([
                domain, row.kind, f"{row.auroc[0]:.3f}", f"{row.auroc[1]:.3f} to {row.auroc[2]:.3f}",
                f"{row.found[0]:.0%}", f"{row.false[0]:.1%}", f"{row.false[1]:.1%} to {row.false[2]:.1%}",
            ])  # fmt: skip
    columns = ["domain", "machine's texts", "AUROC", "95 %", f"found at {rate:.0%}", "people flagged", "95 %"]
    show("The default, by kind of machine's text", columns, rows)


def _figures(found: dict[str, list[Measured]], rate: float) -> dict[str, float]:
    out: dict[str, float] = {}

    def best(domain: str, kind: str) -> None:
        rows = [r for r in found.get(domain, []) if r.kind == kind]
        if not rows:
            return
        key = f"auroc_{domain}" + ("" if kind == "all" else "_polish")
        out[f"{key}_default"] = next(r.auroc[0] for r in rows if r.detector == "default")
        out[f"{key}_best_other"] = max(r.auroc[0] for r in rows if r.detector != "default")

    best("arxiv", "all")
    best("arxiv", "gpt-3.5-turbo polished")
    best("essay", "all")
    excess = [r.false[0] - rate for rows in found.values() for r in rows if r.detector == "default" and r.kind == "all"]
    if excess:
        out["fpr_excess_max"] = max(excess)
    return out
