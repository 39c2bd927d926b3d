"""`moe.trace`: which experts the tokens of a text go to, as a compact file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from intarsia.catalog import Config, technique

if TYPE_CHECKING:
    from intarsia.models import Model
    from intarsia.moe.routing import Trace


class TraceConfig(Config):
    length: int = Field(256, ge=2, description="texts are cut into pieces of so many tokens")
    max_tokens: int | None = Field(None, ge=2, description="stop after so many; unset: all")
    batch_size: int = Field(8, ge=1, description="pieces in one forward pass")
    corpus: str = Field("", description="a name for the text, kept in the file")


@technique(
    "moe.trace",
    kind="learn",
    family="expert placement",
    source="Yao et al. 2024 (ExFlow), the profiling step",
    needs="experts",
    gives="Trace",
    example={"text": ["The museum opens at ten.", "Tickets are sold at the door."], "length": 16},
)
def trace(model: Model, config: TraceConfig, *, text: list[Any]) -> Trace:
    """Record which experts the tokens of a text are sent to, layer by layer.

    The file (`.npz`) holds the chosen experts by falling weight, their weights, and where each token stands. Any
    mixture-of-experts model whose router the engine finds; choices are read as the network makes them, whatever its
    rule. Stopped in the middle, the same call goes on where it was. 3,000 tokens are enough to place 32 experts a
    layer, 20,000 for 64.

    - text: strings, or records with `.text`.

    Raises `BadInput` for a network without experts and for a model without tokenizer."""
    from intarsia.moe.routing.recording import record, texts_of, unfinished

    return record(
        model,
        texts_of(text),
        length=config.length,
        max_tokens=config.max_tokens,
        batch_size=config.batch_size,
        corpus=config.corpus,
        folder=unfinished(),
    )
