"""`adaptation.eq`: the EQ test (SECEU), by likelihood."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from intarsia.adaptation.eq.finding import EqFinding
from intarsia.catalog import Config, technique
from intarsia.errors import BadInput

if TYPE_CHECKING:
    from intarsia.models import Model


class EqConfig(Config):
    """Settings of the EQ test."""

    items: Path = Field(description="a .jsonl file: story, options (four words), human (mean scores, sum 10)")
    template: str = Field(
        "{story}\nAt the end of the story, the feeling is", description="prompt with {story}; a feeling's word follows"
    )
    calibration: Literal["none", "content-free"] = Field(
        "none", description="content-free: take off what the words score after an empty story"
    )


@technique(
    "adaptation.eq",
    kind="look",
    family="domain tests",
    source="Wang et al. 2023, Emotional Intelligence of Large Language Models (SECEU), arXiv 2307.09042; as in "
    "Zhang et al. 2025, DialogueLLM, arXiv 2310.11374; scores by likelihood: own",
    gives="EqFinding",
)
def eq(model: Model, config: EqConfig, *, seed: int = 0) -> EqFinding:
    """The EQ test: how near a model's scores of four feelings at the end of a story are to people's.

    The published test asks a model to write four scores that sum to ten, which many models fail to do. Here the score
    of a feeling is the share of its word in the likelihood of all four, times ten, so that any causal language model
    can take the test. s is the mean over the stories of the Euclidean distance to people's mean scores, and EQ = 100 +
    15 (2.79 - s) / 0.822. Where the items have a human `template` (distances of people), the pattern of the model's
    distances is correlated with it.

    The published stories are not shipped: they are their authors'. Give a file with a line for each, as the guide
    shows.

    Raises `BadInput` for a file that is not so, a template without {story}, or a network that is not causal."""
    from intarsia.adaptation.eq.items import read_items
    from intarsia.adaptation.eq.testing import STORY, examine

    if config.template.count(STORY) != 1 or "{text}" in config.template or "{context}" in config.template:
        raise BadInput(f"template wants {STORY} exactly once, and no other field (given: {config.template!r})")
    return examine(model, read_items(config.items), config.template, config.calibration, seed)
