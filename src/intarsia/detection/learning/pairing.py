"""The encoder that compares a text with references of its topic: learned from topics that no bank knows, and heard of
the people's texts in the banks, so that a document with references can be judged among them.

Source: Dou et al. 2024 (arXiv 2401.08046), Synthetic-Siamese."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from intarsia.detection.detector import REFERENCES
from intarsia.detection.normalising import normalise
from intarsia.detection.siamese import SiameseConfig, fit
from intarsia.detection.siamese.pairs import admissible, make_pairs, may_refer
from intarsia.errors import BadInput

if TYPE_CHECKING:
    from intarsia.data import Document
    from intarsia.detection.detector import Detector
    from intarsia.detection.learning.corpora import Corpus
    from intarsia.models import Model


def seen_by(documents: Sequence[Document]) -> list[Document]:
    """Documents as voices see them."""
    return [replace(d, text=normalise(d.text).text) for d in documents]


def learned_from(some: Sequence[Corpus], seen: Sequence[Document]) -> list[Document]:
    """Of the documents, as `seen_by` gives them, those that no bank holds, nor another text of their topic.

    Raises `BadInput` where none of them has a machine's text on its topic to stand beside."""
    banked = {c.texts[i] for c in some for i in c.banked.nonzero()[0]}
    known = {(d.domain, d.group) for d in seen if d.text in banked and d.group is not None}
    learned = [d for d in seen if d.text not in banked and (d.domain, d.group) not in known]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # who has none is told when it is trained
        pairs = make_pairs(learned)
    if {p.machine for p in pairs} != {False, True}:
        raise BadInput(
            "siamese compares texts with machines' texts on the same topic, and these name too few topics that both "
            "people and machines wrote on: give a table with a column 'topic', or train without it"
        )
    return learned


def pair(
    detector: Detector, some: Sequence[Corpus], seen: Sequence[Document], learned: Sequence[Document],
    encoder: Model, config: SiameseConfig, seed: int = 0,
) -> None:  # fmt: skip
    """Fit the encoder and have it hear the banks. People's texts of which no topic is known, or no machine's text on
    it, stay without.

    - seen, learned: as `seen_by` and `learned_from` give them."""
    detector.siamese = fit(encoder, learned, config, seed)
    topics: dict[tuple[str, str | None], list[Document]] = {}
    people: dict[tuple[str, str], Document] = {}
    for d in seen:
        if may_refer(d):
            topics.setdefault((d.domain, d.group), []).append(d)
        people.setdefault((d.domain or "general", d.text), d)
    for corpus in some:
        if corpus.domain not in detector.banks:
            continue
        mine = [people[corpus.domain, corpus.texts[i]] for i in corpus.chosen[corpus.bank]]
        others = [
            [r for r in topics.get((d.domain, d.group), []) if admissible(d, r)][: config.references] for d in mine
        ]
        detector.banks[corpus.domain].put(REFERENCES, detector.siamese.score(mine, others))
