"""A corpus as training takes it: texts by domain, and which of them are kept for the bank."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from intarsia.data.documents import LABELS
from intarsia.detection.normalising import normalise
from intarsia.detection.topics import drawn, topics_of
from intarsia.detection.voices import language_model
from intarsia.detection.voices.cuts import LEAST, VIEWS, cut, length_of
from intarsia.detection.voices.ngrams import counts
from intarsia.errors import BadInput, Note

if TYPE_CHECKING:
    from scipy import sparse

    from intarsia.data import Document
    from intarsia.detection.statistics import Kept


@dataclass
class Corpus:
    """Documents of one domain.

    - texts: as voices see them. machine: [text]. banked: [text] whether it is in the part that the bank is made of; no
      topic is in both parts. topics: [text]; None: each text is of its own. polished: [text] whether a machine's is a
      person's that it rewrote; None: none is.

    After `read`: chosen: [row] the texts that the language model read; features [row, view, feature] and states [row,
    view, 4 width]."""

    domain: str
    texts: list[str]
    machine: np.ndarray
    banked: np.ndarray
    language: str = "en"
    topics: Sequence[Hashable] | None = None
    polished: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.polished is None:
            self.polished = np.zeros(len(self.texts), bool)
        self.lengths = np.array([length_of(text) for text in self.texts])
        self.chosen = np.zeros(0, dtype=int)
        self._counts: dict[int, sparse.csr_matrix] = {}

    def choose(self, most: int, seed: int) -> list[str]:
        """Draw the texts that the language model is to read: so many of each kind and part, at most. What was chosen
        before stays."""
        if len(self.chosen):
            return [self.texts[i] for i in self.chosen]
        draw = np.random.default_rng(seed)
        out = []
        for kind in (False, True):
            for part in (False, True):
                mine = np.flatnonzero((self.machine == kind) & (self.banked == part))
                out.append(draw.permutation(mine)[:most])
        self.chosen = np.sort(np.concatenate(out))
        return [self.texts[i] for i in self.chosen]

    def read(self, kept: Kept, tokens: int | None) -> None:
        """Have the language model read them."""
        some = [self.texts[i] for i in self.chosen]
        self.features, self.states = language_model.in_views(kept, some, VIEWS, tokens)

    @property
    def bank(self) -> np.ndarray:
        """[row] whether a read text is a person's in the bank's part."""
        return (~self.machine & self.banked)[self.chosen]

    def half(self) -> np.ndarray:
        """[text] whether it is in the first half of the topics, drawn at random."""
        return np.array(drawn(self.topics or self.texts, 0.5))

    def whole(self) -> sparse.csr_matrix:
        """[text, place] counts of all texts."""
        return self.counted(0)

    def counted(self, view: int) -> sparse.csr_matrix:
        """[row, place] counts of the read texts in a view; 0: [text, place], of all texts whole."""
        if view not in self._counts:
            some = self.texts if not view else [cut(self.texts[i], view) for i in self.chosen]
            self._counts[view] = counts(some)
        return self._counts[view]

    def words(self, view: int) -> np.ndarray:
        """[row] words of the read texts that a view shows."""
        return np.minimum(self.lengths[self.chosen], view)


def corpora(documents: Sequence[Document], bank_share: float, seed: int) -> list[Corpus]:
    """By domain, normalised, texts that are too short or said twice left out (with a note). Documents whose split is
    `cal` are the bank's; where no split says so, topics are drawn.

    Raises `BadInput` for documents that do not say whose text they are, and for people's or machines' alone."""
    labels = {document.label for document in documents}
    if unknown := labels - {*LABELS}:
        given = ", ".join(map(repr, sorted(unknown)))
        raise BadInput(f"training wants documents labelled human, machine or polished; given: {given}")
    if "human" not in labels or not labels & {"machine", "polished"}:
        given = ", ".join(sorted(labels)) or "no documents"
        raise BadInput(f"training wants people's texts and machines'; given: {given}")
    by_domain: dict[str, list[Document]] = {}
    for document in documents:
        if document.label != "mixed":
            by_domain.setdefault(document.domain or "general", []).append(document)
    out, short, again = [], 0, 0
    for domain, some in by_domain.items():
        texts, machine, banked, polished, seen = [], [], [], [], set()
        about, topics = [], topics_of(some)
        for document, topic, in_bank in zip(some, topics, _banked(some, topics, bank_share, seed), strict=True):
            text = normalise(document.text).text
            if length_of(text) < LEAST:
                short += 1
            elif text in seen:
                again += 1
            else:
                seen.add(text)
                texts.append(text)
                machine.append(document.label != "human")
                banked.append(in_bank)
                polished.append(document.label == "polished")
                about.append(topic)
        if texts:
            language = next((d.language for d in some if d.language), "en")
            kinds = np.array(machine), np.array(banked)
            out.append(Corpus(domain, texts, *kinds, language, about, np.array(polished)))
    if short or again:
        reasons = ((short, f"of fewer than {LEAST} words"), (again, "that stand there twice"))
        told = " and ".join(f"{number} {why}" for number, why in reasons if number)
        warnings.warn(f"texts left out: {told}", Note, stacklevel=3)
    if not any((~c.machine).any() for c in out) or not any(c.machine.any() for c in out):
        raise BadInput(f"no texts of people and of machines with {LEAST} words or more are left")
    return out


def _banked(documents: Sequence[Document], topics: Sequence[int], share: float, seed: int) -> list[bool]:
    """Whether each belongs to the bank's part: what the data say, else whole topics drawn from the seed."""
    if any(d.split == "cal" for d in documents):
        return [d.split == "cal" for d in documents]
    return drawn(topics, share, seed)
