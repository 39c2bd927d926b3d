"""What a detector that saw one kind of machine's text makes of others: new topics, prompts, generators, a new domain.

Trained on essays of people and of gpt-3.5 asked plainly; thresholds by other people's essays. Beside the default (alone
and with the signed encoder as its third voice), words alone, an encoder, and Synthetic-Siamese in the paper's form and
in the signed one, with references that gpt-3.5 wrote on the same topic in another draw."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

import intarsia as ia
from bench.common import show
from bench.detection.domains import alone
from bench.detection.sets import Set, clean_set, drawn_by
from bench.kept import Kept as Finished
from intarsia.data import Document
from intarsia.detection.checking.checker import bank_documents, bank_from
from intarsia.detection.detector import REFERENCES, Detector
from intarsia.detection.evaluating.protocol import Measured, Scorer, Split, by_threshold, measure
from intarsia.detection.evaluating.run import judge_with
from intarsia.detection.learning import Corpus, learn
from intarsia.detection.siamese import SiameseConfig, SiameseDetector, fit, frozen_cosine
from intarsia.detection.statistics import Kept

GENERATOR = "gpt-3.5-turbo-0613"
REFERENCE = "plain_resample:0"
ENCODER = "minilm"
EACH = 40  # texts of a kind
SEEDS = (0, 1, 2)
HEADS = ("single", "abs", "diff")


@dataclass
class Essays:
    """people, machine: learned from. bank, judged: people's. kinds: machines' by what is new. references: by topic."""

    people: list[Document]
    machine: list[Document]
    bank: list[Document]
    judged: list[Document]
    kinds: dict[str, list[Document]]
    references: dict[str, list[Document]]

    @staticmethod
    def read(folder: Path, quick: bool) -> Essays:
        every = sorted(clean_set(folder, "essay"), key=lambda d: drawn_by(d.name))
        people = [d for d in every if d.label == "human"]
        machine = [d for d in every if d.label != "human"]
        test = [d for d in machine if d.split == "test"]
        each = 8 if quick else EACH

        def some(wanted: Callable[[Document], bool]) -> list[Document]:
            return [d for d in test if wanted(d)][:each]

        kinds = {
            "new topics": some(lambda d: d.generator == GENERATOR and d.prompt == "plain"),
            "new constraints": some(lambda d: d.generator == GENERATOR and d.prompt.startswith("constraint")),
            "paraphrased prompts": some(lambda d: d.generator == GENERATOR and d.prompt.startswith("paraphrase")),
            "gpt-4": some(lambda d: d.generator.startswith("gpt-4") and d.prompt != REFERENCE),
            "davinci-002": some(lambda d: d.generator.startswith("davinci") and d.prompt != REFERENCE),
        }
        references: dict[str, list[Document]] = {}
        for d in machine:
            if d.generator == GENERATOR and d.prompt == REFERENCE:
                references.setdefault(d.group or "", []).append(d)
        limit = 40 if quick else None
        return Essays(
            [d for d in people if d.split == "train"][:limit],
            [d for d in machine if d.split == "train" and d.generator == GENERATOR and d.prompt == "plain"][:limit],
            [d for d in people if d.split == "cal"][:limit], [d for d in people if d.split == "test"][: 3 * each],
            kinds, references,
        )  # fmt: skip

    def corpus(self) -> Corpus:
        learned = [*self.people, *self.machine]
        return Corpus(
            "essay", [d.text for d in [*learned, *self.bank]],
            np.array([d.label != "human" for d in [*learned, *self.bank]]),
            np.array([False] * len(learned) + [True] * len(self.bank)),
        )  # fmt: skip


def run(folder: Path, arxiv: Set, kept: Kept, finished: Finished, rate: float, *, quick: bool) -> dict[str, float]:
    """All of it; figures for `--json`."""
    essays = Essays.read(folder, quick)
    kinds = {id(d): kind for kind, some in essays.kinds.items() for d in some}
    here = Split("essay", essays.bank, essays.judged, [d for some in essays.kinds.values() for d in some])
    there = Split("arxiv", arxiv.bank, arxiv.people, arxiv.machine)
    references = Paired(essays.references, _arxiv_references(folder))
    rows: list[Measured] = []

    def judge(name: str, make: Callable[[], dict[str, Scorer]]) -> None:
        def made() -> dict:
            found = []
            for label, scorer in make().items():
                for split in (here, there):
                    of = (lambda d: kinds[id(d)]) if split is here else (lambda d: d.label)
                    found += [row.model_dump() for row in measure(label, split, scorer, rate, kinds=of)]
            return {"rows": found}

        rows.extend(Measured(**row) for row in finished(f"shift {name}", made)["rows"])

    judge("default", lambda: _default(essays, references, kept))
    judge("cosine", lambda: {"cosine, untrained": by_threshold(partial(_cosine, references))})
    for seed in SEEDS[: 1 if quick else None]:
        for head in HEADS:
            judge(f"{head} {seed}", lambda h=head, s=seed: {_name(h): _tuned_scorer(essays, references, h, s)})
    _table(rows, rate)
    mine = [r.auroc[0] for r in rows if r.detector == _name("abs") and r.kind == "new constraints"]
    return {"auroc_siamese_heldout_prompts": float(np.mean(mine))} if mine else {}


def _name(head: str) -> str:
    return {"single": "encoder, one text", "abs": "Siamese |u - v|", "diff": "Siamese u - v"}[head]


def _default(essays: Essays, references: Paired, kept: Kept) -> dict[str, Scorer]:
    detector = learn([essays.corpus()], kept)
    detector.hold(kept)
    detector.siamese = _tuned(essays, references, "diff", 0)
    return {
        "default": partial(judge_with, detector), "words": partial(judge_with, alone(detector, "words")),
        "default and Siamese u - v": partial(_judge_paired, detector, references),
    }  # fmt: skip


def _judge_paired(
    detector: Detector, references: Paired, bank: Sequence[Document], documents: Sequence[Document]
) -> tuple[np.ndarray, np.ndarray]:
    """As `judge_with`, with the encoder heard of the bank's texts and of those that are judged."""
    people = bank_documents(bank)
    made = bank_from(detector, people, "bank", "en")
    made.put(REFERENCES, _beside(detector, references, people))
    judged = detector.judge(
        made.heard(REFERENCES), [d.text for d in documents], paired=_beside(detector, references, documents)
    )
    return judged.score, judged.p


