"""What cannot be cut, said before any work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from intarsia.compression.factorization.modules import has_factors
from intarsia.compression.quantization.modules import has_codes
from intarsia.compression.statistics import batches, uncached
from intarsia.errors import BadInput, first_line
from intarsia.sites import guest_of

if TYPE_CHECKING:
    from intarsia.models import Model


def check_plain(model: Model, who: str, doing: str = "prune") -> None:
    """Raise `BadInput` for weights that are not plain floats, or that something stands beside.

    - doing: what a person should do with the original first."""
    network = model.network
    if has_codes(network) or getattr(network, "is_quantized", False):
        raise BadInput(f"{who}: the model is quantized; {doing} the original, and quantize last")
    if has_factors(network):
        raise BadInput(f"{who}: layers of this network are factored already; {doing} the original")
    if guest_of(network) is not None:
        raise BadInput(f"{who}: adapters stand beside this network; merge them into it first")


def check_reads_text(model: Model, windows: Sequence[Sequence[int]], who: str, *, pairs: bool = False) -> None:
    """Raise `BadInput` for a network that does not run on texts alone (pictures, a second tower, a decoder's text).

    - pairs: an encoder-decoder will do; each of its sides reads a half of every text."""
    kind = type(model.network).__name__
    if getattr(model.config, "is_encoder_decoder", False) and not pairs:
        raise BadInput(f"{who}: {kind} is an encoder-decoder; a network that reads one text is wanted")
    (batch,) = batches(model, [windows[0][:2]])
    try:
        with torch.no_grad():
            model.network(**batch.kwargs, **uncached(model))
    except (ValueError, TypeError, AttributeError, RuntimeError, KeyError) as error:
        raise BadInput(f"{who}: {kind} does not run on a text alone ({first_line(error, 120)})") from error
