"""Forward simulatability: can a simple reader tell what the model said from the tokens that an explanation puts first?

What is measured: a naive Bayes simulator reads, of each text, only the k tokens with the highest scores (as a set, with
no score and no order) and predicts the *model's* choice, not the true label. It is fitted on some texts and asked about
others (folds). An explanation helps as far as its simulator is right more often than one that read k random tokens.

The tokens were chosen with the choice in view, so an explanation may leak it (a method that knew the answer could mark
words that only encode it): high values show that the tokens go with the choice, not that they caused it.

Source: Doshi-Velez & Kim 2017, section 3.2 (forward simulation); Hase et al. 2020 (leakage); Pruthi et al. 2022
(simulators that learn)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def simulatability(read: Sequence[Sequence[str]], said: Sequence[str], folds: int = 5, seed: int = 0) -> np.ndarray:
    """[text] 1 where the simulator predicts what the model said, else 0; each text asked while it is held out.

    - read: for each text, the tokens the simulator sees. said: for each text, the model's choice.

    Folds are filled by choice, so that each has its share of all. One text or one choice teaches nothing: NaN."""
    if len(set(said)) < 2 or len(said) < 4:
        return np.full(len(said), np.nan)
    generator = np.random.default_rng(seed)
    fold = np.zeros(len(said), dtype=int)
    at = 0
    for name in sorted(set(said)):
        mine = generator.permutation([i for i, s in enumerate(said) if s == name])
        fold[mine] = (at + np.arange(len(mine))) % folds
        at += len(mine)
    right = np.zeros(len(said))
    for held in range(folds):
        train, test = np.flatnonzero(fold != held), np.flatnonzero(fold == held)
        simulator = NaiveBayes([read[i] for i in train], [said[i] for i in train])
        right[test] = [simulator(read[i]) == said[i] for i in test]
    return right


class NaiveBayes:
    """Bernoulli naive Bayes over the tokens that are there, add-one smoothed: argmax_c log p(c) + sum log p(t | c)."""

    def __init__(self, read: Sequence[Sequence[str]], said: Sequence[str]):
        self.names = sorted(set(said))
        self.count = {name: sum(s == name for s in said) for name in self.names}
        self.total = len(said)
        self.seen: dict[str, dict[str, int]] = {name: {} for name in self.names}
        for tokens, name in zip(read, said, strict=True):
            for token in {clean(t) for t in tokens}:
                self.seen[name][token] = self.seen[name].get(token, 0) + 1

    def __call__(self, tokens: Sequence[str]) -> str:
        def log_p(name: str) -> float:
            value = np.log(self.count[name] / self.total)
            for token in {clean(t) for t in tokens}:
                value += np.log((self.seen[name].get(token, 0) + 1) / (self.count[name] + 2))
            return float(value)

        return max(self.names, key=log_p)


def clean(token: str) -> str:
    """A token without the space before it and without its case."""
    return token.strip().casefold()
