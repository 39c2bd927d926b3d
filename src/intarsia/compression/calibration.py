"""Text that a method looks at: the user's, or what is embedded."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

from intarsia.compression.statistics import TOKENS, windows_of
from intarsia.errors import BadInput, Note

if TYPE_CHECKING:
    from intarsia.data import Text
    from intarsia.models import Model


def calibration_windows(model: Model, texts: Sequence[Text] | None, tokens: int = TOKENS) -> list[list[int]]:
    """Windows of token ids, of the texts given; else of the embedded data set `python-docs`, with a note that says so.

    Raises `BadInput` for a model without a tokenizer, and for texts without tokens."""
    if texts is None:
        texts = embedded()
    return windows_of(model, [record.text for record in texts], tokens)


def embedded() -> list[Text]:
    """The embedded data set `python-docs`, where no text was given; a note says so."""
    from intarsia.data import load_data, shuffled

    data = load_data("python-docs")
    split = next((name for name in ("calibration", "text", "train") if name in data), None)
    if split is None:
        raise BadInput("no calibration text, and this Python has no documentation to stand in: give texts")
    warnings.warn(
        "no calibration text: Python's documentation stands in; text of your own domain (--calibration) keeps more "
        "of what matters to you", Note, stacklevel=4,
    )  # fmt: skip
    return shuffled(data[split])
