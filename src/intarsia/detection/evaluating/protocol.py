"""One protocol for every detector: people's texts of the same domain are the bank that sets the threshold, other texts
of the domain are judged. No machine's text is ever seen before it is judged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pydantic

from intarsia.detection.calibration import conformal
from intarsia.detection.topics import drawn, topics_of
from intarsia.measure.quality_parts import Interval

if TYPE_CHECKING:
    from intarsia.data import Document


class Measured(pydantic.BaseModel):
    """How one detector did on one set of texts.

    - auroc: area under the ROC curve, with its 95 % interval by the bootstrap over topics. found: share of the
      machine's texts that are flagged at the budget; false: of people's; both with exact intervals. people, machine:
      texts that were judged; bank: people's texts that set the threshold."""

    detector: str
    domain: str
    kind: str = "all"
    auroc: Interval
    found: Interval
    false: Interval
    people: int
    machine: int
    bank: int


@dataclass
class Split:
    """Documents of one domain: the bank, other people's texts, and the machine's."""

    domain: str
    bank: list[Document]
    people: list[Document]
    machine: list[Document]

    @property
    def judged(self) -> list[Document]:
        return [*self.people, *self.machine]


def split_by_domain(documents: Sequence[Document], seed: int = 0) -> list[Split]:
    """The bank is what the data call `cal`; where nothing is called so, half of the topics, drawn from the seed.
    People's texts of `train` are neither bank nor judged."""
    by_domain: dict[str, list[Document]] = {}
    for document in documents:
        by_domain.setdefault(document.domain or "general", []).append(document)
    out = []
    for domain, some in by_domain.items():
        people = [d for d in some if d.label == "human"]
        machine = [d for d in some if d.label in ("machine", "polished", "mixed") and d.split != "train"]
        if any(d.split == "cal" for d in people):
            bank = [d for d in people if d.split == "cal"]
            others = [d for d in people if d.split not in ("cal", "train")]
            machine = [d for d in machine if d.split != "cal"]
        else:
            mine = drawn(topics_of(people), 0.5, seed)
            bank, others = ([d for d, yes in zip(people, mine, strict=True) if yes == which] for which in (True, False))
        out.append(Split(domain, bank, others, machine))
    return out


def _topic(document: Document) -> str:
    return document.group if document.group is not None else document.text


Scorer = Callable[[Sequence["Document"], Sequence["Document"]], tuple[np.ndarray, np.ndarray]]
"""From a bank and documents: their scores and p-values, [document]; NaN where nothing is said."""


def by_threshold(score: Callable[[Sequence[Document]], np.ndarray]) -> Scorer:
    """A plain score as a detector: its p-values are ranks among the bank's scores."""

    def judge(bank: Sequence[Document], documents: Sequence[Document]) -> tuple[np.ndarray, np.ndarray]:
        both = score([*bank, *documents])
        known, mine = both[: len(bank)], both[len(bank) :]
        p = conformal.p_values(mine, known[~np.isnan(known)])
        return mine, np.where(np.isnan(mine), 1.0, p)

    return judge


def measure(
    name: str, split: Split, scorer: Scorer, rate: float, *, kinds: Callable[[Document], str] | None = None,
    draws: int = 1000,
) -> list[Measured]:  # fmt: skip
    """All machine's texts together, and each kind of them apart against the same people's texts."""
    return measure_judged(name, split, *scorer(split.bank, split.judged), rate, kinds=kinds, draws=draws)


def measure_judged(
    name: str, split: Split, scores: np.ndarray, p: np.ndarray, rate: float, *,
    kinds: Callable[[Document], str] | None = None, draws: int = 1000,
) -> list[Measured]:  # fmt: skip
    """As `measure`, from what a scorer gave for the texts that are judged.

    A text that a detector says nothing of counts as lowest: it is never flagged."""
    scores = np.where(np.isnan(scores), -np.inf, scores)
    count = len(split.people)
    groups = {"all": np.ones(len(split.machine), bool)}
    if kinds is not None:
        of = np.array([kinds(d) for d in split.machine])
        groups |= {kind: of == kind for kind in sorted(set(of))}
    return [
        measured(
            name, split, kind, scores[:count], p[:count], scores[count:][rows], p[count:][rows],
            [d for d, yes in zip(split.machine, rows, strict=True) if yes], rate, draws,
        )
        for kind, rows in groups.items()
        if rows.any()
    ]  # fmt: skip


def measured(
    name: str, split: Split, kind: str, people: np.ndarray, people_p: np.ndarray, machine: np.ndarray,
    machine_p: np.ndarray, documents: Sequence[Document], rate: float, draws: int = 1000,
) -> Measured:  # fmt: skip
    """The figures, from scores and p-values."""
    hits, wrong = int((machine_p <= rate).sum()), int((people_p <= rate).sum())
    return Measured(
        detector=name, domain=split.domain, kind=kind,
        auroc=auroc_interval(people, machine, [_topic(d) for d in split.people], [_topic(d) for d in documents], draws),
        found=conformal.rate_interval(hits, len(machine)), false=conformal.rate_interval(wrong, len(people)),
        people=len(people), machine=len(machine), bank=len(split.bank),
    )  # fmt: skip


def auroc(people: np.ndarray, machine: np.ndarray, weight: np.ndarray, weight_machine: np.ndarray) -> float:
    """Chance that a machine's text scores higher than a person's, ties counting half; texts with weights."""
    order = np.argsort(people, kind="stable")
    ordered, below = people[order], np.concatenate([[0.0], np.cumsum(weight[order])])
    low = below[np.searchsorted(ordered, machine, side="left")]
    high = below[np.searchsorted(ordered, machine, side="right")]
    total = below[-1] * weight_machine.sum()
    return float(weight_machine @ ((low + high) / 2) / total) if total else float("nan")


def auroc_interval(
    people: np.ndarray, machine: np.ndarray, topics: Sequence[str], topics_machine: Sequence[str], draws: int = 1000,
    seed: int = 0,
) -> Interval:  # fmt: skip
    """The area, with the 95 % interval of the bootstrap over topics: what people and machines wrote on one is drawn
    together."""
    names = {name: i for i, name in enumerate(dict.fromkeys([*topics, *topics_machine]))}
    mine, theirs = np.array([names[t] for t in topics]), np.array([names[t] for t in topics_machine])
    if not len(people) or not len(machine):
        return float("nan"), float("nan"), float("nan")
    generator = np.random.default_rng(seed)
    drawn = generator.multinomial(len(names), np.full(len(names), 1 / len(names)), size=draws).astype(float)
    values = [auroc(people, machine, row[mine], row[theirs]) for row in drawn]
    low, high = np.nanquantile(values, [0.025, 0.975])
    whole = auroc(people, machine, np.ones(len(people)), np.ones(len(machine)))
    return whole, float(low), float(high)
