"""The work of `detection.calibrate`: a bank, what it can vouch for, and for whom."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from intarsia.data.documents import read_documents
from intarsia.detection.calibrate import Calibrated, GroupRate
from intarsia.detection.calibration import conformal
from intarsia.detection.calibration.banks import FEWEST, Bank
from intarsia.detection.checking.checker import bank_of
from intarsia.detection.detector import VOICES, Detector
from intarsia.detection.normalising import normalise
from intarsia.detection.voices.cuts import LEAST, VIEWS, length_of
from intarsia.errors import BadInput
from intarsia.measure.provenance import provenance

if TYPE_CHECKING:
    from intarsia.data import Document
    from intarsia.detection.calibrate import CalibrateConfig

BUDGET = 0.05  # at which groups are compared: at 1 % small groups say nothing


def add(detector: Detector, config: CalibrateConfig) -> Calibrated:
    """Make the bank, refuse it where it is unfair, and keep it with the detector."""
    if config.domain in detector.banks and not config.replace:
        raise BadInput(f"there is a bank '{config.domain}' already: give another --domain, or --replace")
    documents = [d for d in read_documents(config.humans) if d.label in ("", "human")]
    bank = bank_of(detector, documents, config.domain, config.language)
    if bank.texts < FEWEST:
        raise BadInput(
            f"{config.humans}: {bank.texts} texts of {LEAST} words or more; a bank wants {FEWEST} at least, and 99 "
            "to vouch for 1 %"
        )
    groups = group_rates(detector, documents)
    if not config.accept_group_risk and (bad := [g for g in groups if g.rate[1] > BUDGET]):
        worst = max(bad, key=lambda g: g.rate[0])
        raise BadInput(
            f"people of the group '{worst.group}' would be flagged {worst.rate[0]:.1%} of the time at a budget of "
            f"{BUDGET:.0%} (at least {worst.rate[1]:.1%}): give them a bank of their own, or --accept-group-risk"
        )
    detector.banks[config.domain] = bank
    detector.save(detector.folder, force=True)  # type: ignore[arg-type]
    reach = conformal.smallest_rate(bank.texts)
    low, middle, high = (int(x) for x in np.quantile(bank.lengths, [0, 0.5, 1]))
    return Calibrated(
        title=f"Bank of {config.domain}", domain=config.domain, texts=bank.texts, language=bank.language,
        words=(low, middle, high), reach=reach, groups=groups, budget=BUDGET,
        summary=f"{bank.texts} texts ({bank.language}, {low} to {high} words); they vouch for {reach:.2%}.",
        technique="detection.calibrate",
        provenance=provenance(scorer=detector.scorer, settings=config.model_dump(mode="json")),
    )  # fmt: skip


def group_rates(detector: Detector, documents: Sequence[Document]) -> list[GroupRate]:
    """Of each group of writers the rate at which the rest of the bank would flag its texts; none for one group."""
    known = [(d.writers, t) for d in documents if d.writers and length_of(t := normalise(d.text).text) >= LEAST]
    names = list(dict.fromkeys(writers for writers, _ in known))
    if len(names) < 2:
        return []
    texts = [text for _, text in known]
    mine = np.array([names.index(writers) for writers, _ in known])
    values, lengths = detector.values(texts), np.array([length_of(text) for text in texts])
    out = []
    for number, name in enumerate(names):
        others = Bank.of("others", VOICES, values[mine != number], lengths[mine != number], VIEWS)
        rows = [text for text, of in zip(texts, mine, strict=True) if of == number]
        if others.texts >= FEWEST:
            hits = int((detector.judge(others, rows).p <= BUDGET).sum())
            out.append(GroupRate(group=name, texts=len(rows), rate=conformal.rate_interval(hits, len(rows))))
    return out