def _beside(detector: Detector, references: Paired, documents: Sequence[Document]) -> np.ndarray:
    return detector.siamese.score(list(documents), [references.of(d) for d in documents])  # type: ignore[union-attr]


@dataclass
class Paired:
    """What each inquiry is compared with: never what was made from it, nor by the same prompt and generator."""

    essays: dict[str, list[Document]]
    arxiv: dict[str, dict[str, list[Document]]]

    def of(self, document: Document) -> list[Document]:
        if document.domain == "essay":
            return [r for r in self.essays.get(document.group or "", []) if r.text != document.text]
        by = self.arxiv.get(document.group or "", {})
        other = "gpt-3.5-turbo" if document.generator.startswith("gpt-4") else "gpt-4-1106-preview"
        return [r for r in by.get(other, []) if r.text != document.text]


def _arxiv_references(folder: Path) -> dict[str, dict[str, list[Document]]]:
    out: dict[str, dict[str, list[Document]]] = {}
    for d in clean_set(folder, "arxiv"):
        if d.label == "machine" and d.prompt.startswith("title"):
            out.setdefault(d.group or "", {}).setdefault(d.generator, []).append(d)
    return out


def _cosine(references: Paired, documents: Sequence[Document]) -> np.ndarray:
    return frozen_cosine(ia.load(ENCODER), list(documents), [references.of(d) for d in documents])


def _tuned(essays: Essays, references: Paired, head: str, seed: int) -> SiameseDetector:
    learned = [*essays.people, *essays.machine]
    if head != "single":
        topics = {d.group for d in learned}
        learned += [r for topic, some in essays.references.items() if topic in topics for r in some]
    config = SiameseConfig(head=head, max_tokens=128, references=1)
    return fit(ia.load(ENCODER), learned, config, seed)


def _tuned_scorer(essays: Essays, references: Paired, head: str, seed: int) -> Scorer:
    made = _tuned(essays, references, head, seed)

    def score(documents: Sequence[Document]) -> np.ndarray:
        if head == "single":
            return made.score(list(documents))
        return made.score(list(documents), [references.of(d) for d in documents])

    return by_threshold(score)


def _table(rows: Sequence[Measured], rate: float) -> None:
    names = list(dict.fromkeys(r.detector for r in rows))
    places = list(dict.fromkeys((r.domain, r.kind) for r in rows if r.kind != "all"))
    out = []
    for domain, kind in places:
        cells = []
        for name in names:
            mine = [r for r in rows if (r.detector, r.domain, r.kind) == (name, domain, kind)]
            values = [r.auroc[0] for r in mine]
            spread = f" ({min(values):.3f} to {max(values):.3f})" if len(values) > 1 else ""
            cells.append(f"{np.mean(values):.3f}{spread} / {np.mean([r.found[0] for r in mine]):.0%}")
        out.append([domain, kind, *cells])
    show(f"AUROC (over seeds) / found at {rate:.0%}", ["domain", "machine's texts", *names], out)
    wrong = [[n, *(f"{np.mean([r.false[0] for r in rows if r.detector == n and r.domain == d and r.kind == 'all']):.1%}"
              for d in ("essay", "arxiv"))] for n in names]  # fmt: skip
    show("People flagged", ["detector", "essay", "arxiv"], wrong)
