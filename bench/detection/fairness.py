"""People who are flagged, by who they are: one threshold, from essays of American pupils, for writers of other kinds;
and people's texts of a journal among a bank of their own."""

from __future__ import annotations

from functools import partial

from bench.common import show
from bench.detection.sets import Set
from bench.kept import Kept as Finished
from intarsia.detection.calibration import conformal
from intarsia.detection.evaluating.run import judge_with
from intarsia.detection.learning import learn
from intarsia.detection.statistics import Kept

GROUPS = {
    "essay": "native, US grade 6 to 12", "toefl": "not native, TOEFL", "hewlett": "native, US grade 8",
    "college": "native, US college applicants",
}  # fmt: skip
OTHERS = {
    "nature": "Nature Communications, own bank",
    "cheat_ieee": "abstracts fused by a machine from its own and a person's sentences, among arXiv's bank",
}
RATES = (0.01, 0.05)


def run(sets: dict[str, Set], kept: Kept, finished: Finished, rate: float) -> dict[str, float]:
    """Rates with exact intervals; figures for `--json`."""
    found = finished("fairness", partial(_judged, sets, kept))
    rows = []
    for name, p in found.items():
        cells = []
        for budget in RATES:
            share, low, high = conformal.rate_interval(sum(x <= budget for x in p), len(p))
            cells.append(f"{share:.1%} ({low:.1%} to {high:.1%})")
        rows.append([{**GROUPS, **OTHERS}[name], str(len(p)), *cells])
    show("Texts flagged by the default", ["writers", "texts", *(f"budget {b:.0%}" for b in RATES)], rows)
    return {"fpr_nonnative_default": sum(x <= rate for x in found["toefl"]) / len(found["toefl"])}


def _judged(sets: dict[str, Set], kept: Kept) -> dict[str, list[float]]:
    corpora = {name: one.corpus() for name, one in sets.items() if one.learned}
    detector = learn([c for name, c in corpora.items() if name not in GROUPS and name != "nature"], kept)
    detector.hold(kept)
    bank = sets["essay"].bank
    people = {name: sets[name].people if name == "essay" else [*sets[name].bank, *sets[name].people] for name in GROUPS}
    out = {name: judge_with(detector, bank, some)[1].tolist() for name, some in people.items()}
    out["nature"] = judge_with(detector, sets["nature"].bank, sets["nature"].people)[1].tolist()
    # Mixed texts are no false positives, and nobody's bank: the nearest kind of abstracts judges them.
    out["cheat_ieee"] = judge_with(detector, sets["arxiv"].bank, sets["cheat_ieee"].machine)[1].tolist()
    return out
