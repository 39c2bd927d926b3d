"""The encoder that compares a text with references of its topic: learned from topics that no bank knows, and heard of
the people's texts in the banks, so that a document with references can be judged among them.

Source: Dou et al. 2024 (arXiv 2401.08046), Synthetic-Siamese."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from intarsia.detection.detector import REFERENCES, VOICES
from intarsia.detection.normalising import normalise
from intarsia.detection.siamese import SiameseConfig, fit
from intarsia.detection.siamese.pairs import admissible, may_refer

if TYPE_CHECKING:
    from intarsia.data import Document
    from intarsia.detection.detector import Detector
    from intarsia.detection.learning.corpora import Corpus
    from intarsia.models import Model


def pair(
    detector: Detector, some: Sequence[Corpus], documents: Sequence[Document], encoder: Model, config: SiameseConfig,
    seed: int = 0,
) -> None:  # fmt: skip
    """Fit the encoder and have it hear the banks. People's texts of which no topic is known, or no machine's text on
    it, stay without."""
    seen = [replace(d, text=normalise(d.text).text) for d in documents]
    banked = {c.texts[i] for c in some for i in c.banked.nonzero()[0]}
    known = {(d.domain, d.group) for d in seen if d.text in banked and d.group is not None}
    learned = [d for d in seen if d.text not in banked and (d.domain, d.group) not in known]
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
        said = detector.siamese.score(mine, others)
        for values in detector.banks[corpus.domain].values.values():
            values[:, VOICES.index(REFERENCES)] = said
