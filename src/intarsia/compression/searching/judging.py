"""How good a compressed model is, on the same text as the base: in torch or in an engine, with its own vocabulary or a
trimmed one.

    quality = exp((loss of the base - loss of the model) / tokens),    loss: nats over the whole text

Loss is counted a token of the *base's* vocabulary, so that a smaller vocabulary, which cuts the text finer, pays for
it. The divergence is measured where both have read the same characters, over the tokens that both have."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from intarsia.compression.pruning.ranking import kl
from intarsia.errors import BadInput
from intarsia.progress import track
from intarsia.sites import run

if TYPE_CHECKING:
    from intarsia.models import Model

Logits = Callable[[list[int]], Tensor]
"""Ids -> logits [token, vocabulary], float32, on the CPU."""


@dataclass(frozen=True)
class Reading:
    """A text as a tokenizer cuts it. ids: of the tokens. ends: after how many characters each ends."""

    ids: list[int]
    ends: list[int]


@dataclass(frozen=True)
class Judged:
    """- loss: nats over the text. tokens: of the base's vocabulary that it is counted on. kl: mean divergence from the
    base at the places both have, in nats; places: how many. agreement: share of them with the same first choice."""

    loss: float
    tokens: int
    kl: float
    agreement: float
    places: int

    @property
    def ppl(self) -> float:
        """Perplexity a token of the base's vocabulary."""
        return math.exp(min(self.loss / self.tokens, 700.0))


class Judge:
    """Texts, and what the base says of each next token.

    - texts: pieces of text, each read on its own. The first token of each is given, not judged.
    - known: of each piece the base's log-probabilities [token, vocabulary], for every token that has a next one, where
      somebody has them already."""

    def __init__(self, base: Model, texts: Sequence[str], known: Sequence[Tensor] | None = None):
        self.base, self.texts = base, list(texts)
        self._read = [read_text(base, text) for text in self.texts]
        if not any(len(r.ids) > 1 for r in self._read):
            raise BadInput("there is no text of two tokens to judge by")
        self._base: list[Tensor | None] = [None] * len(self.texts) if known is None else list(known)

    def pieces(self, tokens: int) -> range:
        """The first pieces, of so many tokens together."""
        count = 0
        for number, reading in enumerate(self._read):
            count += len(reading.ids) - 1
            if count >= tokens:
                return range(number + 1)
        return range(len(self._read))

    def loss(self, tokens: int) -> tuple[float, int]:
        """Of the base: nats over the first pieces, and tokens."""
        numbers = self.pieces(tokens)
        total = sum(_loss(self._wanted(n), self._read[n], self._read[n]) for n in numbers)
        return total, sum(len(self._read[n].ids) - 1 for n in numbers)

    def __call__(self, model: Model, tokens: int, logits: Logits | None = None, task: str = "judging") -> Judged:
        """Judge a model on the first pieces, of `tokens` tokens together.

        - logits: of an engine that holds the model; else the network is run."""
        logits = logits or network_logits(model)
        shared = common_tokens(self.base, model)
        loss = divergence = same = 0.0
        places = count = 0
        for n in track(self.pieces(tokens), task):
            mine = self._read[n]
            reading = mine if shared is None else read_text(model, self.texts[n])
            found = logits(reading.ids)
            loss += _loss(found.log_softmax(-1), reading, mine)
            count += len(mine.ids) - 1
            ours, theirs = aligned(mine, reading)
            wanted = self._wanted(n)[ours].float()
            found = found[theirs]
            if shared is not None:
                old, new = shared
                wanted, found = wanted[:, old], found[:, new]
            divergence += kl(wanted, found)
            same += float((wanted.argmax(-1) == found.argmax(-1)).sum())
            places += len(ours)
        return Judged(loss, count, divergence / max(places, 1), same / max(places, 1), places)

    def _wanted(self, n: int) -> Tensor:
        """Log-probabilities of the base, [token, vocabulary]; halves, for they are kept."""
        if self._base[n] is None:
            self._base[n] = network_logits(self.base)(self._read[n].ids).log_softmax(-1).half()
        return self._base[n]  # type: ignore[return-value]


def network_logits(model: Model) -> Logits:
    """Logits [token, vocabulary], float32, of a network on the CPU."""

    def logits(ids: list[int]) -> Tensor:
        with torch.inference_mode():
            return run(model, torch.tensor([ids], device=model.device)).logits[0].float().cpu()

    return logits


def engine_logits(runtime: Any) -> Logits:
    """The same of an engine (`intarsia.models.runtime`)."""
    return lambda ids: torch.from_numpy(np.asarray(runtime.logits(ids), dtype=np.float32))


def read_text(model: Model, text: str) -> Reading:
    """A text in a model's tokens, without special ones."""
    tokenizer: Any = model.tokenizer
    said = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    return Reading(list(said["input_ids"]), [end for _, end in said["offset_mapping"]])


def texts_of(model: Model, windows: Sequence[Sequence[int]]) -> list[str]:
    """Windows of token ids as texts again."""
    tokenizer: Any = model.tokenizer
    return [tokenizer.decode(list(w), clean_up_tokenization_spaces=False) for w in windows]


def common_tokens(base: Model, model: Model) -> tuple[Tensor, Tensor] | None:
    """Ids of the same tokens in both vocabularies; None where these are one."""
    if base.tokenizer is model.tokenizer:
        return None
    mine, theirs = base.tokenizer.get_vocab(), model.tokenizer.get_vocab()  # type: ignore[union-attr]
    if mine == theirs:
        return None
    pairs = sorted((mine[token], i) for token, i in theirs.items() if token in mine)
    old, new = zip(*pairs, strict=True)
    return torch.tensor(old), torch.tensor(new)


def aligned(mine: Reading, other: Reading) -> tuple[list[int], list[int]]:
    """Places of both, but for their last, where both have read the same characters."""
    if mine is other:
        places = list(range(len(mine.ids) - 1))
        return places, places
    at = {end: place for place, end in enumerate(other.ends[:-1])}
    last = {end: place for place, end in enumerate(mine.ends[:-1])}
    pairs = [(place, at[end]) for end, place in last.items() if end in at]
    return [a for a, _ in pairs], [b for _, b in pairs]


def _loss(logs: Tensor, reading: Reading, mine: Reading) -> float:
    """Nats of the tokens that begin where the base's first one has ended, or later."""
    first = next(i for i, end in enumerate(reading.ends) if end >= mine.ends[0]) + 1
    if first >= len(reading.ids):
        return 0.0
    wanted = torch.tensor(reading.ids[first:])
    return -float(logs[first - 1 : len(reading.ids) - 1].float().gather(1, wanted[:, None]).double().sum())
