"""Fitting a detector: voices, what each counts for, banks, and where machines' texts lie among them.

What a voice counts for is fitted where it is a stranger: on a domain's texts with voices that were trained on all other
domains. Weights that were fitted on the training domains would trust the words, which know these domains by heart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from intarsia.detection.calibration.banks import FEWEST, Bank, judge, trends
from intarsia.detection.combining import Weights
from intarsia.detection.detector import VOICES, Detector
from intarsia.detection.voices import language_model
from intarsia.detection.voices.cuts import VIEWS, view_for
from intarsia.detection.voices.ngrams import NGrams, balanced
from intarsia.detection.voices.states import Probe
from intarsia.errors import BadInput
from intarsia.progress import track

if TYPE_CHECKING:
    from intarsia.detection.learning.corpora import Corpus
    from intarsia.detection.statistics import Kept

FITTED_IN = (20, 35, 50, 80, 125, 200, 320)  # views that weights are fitted in
LARGEST = 6.0  # a standard score beyond it only says that its bank's spread is no measure
RATES = (0.01, 0.05)  # budgets at which it is noted how many of machines' texts are found in unseen domains


def values_of(detector: Detector, corpus: Corpus) -> np.ndarray:
    """[row, view, voice] of the texts that were read."""
    spoken = np.stack([detector.spoken(corpus.counted(view)) for view in VIEWS], 1)
    heard = detector.heard(corpus.features, corpus.states)
    return np.concatenate([spoken, heard, np.full((*heard.shape[:2], 1), np.nan)], 2)


def learn(
    some: Sequence[Corpus], kept: Kept, *, tokens: int | None = language_model.TOKENS, read_most: int = 300,
    seed: int = 0,
) -> Detector:  # fmt: skip
    """A detector from corpora.

    - read_most: texts of a domain, kind and part that the language model reads, at most; words are learned from all."""
    chosen = [text for corpus in some for text in corpus.choose(read_most, seed)]
    check(some)
    kept(chosen, tokens)  # all at once, so that progress is of all
    for corpus in some:
        corpus.read(kept, tokens)
    strange = strangers(some)
    weights = fit_weights(some, strange)
    final = train([(corpus, ~corpus.banked) for corpus in some])
    banks, own = {}, [values_of(final, corpus) for corpus in some]
    for corpus, values in zip(some, own, strict=True):
        if (mine := corpus.bank).any():
            lengths = corpus.lengths[corpus.chosen][mine]
            banks[corpus.domain] = Bank.of(corpus.domain, VOICES, values[mine], lengths, VIEWS, corpus.language)
    machine = {}
    for view in VIEWS:
        # Of domains that the voices do not know and, by texts that are none of their training's, of those they do.
        parts = [_among(c, v, view, weights) for c, v in zip(some, strange, strict=True)]
        parts += [_among(c, v, view, weights, c.banked) for c, v in zip(some, own, strict=True)]
        if len(scores := np.concatenate(parts)) >= FEWEST:
            machine[view] = np.sort(scores)
    facts = {
        "domains": {c.domain: {"people": int((~c.machine).sum()), "machine": int(c.machine.sum())} for c in some},
        **unseen(some, strange, weights),
    }
    return replace(final, weights=weights, banks=banks, machine=machine, tokens=tokens or 0, facts=facts)


def check(some: Sequence[Corpus]) -> None:
    """Raises `BadInput` for corpora that cannot be learned from, before the language model has read for an hour."""
    for corpus in some:
        if not _two_kinds(_others(some, corpus)):
            first = corpus.half()
            if not all(_two_kinds([(corpus, half)]) for half in (first, ~first)):
                raise BadInput(
                    f"{corpus.domain}: too few topics to train on some and judge by the others; give more of them, or "
                    "texts of a second domain"
                )
    if not any(_judges(corpus, half) for corpus in some for half in _halves(corpus)):
        raise BadInput(
            f"no domain has {FEWEST} texts of people in each half and texts of machines beside them; give more texts"
        )


def train(parts: Sequence[tuple[Corpus, np.ndarray]]) -> Detector:
    """The voices that learn, from some texts [text] of each corpus; without weights or banks yet.

    Polished texts are a minority that stands nearer to people's than all others: a model of all machines' texts passes
    them over. So they have models of their own, from the domains where there are any."""
    from scipy import sparse

    found = sparse.vstack([c.whole()[rows] for c, rows in parts], format="csr")
    machine = np.concatenate([c.machine[rows] for c, rows in parts])
    polished = np.concatenate([c.polished[rows] for c, rows in parts])
    names = np.array([c.domain for c, rows in parts for _ in range(int(rows.sum()))])
    states, read_machine, read_polished, read_names = [], [], [], []
    for corpus, rows in parts:
        chosen = corpus.chosen[rows[corpus.chosen]]
        # Each text as it is seen whole.
        at = [VIEWS.index(view_for(n)) for n in corpus.lengths[chosen]]
        states.append(corpus.states[np.flatnonzero(rows[corpus.chosen]), at])
        read_machine.append(corpus.machine[chosen])
        read_polished.append(corpus.polished[chosen])
        read_names += [corpus.domain] * len(chosen)
    seen, kinds, where = np.concatenate(states), np.concatenate(read_machine), np.array(read_names)
    ngrams = NGrams.of_counts(found, machine, names)
    nothing = np.zeros(len(VOICES))
    made = Detector(ngrams, Probe.fit(seen, kinds, where), Weights(VOICES, nothing, nothing))
    rewritten = np.concatenate(read_polished)
    known = np.unique(where[rewritten])
    rows, read = (
        (of | ~by) & np.isin(n, known) for of, by, n in ((polished, machine, names), (rewritten, kinds, where))
    )
    if rewritten.any() and not kinds[read].all():
        made.polished_ngrams = NGrams.of_counts(found[rows], machine[rows], names[rows])
        made.polished_probe = Probe.fit(seen[read], kinds[read], where[read])
    return made


def strangers(some: Sequence[Corpus]) -> list[np.ndarray]:
    """Of each corpus [row, view, voice], by voices trained without it; where there is but one corpus, on
    the other half of its topics."""
    out = []
    for corpus in track(some, "training without each domain"):
        if _two_kinds(others := _others(some, corpus)):
            out.append(values_of(train(others), corpus))
            continue
        values = np.full((len(corpus.chosen), len(VIEWS), len(VOICES)), np.nan)
        first = corpus.half()
        for half in (first, ~first):
            rows = half[corpus.chosen]
            values[rows] = values_of(train([(corpus, ~half)]), corpus)[rows]
        out.append(values)
    return out


def _others(some: Sequence[Corpus], corpus: Corpus) -> list[tuple[Corpus, np.ndarray]]:
    return [(c, np.ones(len(c.texts), bool)) for c in some if c is not corpus]


def _two_kinds(parts: Sequence[tuple[Corpus, np.ndarray]]) -> bool:
    return any((c.machine & rows).any() for c, rows in parts) and any((~c.machine & rows).any() for c, rows in parts)


def fit_weights(some: Sequence[Corpus], strange: Sequence[np.ndarray]) -> Weights:
    """What each voice counts for, from every domain's texts among each half of its people's."""
    found = [(i, *part) for i, (c, v) in enumerate(zip(some, strange, strict=True)) for part in _standard(c, v)]
    names = [str(i) for i, z, *_ in found for _ in range(len(z))]
    z, words, machine = (np.concatenate([part[k] for part in found]) for k in (1, 2, 3))
    return Weights.fit(VOICES, z, words, machine, balanced(machine, names))


def _halves(corpus: Corpus) -> tuple[np.ndarray, np.ndarray]:
    """[row] the bank's part of the texts that are read, and the rest."""
    banked = corpus.banked[corpus.chosen]
    return banked, ~banked


