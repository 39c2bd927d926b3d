"""`interpretation.counterfactual`: the smallest fluent edit that gets another answer."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from intarsia.catalog import Config, technique
from intarsia.interpretation.examples.finding import EditedTexts
from intarsia.models import Model


class CounterfactualConfig(Config):
    target: str | None = Field(None, description="the answer wanted; without it any other than the model's own")
    max_edits: int = Field(3, ge=1, description="words that may be changed or taken out")
    candidates: int = Field(64, ge=1, description="changes of each kind tried a round")
    beam: int = Field(4, ge=1, description="variants kept from round to round")
    delete: bool = Field(True, description="words may be taken out")
    labels: list[str] = Field([], description="the answers to choose from, where the model has no label task")
    template: str = Field("{text}\nLabel:", description="the prompt that goes with labels")
    max_texts: int = Field(12, ge=1, description="texts tried; more are drawn down to this many by the seed")


@technique(
    "interpretation.counterfactual",
    kind="look",
    family="examples",
    source="minimal contrastive edits: Ross et al. 2021 (MiCE), section 2; Wu et al. 2021 (Polyjuice)",
    place="fine-tuning · local · example-based: counterfactual",
    example={"texts": ["It was a good day.", "I am so sad."], "labels": ["good", "bad"], "max_edits": 2},
)
def counterfactual(model: Model, config: CounterfactualConfig, *, texts: list[Any], seed: int = 0) -> EditedTexts:
    """The smallest fluent edit that gets another answer: what would have to be different.

    Words are exchanged or taken out, one more each round. What may stand in a place is proposed by the gradient toward
    the wanted answer and by the model's own next-token distribution; all proposals are put to the model. Among the
    edits with the fewest words that reach the goal, the one that surprises the model least is given. Words of the
    answers' own names are not proposed.

    `texts`: strings or records; the model needs a label task or a classifier's head, or `labels` and a `template` say
    what it is asked. The edit shows what the model reacts to, which need not be what a person would change.

    Raises `BadInput` for a model that makes no choice, or an unknown target."""
    from intarsia.interpretation.examples.looking import look
    from intarsia.interpretation.examples.search import Bounds

    bounds = Bounds(config.max_edits, config.beam, config.candidates, delete=config.delete)
    return look(
        model, texts, bounds, config, technique="interpretation.counterfactual", title="Counterfactual edits",
        how="changing", target=config.target, seed=seed,
    )  # fmt: skip
