"""What every attribution method can be told: which texts, what about them is explained, and in what pieces."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from intarsia.catalog import Config

Unit = Literal["token", "word", "sentence"]


class AttributionConfig(Config):
    """Settings that all attribution methods share."""

    prompt: str | None = Field(None, description="one text to explain, in place of `texts`")
    target: str | None = Field(
        None, description="the label, class or following words to explain; by default what the model itself chooses"
    )
    new_tokens: int = Field(
        1, ge=1, description="how many of its own next tokens are explained, where there are neither labels nor classes"
    )
    removal: Literal["attention", "token", "delete"] = Field(
        "attention",
        description="what taking a token away means: nothing attends to it, a neutral token stands in its place, or "
        "the text is shorter",
    )
    unit: Unit = Field("word", description="the pieces that are scored")
    max_texts: int = Field(8, ge=1, description="texts explained; more are drawn down to this many by the seed")