def _judges(corpus: Corpus, half: np.ndarray) -> bool:
    """Whether a half has people enough for others, and for machines' texts, to be judged among."""
    machine = corpus.machine[corpus.chosen]
    return (~machine & half).sum() >= FEWEST and (~machine & ~half).any() and machine.any()


def _standard(corpus: Corpus, values: np.ndarray):
    """(standard scores [row, voice], words, whether a machine wrote it) of the texts among each half of people's."""
    machine = corpus.machine[corpus.chosen]
    for half in _halves(corpus):
        people, judged = ~machine & half, (~machine & ~half) | machine
        if people.sum() < FEWEST or not judged.any():
            continue
        for view in FITTED_IN:
            at, words = values[:, VIEWS.index(view)], corpus.words(view)
            mean, spread = trends(at[people], words[people])
            z = (at[judged] - mean(words[judged])) / spread(words[judged])
            yield np.clip(z, -LARGEST, LARGEST), words[judged].astype(float), machine[judged]


def _among(
    corpus: Corpus, values: np.ndarray, view: int, weights: Weights, only: np.ndarray | None = None
) -> np.ndarray:
    """Scores of a corpus' machine texts (`only` those [text]) among its bank, in a view."""
    machine, banked = corpus.machine[corpus.chosen], corpus.banked[corpus.chosen]
    at, words = values[:, VIEWS.index(view)], corpus.words(view)
    people, rows = ~machine & banked, machine & (True if only is None else only[corpus.chosen])
    if people.sum() < FEWEST:
        return np.zeros(0)
    return judge(at[people], words[people], at[rows], words[rows], weights.at(words[rows])[:, None]).score


def unseen(
    some: Sequence[Corpus], strange: Sequence[np.ndarray], weights: Weights, view: int = 125
) -> dict:  # fmt: skip
    """How well it does on a domain that its voices were not trained on: AUROC by domain, and the share of machines'
    texts found at some budgets. (The weights have seen these domains.)"""
    from sklearn.metrics import roc_auc_score

    out, p = {}, []
    for corpus, values in zip(some, strange, strict=True):
        machine, banked = corpus.machine[corpus.chosen], corpus.banked[corpus.chosen]
        bank, rows = ~machine & banked, machine | ~banked
        if bank.sum() < FEWEST or len(set(machine[rows])) < 2:
            continue
        at, words = values[:, VIEWS.index(view)], corpus.words(view)
        found = judge(at[bank], words[bank], at[rows], words[rows], weights.at(words[rows])[:, None])
        out[corpus.domain] = float(roc_auc_score(machine[rows], found.score))
        p.append(found.p[machine[rows]])
    together = np.concatenate(p) if p else np.zeros(0)
    return {"unseen": out, "rates": {f"{r:g}": float((together <= r).mean()) for r in RATES if len(together)}}
