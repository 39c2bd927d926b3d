"""The work of `detection.calibrate`: a bank, what it can vouch for, and for whom."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from intarsia.detection.calibrate import Calibrated, GroupRate
from intarsia.detection.calibration import conformal
from intarsia.detection.calibration.banks import FEWEST, Bank
from intarsia.detection.checking.checker import bank_documents, bank_from
from intarsia.detection.detector import Detector
from intarsia.detection.voices.cuts import LEAST, view_for
from intarsia.errors import BadInput

if TYPE_CHECKING:
    from intarsia.data import Document

BUDGET = 0.05  # at which groups are compared: at 1 % small groups say nothing


def add(
    detector: Detector, documents: Sequence[Document], domain: str, *, language: str = "", replace: bool = False,
    accept_group_risk: bool = False, source: str = "texts",
) -> Calibrated:  # fmt: skip
    """Make the bank, refuse it where it is unfair, and put it among the detector's. Nothing is saved.

    - documents: those that are called a machine's are left out. source: where they are from, for what goes wrong."""
    if domain in detector.banks and not replace:
        raise BadInput(f"there is a bank '{domain}' already: give another --domain, or --replace")
    documents = bank_documents([d for d in documents if d.label in ("", "human")])
    bank = bank_from(detector, documents, domain, language)
    if bank.texts < FEWEST:
        raise BadInput(
            f"{source}: {bank.texts} texts of {LEAST} words or more; a bank wants {FEWEST} at least, and 99 "
            "to vouch for 1 %"
        )
    groups = group_rates(detector, bank, [d.writers or "" for d in documents])
    if not accept_group_risk and (bad := [g for g in groups if g.rate[1] > BUDGET]):
        worst = max(bad, key=lambda g: g.rate[0])
        raise BadInput(
            f"people of the group '{worst.group}' would be flagged {worst.rate[0]:.1%} of the time at a budget of "
            f"{BUDGET:.0%} (at least {worst.rate[1]:.1%}): give them a bank of their own, or --accept-group-risk"
        )
    detector.banks[domain] = bank
    reach = conformal.smallest_rate(bank.texts)
    low, middle, high = (int(x) for x in np.quantile(bank.lengths, [0, 0.5, 1]))
    return Calibrated(
        title=f"Bank of {domain}", domain=domain, texts=bank.texts, language=bank.language, words=(low, middle, high),
        reach=reach, groups=groups, budget=BUDGET, technique="detection.calibrate",
        summary=f"{bank.texts} texts ({bank.language}, {low} to {high} words); they vouch for {reach:.2%}.",
    )  # fmt: skip


def group_rates(detector: Detector, bank: Bank, writers: Sequence[str]) -> list[GroupRate]:
    """Of each group of writers the rate at which the rest of the bank would flag its texts; none for one group.

    - writers: of each of the bank's texts; empty where it is not said."""
    mine = np.array(writers, dtype=object)
    names = [name for name in dict.fromkeys(writers) if name]
    if len(names) < 2:
        return []
    views = np.array([view_for(n) for n in bank.lengths])
    out = []
    for name in names:
        others = bank.some(mine != name)
        if others.texts < FEWEST:
            continue
        hits = 0
        for view in set(views[mine == name]):
            rows = (mine == name) & (views == view)
            judged = detector.judged(others, bank.values[view][rows], bank.words(view)[rows], int(view))
            hits += int((judged.p <= BUDGET).sum())
        texts = int((mine == name).sum())
        out.append(GroupRate(group=name, texts=texts, rate=conformal.rate_interval(hits, texts)))
    return out
