"""Texts as vectors: the mean over a network's last states, of length one.

Source: Reimers & Gurevych 2019, "Sentence-BERT", §3 (mean pooling)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from intarsia.errors import BadInput
from intarsia.progress import track

if TYPE_CHECKING:
    from intarsia.models.model import Model

TOKENS = 2048  # padded tokens in one forward
LONGEST = 256  # tokens of a text that are read, as all-MiniLM was trained


def embed(model: Model, texts: Sequence[str], *, longest: int = LONGEST) -> np.ndarray:
    """[text, width] float32, each of length one.

    - longest: tokens of a text that are read, at most; the rest is left out.

    A text that stands there several times is run once. Raises `BadInput` for a model without a tokenizer."""
    import torch

    if model.tokenizer is None:
        raise BadInput("embedding wants text: this model has no tokenizer (wrap(network, tokenizer))")
    different = list(dict.fromkeys(texts))
    limit = min(longest, model.context_length or longest)
    order = sorted(range(len(different)), key=lambda i: (len(different[i]), i))
    found: list[Any] = [None] * len(different)
    with torch.inference_mode():
        for numbers in track(_batches([len(different[i]) for i in order]), "embedding texts"):
            rows = [order[i] for i in numbers]
            batch = model.encode([different[i] or " " for i in rows], max_length=limit)
            states = model.network(**_known(model, batch), output_hidden_states=True).hidden_states[-1].float()
            mask = batch["attention_mask"][..., None]
            mean = torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1).clamp(min=1), dim=1)
            for i, row in zip(rows, mean.cpu().numpy(), strict=True):
                found[i] = row
    place = {text: i for i, text in enumerate(different)}
    width = model.config.get_text_config().hidden_size
    return np.stack([found[place[text]] for text in texts]) if len(texts) else np.zeros((0, width), np.float32)


def _known(model: Model, batch: Any) -> dict[str, Any]:
    import inspect

    names = inspect.signature(model.network.forward).parameters
    return {name: value for name, value in batch.items() if name in names}


def _batches(lengths: Sequence[int]) -> list[range]:
    """Runs of texts in order of length; four characters count as a token."""
    out, start = [], 0
    for end in range(1, len(lengths) + 1):
        if end == len(lengths) or (end + 1 - start) * (lengths[end] // 4 + 4) > TOKENS:
            out.append(range(start, end))
            start = end
    return out
