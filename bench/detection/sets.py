"""The corpora of the set `detect`, cut to what a workstation reads in half an hour: which texts the words are learned
from, which the language model reads, and which are judged. All draws go by the hash of a text's id."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from intarsia.data import Document
from intarsia.data.documents import read_documents
from intarsia.detection.learning import Corpus
from intarsia.detection.normalising import normalise
from intarsia.detection.voices.cuts import LEAST, length_of

DOMAINS = (
    "arxiv", "essay", "fdg_pubmed", "cs224n", "acl", "college", "toefl", "hewlett", "fdg_xsum", "fdg_writing",
    "detectrl_arxiv",
)  # fmt: skip
OTHERS = ("nature", "cheat_ieee")  # people's alone, and mixed texts alone
SPLIT = ("essay", "arxiv", "acl")  # with splits of their own
BANK = 115  # people's texts in a bank, where there are more than twice as many; two thirds where there are fewer
JUDGED = 120  # people's texts that are judged, at most
MORE = {"acl": 737, "cs224n": 145, "toefl": 91, "hewlett": 91, "detectrl_arxiv": 269}
"""Topics of which the language model reads all texts: of those that were polished, and of those the nearest to them."""
LEARNED = (400, 800)  # people's and machines' texts of a domain that words are learned from


@dataclass
class Set:
    """One corpus: bank, other people's texts and machines' that are judged, further texts that the language model reads
    where another domain is judged, and those that words are learned from."""

    name: str
    bank: list[Document]
    people: list[Document]
    machine: list[Document]
    more: list[Document]
    learned: list[Document]

    def corpus(self) -> Corpus:
        """For training on this domain: all of them, those that are judged here too (another domain is judged then)."""
        read = [*self.bank, *self.people, *self.machine, *self.more]
        texts = list(dict.fromkeys(d.text for d in read))
        known = set(texts)
        more = [d for d in self.learned if d.text not in known]
        label = {d.text: d.label for d in [*read, *more]}
        texts += list(dict.fromkeys(d.text for d in more))
        texts = [t for t in texts if length_of(t) >= LEAST]
        banked = {d.text for d in self.bank}
        made = Corpus(
            self.name, texts, np.array([label[t] != "human" for t in texts]), np.array([t in banked for t in texts]),
            polished=np.array([label[t] == "polished" for t in texts]),
        )  # fmt: skip
        made.chosen = np.flatnonzero([t in known for t in texts])
        return made


def read_set(folder: Path, name: str, *, quick: bool = False) -> Set:
    """One corpus. Of the answers about PubMed the question, which is the same for both, is left out."""
    documents = sorted(clean_set(folder, name), key=lambda d: drawn_by(d.name))
    people = list({d.text: d for d in reversed(documents) if d.label == "human"}.values())[::-1]
    machine = [d for d in documents if d.label != "human"]
    if name in SPLIT:
        bank = [d for d in people if d.split == "cal" or (d.split == "train" and name != "essay")][:BANK]
        judged = [d for d in people if d.split == "test"][:JUDGED]
    else:
        size = BANK if len(people) > 2 * BANK else round(len(people) * 2 / 3)
        bank, judged = people[:size], people[size:][:JUDGED]
    count: Counter[tuple[str, ...]] = Counter()
    chosen = []
    for d in machine:
        kind = _kind(name, d)
        if (name in SPLIT and d.split != "test") or count[kind] >= _most(name):
            continue
        count[kind] += 1
        chosen.append(d)
    rest = [d for d in documents if name not in SPLIT or d.split == "train"]
    topics = list(dict.fromkeys(d.group for d in documents))[: MORE.get(name, 0)]
    more = [d for d in documents if d.group in topics]
    learned = [d for d in rest if d.label == "human"][: LEARNED[0]]
    learned += [d for d in rest if d.label in ("machine", "polished")][: LEARNED[1]]
    made = Set(name, bank, judged, chosen, more, learned)
    return _quick(made) if quick else made


def _quick(made: Set) -> Set:
    return Set(made.name, made.bank[:25], made.people[:10], made.machine[:15], [], made.learned[:200])


def clean_set(folder: Path, name: str) -> list[Document]:
    """All of one corpus, as voices see it."""
    return [_clean(d) for d in read_documents(folder / f"{name}.jsonl.gz")]


def _clean(document: Document) -> Document:
    text = document.text
    if document.domain == "fdg_pubmed":
        text = text.partition("Answer:")[2] or text
    return replace(document, text=normalise(text).text)


def drawn_by(name: str) -> str:
    """A key that orders texts at random, the same everywhere."""
    return hashlib.blake2b(name.encode(), digest_size=8).hexdigest()


def _kind(name: str, document: Document) -> tuple[str, ...]:
    family = document.prompt.partition(":")[0] if name in ("essay", "detectrl_arxiv") else document.prompt
    return document.label, document.generator, family


def _most(name: str) -> int:
    return {"detectrl_arxiv": 8, "essay": 20, "cheat_ieee": 50}.get(name, 35 if name.startswith("fdg") else 30)


def kinds_of(documents: Sequence[Document]) -> list[str]:
    """For each what made it: the generator, and what it was asked for."""
    return [
        f"{d.generator} {d.label if d.label != 'machine' else _kind(d.domain, d)[2]}".split(":")[0] for d in documents
    ]
