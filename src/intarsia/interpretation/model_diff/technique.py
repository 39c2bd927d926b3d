"""`interpretation.diff`: a diff for models, from their predictions down to their weights."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from intarsia.catalog import Config, technique
from intarsia.data import TextPair
from intarsia.interpretation.model_diff.finding import Diff
from intarsia.models import Model


class DiffConfig(Config):
    max_texts: int = Field(40, ge=1, description="texts compared; more are drawn down to this many by the seed")
    max_tokens: int = Field(64, ge=2, description="tokens of a text that are compared, a prompt's template not counted")
    batch_size: int = Field(8, ge=1, description="texts in one forward pass")
    stride: int = Field(1, ge=1, description="compare every n-th layer, counted back from the last")
    as_prompts: bool | None = Field(
        None,
        description="put each text into the prompt of the label task that travels with a model, followed by its label "
        "where it has one; unset: where there is a task and the texts are labelled",
    )
    sample: int = Field(512, ge=8, description="positions that CKA compares, drawn by the seed")
    lens_sample: int = Field(
        128, ge=0, description="positions whose lens is compared at every layer, drawn by the seed"
    )
    weights: bool = Field(True, description="compare the weights too")
    facts_top: int = Field(5, ge=1, description="a fact is readable where it ranks among that many tokens")
    facts_lens: Literal["sink", "logit", "identity"] = Field(
        "sink", description="the lens that reads facts out of the layers"
    )
    maps: int = Field(4, ge=0, description="texts shown as token maps, the most changed first")
    examples: int = Field(10, ge=0, description="rows in each table of examples")


@technique(
    "interpretation.diff",
    kind="look",
    family="model comparison",
    source="CKA: Kornblith et al. 2019, unbiased as in Nguyen et al. 2021, section 3; lens: nostalgebraist 2020",
    place="prompting · assistant model · role of fine-tuning",
    example={
        "texts": ["The Eiffel Tower is in Paris.", "Water boils at 100 degrees."],
        "facts": [TextPair("The Eiffel Tower is in", " Paris"), TextPair("The Colosseum is in", " Rome")],
    },
)
def diff(
    model: Model, config: DiffConfig, *, against: Model, texts: list[Any], facts: list[Any] | None = None, seed: int = 0
) -> Diff:
    """Compare two models on the same texts: what changed in their predictions, where inside, and in which weights.

    `model` is the state after, `against` the state before. Per position: KL(before || after) of the next-token
    distributions, total variation, agreement of the top tokens, entropy, and the log-probability of the text's actual
    next token. Per layer: relative L2 distance, cosine and CKA of the residual streams, what attention and MLP add to
    the difference, where the logit lenses part. Per weight: relative Frobenius norm of its change. Averages leave out
    the first position of each text, an attention sink.

    Works for two decoders or two encoders that share a tokenizer; without a head only the layers are compared. Models
    of different depth are aligned by relative depth; of different width, by CKA alone. A model tuned for a label task
    was trained at one position of one prompt, so labelled texts are by default compared inside that prompt, and the
    position where the label is read (the cue) is reported apart.

    `facts`: prompts and what should follow them (`TextPair`). Each is read out of every layer of both models, through
    the blocks above it (a Patchscope), so that one sees which facts are no longer said, which of those are still there
    inside, and from which layer on.

    Raises `BadInput` when the tokenizers differ, or for facts and a model that predicts no next token."""
    from intarsia.interpretation.model_diff.compare import compare

    return compare(against, model, config, texts, facts, seed)
