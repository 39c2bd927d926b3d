"""DetectGPT and NPR: a machine's text is a peak of its model's probability, so that small changes make it less
probable; a person's is none.

Sources: Mitchell et al. 2023, DetectGPT (the perturbation discrepancy, normalised by the deviation as in its code);
Su et al. 2023, DetectLLM (NPR)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from intarsia.detection.methods import register_detector
from intarsia.detection.peers.drawing import drawn, unkept
from intarsia.detection.peers.perturbing import check_filler, perturb
from intarsia.detection.statistics.scores import loglik, logrank
from intarsia.errors import BadInput
from intarsia.progress import listening, track

if TYPE_CHECKING:
    from intarsia.data import Document
    from intarsia.detection.methods import Engines
    from intarsia.detection.statistics import Kept, TokenStatistics
    from intarsia.models import Model


@dataclass(frozen=True)
class Perturbed:
    """A text and its perturbations under the scoring model.

    - loglik: mean log-probability of its tokens, nats. logrank: mean log rank (0 where every token is the most
      probable one). tokens: how many. logliks, logranks: [perturbation]; empty where there is none."""

    loglik: float
    logrank: float
    tokens: int
    logliks: np.ndarray
    logranks: np.ndarray

    @property
    def discrepancy(self) -> float:
        """DetectGPT: (LL(x) - mean LL(x~)) / std LL(x~), of all perturbations (a deviation of 0 counts as 1); NaN
        without perturbations."""
        if not len(self.logliks):
            return np.nan
        return float((self.loglik - self.logliks.mean()) / (self.logliks.std() or 1.0))

    @property
    def rank_ratio(self) -> float:
        """NPR: mean logrank(x~) / logrank(x); NaN without perturbations. Where every token is the most probable one,
        one of them counts as of rank 2."""
        if not len(self.logranks):
            return np.nan
        return float(self.logranks.mean() / max(self.logrank, np.log(2) / self.tokens))


@register_detector("detectgpt")
def detectgpt(documents: Sequence[Document], engines: Engines) -> np.ndarray:
    """DetectGPT: how much more probable a text is than its perturbations, in their deviations [document]."""
    return np.array([one.discrepancy for one in perturbed_texts([d.text for d in documents], engines, "detectgpt")])


@register_detector("npr")
def npr(documents: Sequence[Document], engines: Engines) -> np.ndarray:
    """NPR: how much higher the ranks of the tokens of its perturbations are than a text's own [document]."""
    return np.array([one.rank_ratio for one in perturbed_texts([d.text for d in documents], engines, "npr")])


def perturbed_texts(texts: Sequence[str], engines: Engines, why: str) -> list[Perturbed]:
    """Texts and their perturbations, measured; equal texts once, and once for both methods.

    Only what `engines.tokens` covers is perturbed and measured, down to the last whole word. Raises `BadInput` without
    a scoring model or a filler."""
    kept: Kept = engines.need("kept", why)  # type: ignore[assignment]
    filler: Model = engines.need("filler", why)  # type: ignore[assignment]
    check_filler(filler)
    if engines.perturbations < 1:
        raise BadInput(f"perturbations is {engines.perturbations}: give at least 1")
    settings = ("perturbed", engines.seed, engines.tokens, engines.perturbations, engines.fill_top_p)
    measured = kept(texts, engines.tokens)
    out = []
    for text, statistics in zip(texts, track(measured, "perturbing texts"), strict=True):

        def make(text: str = text, statistics: TokenStatistics = statistics) -> Perturbed:
            return _perturbed(text, statistics, engines, kept, filler)

        out.append(drawn(engines, (kept, filler), (*settings, text), make))
    return out


def _perturbed(text: str, statistics: TokenStatistics, engines: Engines, kept: Kept, filler: Model) -> Perturbed:
    if engines.tokens is not None and len(statistics) >= engines.tokens:
        text = whole_words(text, int(statistics.spans[-1, 1]))
        statistics = statistics.between(0, len(text))
    made: list[TokenStatistics] = []
    if len(statistics):
        with listening(None):
            others = perturb(filler, text, engines.perturbations, top_p=engines.fill_top_p, seed=engines.seed)
            made = [one for one in unkept(kept)(others) if len(one)]
    if not made:
        return Perturbed(np.nan, np.nan, 0, np.empty(0), np.empty(0))
    return Perturbed(
        loglik(statistics), -logrank(statistics), len(statistics), np.array([loglik(one) for one in made]),
        np.array([-logrank(one) for one in made]),
    )  # fmt: skip


def whole_words(text: str, end: int) -> str:
    """The text up to a character, without the word that is cut there; all of it where it has no second word."""
    if end >= len(text) or text[end].isspace():
        return text[:end]
    cut = re.search(r"\s\S*$", text[:end])
    return text[: cut.start()] if cut else text[:end]
