"""What every technique that judges explanations can be told: which texts, and what about them is explained."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from intarsia.catalog import Config


class EvaluationConfig(Config):
    """Settings that the techniques of this folder share."""

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
    max_texts: int = Field(20, ge=1, description="texts explained; more are drawn down to this many by the seed")
    max_tokens: int = Field(48, ge=2, description="tokens of a text that are explained; the rest is cut off")


class ScaleConfig(EvaluationConfig):
    """Settings of what is removed and how it is compared with chance."""

    fractions: list[float] = Field(
        [0.01, 0.05, 0.1, 0.2, 0.5], min_length=1, description="shares of the tokens that are removed or alone kept"
    )
    beam: int = Field(
        2, ge=0, description="width of the search for the best and the worst order of tokens (0: no normalised figures)"
    )
    floors: int = Field(5, ge=1, description="random orders whose mean is the floor")


def method_settings(given: dict[str, str], method: str) -> dict[str, str]:
    """The settings meant for `method`: `name` is for every method, `method.name` for one alone."""
    own = {k.partition(".")[2]: v for k, v in given.items() if k.partition(".")[0] == method and "." in k}
    return {k: v for k, v in given.items() if "." not in k} | own
