"""`interpretation.adversarial`: swap few words for similar ones until the answer flips."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from intarsia.catalog import Config, technique
from intarsia.interpretation.examples.finding import EditedTexts
from intarsia.models import Model


class AdversarialConfig(Config):
    max_edits: int = Field(4, ge=1, description="words that may be swapped")
    candidates: int = Field(48, ge=1, description="swaps tried a round, the most promising by the gradient")
    beam: int = Field(1, ge=1, description="variants kept from round to round")
    similar: float = Field(
        0.2, ge=-1, le=1, description="least cosine between the embeddings of a word and of what replaces it"
    )
    likely: int = Field(
        2000, ge=1, description="a replacement must be among that many likeliest tokens at its place (decoders)"
    )
    least_similarity: float = Field(
        0.8, ge=-1, le=1, description="least cosine of the whole texts, where an encoder is given"
    )
    labels: list[str] = Field([], description="the answers to choose from, where the model has no label task")
    template: str = Field("{text}\nLabel:", description="the prompt that goes with labels")
    max_texts: int = Field(12, ge=1, description="texts tried; more are drawn down to this many by the seed")


@technique(
    "interpretation.adversarial",
    kind="look",
    family="examples",
    source="swaps by gradient: Ebrahimi et al. 2018 (HotFlip), section 3; constraints: Jin et al. 2020 (TextFooler)",
    place="fine-tuning · local · example-based: adversarial",
    example={
        "texts": ["It was a good day.", "I am so sad."],
        "labels": ["good", "bad"],
        "max_edits": 2,
        "similar": -1.0,
    },
)
def adversarial(
    model: Model, config: AdversarialConfig, *, texts: list[Any], encoder: Model | None = None, seed: int = 0
) -> EditedTexts:
    """Swap few words for similar ones until the model's answer flips.

    The gradient says, for every word of the vocabulary at every place, how the answer's log probability would change to
    first order; the best swaps that keep a likeness to the word and are likely at the place are put to the model, and
    the best is kept, until the answer is another. Swaps that turn out not to be needed are taken back.

    `texts`: strings or records; the model needs a label task or a classifier's head, or `labels` and a `template` say
    what it is asked. `encoder`: a sentence encoder that judges whether the two texts still mean the same. A flip by a
    true synonym is a weakness of the model; the search does not know meaning, so look at the edits.

    Raises `BadInput` for a model that makes no choice."""
    from intarsia.interpretation.examples.looking import look
    from intarsia.interpretation.examples.search import Bounds

    bounds = Bounds(config.max_edits, config.beam, config.candidates, config.similar, config.likely)
    return look(
        model, texts, bounds, config, technique="interpretation.adversarial", title="Adversarial swaps", how="swapping",
        encoder=encoder, least=config.least_similarity, seed=seed,
    )  # fmt: skip
