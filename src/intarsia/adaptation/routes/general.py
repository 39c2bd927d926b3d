"""General texts: what a model must stay good at while it is specialised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from intarsia.data import Text, load_data, split
from intarsia.errors import BadInput

if TYPE_CHECKING:
    from intarsia.models import Model

SAMPLES, SAMPLE_TOKENS = 48, 64


@dataclass(frozen=True)
class General:
    """- measured: perplexity is taken on these; replayed: these are learned again. name: what they are, in words."""

    measured: list[Text]
    replayed: list[Text]
    name: str


def general_texts(model: Model, given: Sequence[Text] | None, seed: int) -> General:
    """Divided by the seed into two halves that share no text and no group.

    Without any given: the Python language reference, which comes with Python; where that is left out of Python, what
    the model itself writes, so that perplexity is the distance from its own distribution.

    Raises `BadInput` for a single text, or records that are none."""
    if given is not None:
        if odd := next((r for r in given if not isinstance(getattr(r, "text", None), str)), None):
            raise BadInput(f"general holds a {type(odd).__name__}; wanted: texts, one a line (.txt) or a row (text)")
        texts, name = [Text(r.text, r.group) for r in given], "the general texts given"
    elif reference := load_data("python-docs").splits.get("text"):
        texts, name = list(reference), "the Python language reference (technical English)"
    else:
        texts, name = _written(model, seed), "what the model itself writes"
    if len(texts) < 2:
        raise BadInput("general wants two texts or more: forgetting is measured on one half, the other is replayed")
    if len({text.group for text in texts}) < 2:  # all of one group, or of none
        texts = [replace(text, group=None) for text in texts]
    parts = split(texts, {"measured": 0.5, "replayed": 0.5}, by="group", seed=seed)
    return General(parts["measured"], parts["replayed"], name)


def _written(model: Model, seed: int) -> list[Text]:
    from intarsia.sites import generate

    tokenizer = model.tokenizer
    begin = tokenizer.bos_token or tokenizer.eos_token or "The"
    written = generate(
        model, [begin] * SAMPLES, max_new_tokens=SAMPLE_TOKENS, do_sample=True, top_k=0, seed=seed
    ).texts  # fmt: skip
    return [Text(text) for text in written or [] if len(text.split()) > 1]
