"""The work of `detection.evaluate`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from intarsia.data import Document
from intarsia.detection.calibration import conformal
from intarsia.detection.calibration.banks import FEWEST
from intarsia.detection.checking.checker import bank_of
from intarsia.detection.detector import Detector
from intarsia.detection.evaluating.finding import Evaluated, GroupFlagged
from intarsia.detection.evaluating.protocol import Scorer, Split, by_threshold, measure_judged, split_by_domain
from intarsia.detection.methods import Engines, Method, find_method
from intarsia.detection.normalising import normalise
from intarsia.detection.statistics import Kept
from intarsia.detection.voices.cuts import LEAST, length_of
from intarsia.errors import BadInput
from intarsia.measure.provenance import provenance

if TYPE_CHECKING:
    from intarsia.detection.documents import Documents
    from intarsia.detection.evaluate import EvaluateConfig


def look(documents: Documents, config: EvaluateConfig, seed: int) -> Evaluated:
    """Everything of `detection.evaluate`."""
    records = [replace(d, text=normalise(d.text).text) for d in documents.records]
    kinds = {d.label for d in records}
    if "human" not in kinds or not kinds & {"machine", "polished", "mixed"}:
        given = ", ".join(sorted(kinds - {""})) or "no labels"
        raise BadInput(f"an evaluation wants texts of people and of machines; given: {given}")
    methods = {name: find_method(name) for name in config.methods}
    detectors = {name: Detector.open(name) for name in config.detectors}
    engines = _engines(config, seed) if methods else Engines()
    scorers: dict[str, Scorer] = {name: partial(judge_with, detector) for name, detector in detectors.items()}
    scorers |= {name: by_threshold(_scoring(method, engines)) for name, method in methods.items()}
    splits = [s for s in split_by_domain(records, seed) if s.people and s.machine and s.bank]
    if not splits:
        raise BadInput("no domain has texts of machines, and people's for a bank and beside it; give more texts")
    rows, groups = [], []
    for name, scorer in scorers.items():
        for split in splits:
            scores, p = scorer(split.bank, split.judged)
            rows += measure_judged(name, split, scores, p, config.fpr, kinds=kind_of)
            groups += group_rates(name, split, p[: len(split.people)], config.fpr)
    judged = sum(len(s.judged) for s in splits)
    return Evaluated(
        title=f"Detectors on {documents.source}", rows=rows, groups=groups, rate=config.fpr,
        summary=f"{len(scorers)} detectors, {len(splits)} domains, {judged:,} texts judged.",
        technique="detection.evaluate", provenance=provenance(seed=seed, settings=config.model_dump(mode="json")),
    )  # fmt: skip


def kind_of(document: Document) -> str:
    """Generator and kind of prompt, in short."""
    prompt = document.prompt.partition(":")[0]
    return " ".join(word for word in (document.generator, prompt) if word) or document.label


def judge_with(
    detector: Detector, bank: Sequence[Document], documents: Sequence[Document]
) -> tuple[np.ndarray, np.ndarray]:
    """Scores and p-values [document] of a detector that has this bank alone; NaN and 1 for texts that are too short."""
    made = bank_of(detector, bank, "bank", "en")
    scores, p = np.full(len(documents), np.nan), np.ones(len(documents))
    rows = [i for i, d in enumerate(documents) if length_of(d.text) >= LEAST]
    if rows and made.texts >= FEWEST:
        judged = detector.judge(made, [documents[i].text for i in rows])
        scores[rows], p[rows] = judged.score, judged.p
    return scores, p


def group_rates(name: str, split: Split, p: np.ndarray, rate: float) -> list[GroupFlagged]:
    """Of each group of writers among those judged, how many are flagged, by the p-values of people's texts [text]; none
    where there is but one group."""
    groups = [d.writers or "others" for d in split.people]
    if len(set(groups)) < 2 and groups[0] == "others":
        return []
    of = np.array(groups)
    return [
        GroupFlagged(
            detector=name, domain=split.domain, group=group, texts=int((of == group).sum()),
            rate=conformal.rate_interval(int((p[of == group] <= rate).sum()), int((of == group).sum())),
        )
        for group in dict.fromkeys(groups)
    ]  # fmt: skip


def _scoring(method: Method, engines: Engines):
    return lambda documents: method(documents, engines)


def _engines(config: EvaluateConfig, seed: int) -> Engines:
    from intarsia.models import load

    scorer = load(config.scorer)
    writer = None
    if config.writer is not None:
        from intarsia.detection.writing.writer import open_writer

        writer = open_writer(config.writer)
    return Engines(
        kept=Kept(scorer), paired=Kept(scorer, load(config.observer)) if config.observer else None,
        filler=load(config.filler) if config.filler else None, writer=writer, tokens=config.tokens, seed=seed,
    )  # fmt: skip
