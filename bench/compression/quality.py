"""What a method costs in quality: perplexity, and the divergence from the model that was given."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from intarsia.models import Model
from intarsia.sites import run


class Judge:
    """Windows of token ids, and what the dense model says of each next token."""

    def __init__(self, dense: Model, windows: Sequence[Sequence[int]]):
        self.windows = [list(w) for w in windows]
        # Halves: the log-probabilities of 20,000 tokens over 49,152 words are 2 GB so.
        self.dense = [logits(dense, w).log_softmax(-1).half() for w in self.windows]

    def __call__(self, model: Model) -> dict[str, float]:
        """kl: mean KL(dense || model) in nats a token; perplexity; top1: share of tokens with the same first choice."""
        return self.of(lambda ids: logits(model, ids))

    def of(self, give: Callable[[list[int]], Tensor]) -> dict[str, float]:
        """The same of whatever gives logits, float32 [token, vocabulary], for every token that has a next one."""
        loss = divergence = same = 0.0
        count = 0
        for ids, wanted in zip(self.windows, self.dense, strict=True):
            found = give(ids).log_softmax(-1)
            p = wanted.float()
            divergence += float((p.exp() * (p - found)).sum())
            loss -= float(found.gather(1, torch.tensor(ids[1:])[:, None]).sum())
            same += float((found.argmax(-1) == p.argmax(-1)).sum())
            count += len(found)
        return {"kl": divergence / count, "perplexity": math.exp(loss / count), "top1": same / count, "tokens": count}


@torch.inference_mode()
def logits(model: Model, ids: Sequence[int]) -> Tensor:
    """[token, vocabulary] for every token that has a next one."""
    return run(model, torch.tensor([ids])).logits[0, :-1].float()
