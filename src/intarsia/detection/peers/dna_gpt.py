"""DNA-GPT: a machine that gets the first half of its own text goes on much as it did; with a person's it does not.

Source: Yang et al. 2023, DNA-GPT: white box (the probability of the true second half against that of drawn ones; means
over tokens as in its notebook) and black box (shared n-grams)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from intarsia.detection.methods import register_detector
from intarsia.detection.peers.drawing import drawn, unkept
from intarsia.detection.peers.overlapping import SHORTEST, overlap_score, overlaps
from intarsia.detection.statistics.scores import loglik
from intarsia.detection.voices.cuts import cut, length_of, word_spans
from intarsia.detection.writing.seeds import mixed_seed
from intarsia.errors import BadInput
from intarsia.progress import listening, track

if TYPE_CHECKING:
    from intarsia.data import Document
    from intarsia.detection.methods import Engines
    from intarsia.detection.statistics import Kept, TokenStatistics
    from intarsia.detection.writing.writer import Writer

__all__ = ["Regenerated", "dna_gpt", "dna_gpt_black", "overlaps", "regenerate", "white_box"]

MOST_TOKENS = 200  # of a continuation
TOKENS_A_WORD = 2  # asked for: enough for the second half and a little more
WORDS_A_TOKEN = 0.75
LEAST_WORDS = 55  # of first half and continuation, or all that the text has
TRIES = 3


@dataclass(frozen=True)
class Regenerated:
    """A text that was cut in its middle and continued from there.

    - text: what of the document counts. at: where its second half begins, in characters; the space before it belongs
      to it. continuations: each is what came right after the first half; none where the text is too short."""

    text: str
    at: int
    continuations: tuple[str, ...]

    @property
    def first(self) -> str:
        """The first half: what a writer went on from."""
        return self.text[: self.at]

    @property
    def rest(self) -> str:
        """The second half."""
        return self.text[self.at :]


@register_detector("dna_gpt")
def dna_gpt(documents: Sequence[Document], engines: Engines) -> np.ndarray:
    """DNA-GPT, white box: how much more probable the second half of a text is than drawn ones [document]. It means most
    where the writer is the scoring model."""
    kept: Kept = engines.need("kept", "dna_gpt")  # type: ignore[assignment]
    return np.array([white_box(one, kept) for one in regenerate([d.text for d in documents], engines, "dna_gpt")])


@register_detector("dna_gpt_black")
def dna_gpt_black(documents: Sequence[Document], engines: Engines) -> np.ndarray:
    """DNA-GPT, black box: how much of the second half of a text a writer writes again [document]."""
    made = regenerate([d.text for d in documents], engines, "dna_gpt_black")
    return np.array([overlap_score(one.rest, one.continuations) for one in made])


def white_box(of: Regenerated, kept: Kept, *, whole: bool = False) -> float:
    """Mean log-probability of the tokens of the second half, less its mean over continuations, which are cut to as many
    words. NaN without continuations.

    - whole: of all tokens, the first half's too, as in Fast-DetectGPT's version of this method."""
    if not of.continuations:
        return np.nan
    words = length_of(of.rest)
    others = [of.first + cut(one, words) for one in of.continuations]
    with listening(None):
        own, *made = unkept(kept)([of.text, *others])
    if not whole:
        own, *made = [_after(one, of.at) for one in (own, *made)]
    values = [loglik(one) for one in made if len(one)]
    return loglik(own) - float(np.mean(values)) if values and len(own) else np.nan


def regenerate(texts: Sequence[str], engines: Engines, why: str) -> list[Regenerated]:
    """Texts with `engines.regenerations` continuations of their first halves; equal texts once, and once for both
    methods.

    Of a text its first words count, three for every four tokens of `engines.tokens`. A continuation of which first half
    and continuation have fewer than 55 words (and fewer than the text) is drawn again, twice at most; empty ones are
    left out. None are drawn for texts whose halves would have fewer than 4 words. Raises `BadInput` without a
    writer."""
    writer: Writer = engines.need("writer", why)  # type: ignore[assignment]
    if engines.regenerations < 1:
        raise BadInput(f"regenerations is {engines.regenerations}: give at least 1")
    settings = ("regenerated", engines.seed, engines.tokens, engines.regenerations)
    out = []
    for text in track(texts, "continuing texts"):

        def make(text: str = text) -> Regenerated:
            return _regenerated(text, writer, engines)

        out.append(drawn(engines, (writer,), (*settings, text), make))
    return out


def _regenerated(text: str, writer: Writer, engines: Engines) -> Regenerated:
    if engines.tokens is not None:
        text = cut(text, max(1, int(WORDS_A_TOKEN * engines.tokens)))
    places = word_spans(text)
    half = len(places) // 2
    at = places[half - 1][1] if half else 0
    if half < SHORTEST:
        return Regenerated(text, at, ())
    rest = len(places) - half
    least = min(LEAST_WORDS, len(places))
    made = [""] * engines.regenerations
    for number in range(TRIES):
        short = [i for i, one in enumerate(made) if not one.strip() or half + length_of(one) < least]
        if not short:
            break
        with listening(None):
            written = writer.write(
                [text[:at]] * len(short), most_tokens=min(MOST_TOKENS, TOKENS_A_WORD * rest + 16),
                seed=mixed_seed(engines.seed, "regenerate", number, text), chat=False,
            )  # fmt: skip
        for i, one in zip(short, written, strict=True):
            made[i] = max(made[i], one, key=length_of)
    return Regenerated(text, at, tuple(one for one in made if one.strip()))


def _after(statistics: TokenStatistics, at: int) -> TokenStatistics:
    return statistics.part(statistics.spans[:, 0] >= at)
