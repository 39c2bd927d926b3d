"""What a method costs in quality: perplexity, and the divergence from the model that was given; also of a model that
cuts text into other tokens."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from intarsia.compression.searching import judging
from intarsia.models import Model
from intarsia.sites import run


class Judge:
    """Windows of token ids, and what the dense model says of each next token."""

    def __init__(self, dense: Model, windows: Sequence[Sequence[int]]):
        self.model, self.windows = dense, [list(w) for w in windows]

    @cached_property
    def dense(self) -> list[Tensor]:
        """What is wanted, computed for the first point that is judged: where all are kept from before, for none."""
        # Halves: the log-probabilities of 20,000 tokens over 49,152 words are 2 GB so.
        return [logits(self.model, w).log_softmax(-1).half() for w in self.windows]

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


def by_text(dense: Model, tokenizer: Any, judge: Judge, give: judging.Logits) -> dict[str, Any]:
    """As `judge.of`, of a model with a tokenizer of its own, over the windows as text (`searching.judging`).

    - give: the model's own token ids -> logits, float32 [token, vocabulary].

    Perplexity is a token of the dense model's. No token that went has a probability any more, so that the divergence
    over the dense vocabulary is infinite: `kl` is None, and `kl_shared` and `top1` are over the tokens that both have,
    where both have read the same characters. With the same vocabulary `kl` is what it always is."""
    other: Any = SimpleNamespace(tokenizer=tokenizer)
    loss = divergence = same = 0.0
    count = places = 0
    for ids, known, text in zip(judge.windows, judge.dense, judging.texts_of(dense, judge.windows), strict=True):
        # What the dense model says is known, but where its tokenizer cuts a window's text otherwise.
        alike = judging.read_text(dense, text).ids == ids
        found = judging.Judge(dense, [text], [known] if alike else None)(other, 1, give)
        loss, count, places = loss + found.loss, count + found.tokens, places + found.places
        divergence, same = divergence + found.kl * found.places, same + found.agreement * found.places
    kl = divergence / places
    out = {"kl": kl, "perplexity": math.exp(loss / count), "top1": same / places, "tokens": count}
    return out if judging.common_tokens(dense, other) is None else {**out, "kl": None, "kl_shared": kl}


@torch.inference_mode()
def logits(model: Model, ids: Sequence[int]) -> Tensor:
    """[token, vocabulary] for every token that has a next one."""
    return run(model, torch.tensor([ids])).logits[0, :-1].float()
