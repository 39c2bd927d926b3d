"""The work of `detection.check`: the detector, its bank, the documents, and their references."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from intarsia.data.documents import read_documents
from intarsia.detection.calibration import conformal
from intarsia.detection.checking.checker import Checker, bank_of
from intarsia.detection.checking.references import check_beside
from intarsia.detection.checking.verdicts import Checked, Verdicts
from intarsia.detection.detector import Detector
from intarsia.errors import BadInput
from intarsia.measure.provenance import provenance

if TYPE_CHECKING:
    from intarsia.detection.check import CheckConfig
    from intarsia.detection.documents import Documents

BASES = (0.01, 0.05, 0.2)  # shares of machines' texts for which predictive values are told


def look(documents: Documents, config: CheckConfig, seed: int) -> Verdicts:
    """Everything of `detection.check`."""
    conformal.wanted(config.fpr)
    if config.bank is not None and config.domain is not None:
        raise BadInput("give either --bank or --domain: a document is judged by one bank")
    references = read_documents(config.references) if config.references is not None else []
    detector = Detector.open(config.detector)
    bank = None
    if config.domain is not None:
        bank = detector.bank(config.domain)
    elif config.bank is not None:
        people = [d for d in read_documents(config.bank) if d.label in ("", "human")]
        bank = bank_of(detector, people, "own")
        if not bank.values:
            raise BadInput(f"{config.bank}: no text of 50 words or more; a bank wants some hundred")
    checker = Checker(
        detector, bank, config.fpr, read=config.language_model, triage=config.triage, passages=config.passages,
        seed=seed,
    )  # fmt: skip
    checked = check_beside(checker, documents.records, references, config.embedder)
    found = detector.facts.get("rates", {})
    return Verdicts(
        title=f"Whose text? {documents.source}", summary=_summary(checked, config.fpr), documents=checked,
        rate=config.fpr, detector=config.detector, predictive=_predictive(found, config.fpr),
        technique="detection.check",
        provenance=provenance(
            seed=seed, detector=config.detector, scorer=detector.scorer, scorer_key=detector.scorer_key,
            settings=config.model_dump(mode="json"),
        ),
    )  # fmt: skip


def _summary(checked: Sequence[Checked], rate: float) -> str:
    if len(checked) == 1:
        one = checked[0]
        if one.score is None:
            return f"{one.verdict.replace('_', ' ')}: {'; '.join(one.warnings) or 'nothing can be said'}."
        score, low, high = one.score
        flagged = sum(p.flagged for p in one.passages)
        sure = "" if one.certified else " Not certified: see the remarks."
        return (
            f"{one.verdict.replace('_', ' ')}: score {score:.2f} ({low:.2f} to {high:.2f}); {one.p_human:.1%} of "
            f"people's texts score as high. {flagged} of {len(one.passages)} passages flagged.{sure}"
        )
    count = {v: sum(c.verdict == v for c in checked) for v in dict.fromkeys(c.verdict for c in checked)}
    told = ", ".join(f"{number} {verdict.replace('_', ' ')}" for verdict, number in count.items())
    return f"{len(checked)} documents: {told}. Budget {rate:.1%}."


def _predictive(found: dict[str, float], rate: float) -> dict[str, float]:
    """Predictive values at some base rates, from the rate at which machines' texts were found in unseen domains."""
    power = found.get(f"{rate:g}")
    if not power:  # not known, or banks too small to flag anybody: nothing follows from that
        return {}
    return {f"{base:.0%}": conformal.predictive_value(base, power, rate) for base in BASES}
