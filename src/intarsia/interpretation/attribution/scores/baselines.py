"""Embeddings of a text that says nothing: where the path of integrated gradients begins."""

from __future__ import annotations

import torch
from torch import Tensor

from intarsia.errors import BadInput
from intarsia.interpretation.explained import Explained, neutral_token
from intarsia.sites import read

SAMPLED = 512  # tokens of the vocabulary that stand for all of it in the mean
ROWS = 16


def baseline_embeddings(explained: Explained, baseline: str, whole: Tensor) -> Tensor:
    """[token, width]: the prompt's embeddings `whole` with those of the text's own tokens exchanged.

    - neutral, mask, pad: of the token that stands in for a removed one, the mask token, the padding token.
    - zero: zeros. mean: the mean over tokens spread evenly over the vocabulary, at each position."""
    start, at = whole.clone(), explained.features
    if baseline == "zero":
        start[at] = 0
    elif baseline == "mean":
        size = explained.model.network.get_input_embeddings().weight.shape[0]
        vocabulary = min(size, len(explained.model.tokenizer or range(size)))
        tokens = torch.linspace(0, vocabulary - 1, min(SAMPLED, vocabulary)).long()
        sums = torch.zeros_like(start[at], dtype=torch.float64)
        for part in tokens.split(ROWS):
            sums += _embedded(explained, part)[:, at].double().sum(0)
        start[at] = (sums / len(tokens)).to(start.dtype)
    else:
        start[at] = _embedded(explained, torch.tensor([_token(explained, baseline)]))[0, at]
    return start


def _embedded(explained: Explained, tokens: Tensor) -> Tensor:
    """[n, token, width]: the prompt with one token in all places of the text, for each of `tokens`."""
    ids = torch.tensor([explained.ids]).repeat(len(tokens), 1)
    ids[:, explained.features] = tokens[:, None]
    site = f"{explained.model.sites.main.prefix}embed"
    return read(explained.model, ids.to(explained.model.device), site)[site]


def _token(explained: Explained, baseline: str) -> int:
    if baseline == "neutral":
        return neutral_token(explained.model)
    token = getattr(explained.model.tokenizer, f"{baseline}_token_id", None)
    if token is None:
        raise BadInput(f"baseline: this tokenizer has no {baseline} token; there are: neutral, zero, mean")
    return int(token)
