"""Continuations that a causal model writes: greedy and drawn ones from one cache, with their probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from intarsia.interpretation.continuing import check_length, forward, measured

if TYPE_CHECKING:
    from intarsia.models import Model


@dataclass(frozen=True)
class Written:
    """A continuation that the model wrote.

    - ids: its tokens, without the one that ended it. text: the same, without the stop words.
    - log_probs, entropies: of each token under the model's own distribution (temperature 1), nats."""

    ids: list[int]
    text: str
    log_probs: list[float]
    entropies: list[float]


@torch.no_grad()
def write(
    model: Model,
    ids: Sequence[int],
    *,
    samples: int = 0,
    greedy: bool = True,
    max_new_tokens: int = 32,
    temperature: float = 1.0,
    top_p: float = 1.0,
    stop: Sequence[str] = (),
    seed: int = 0,
) -> list[Written]:
    """Continuations of one prompt: the greedy one first (if asked for), then `samples` drawn ones.

    All go on from the prompt's cache in one batch. A row ends at an end token of the network, which never comes first,
    or once its text holds one of `stop`. Sampling: softmax(logits / temperature), cut to the smallest set of
    tokens with mass `top_p` (Holtzman et al. 2020), from a generator of its own seeded by `seed`."""
    count = samples + int(greedy)
    check_length(model, len(ids) + max_new_tokens, "a prompt with what is written after it")
    ends = _end_tokens(model)
    generator = torch.Generator().manual_seed(seed)
    cache, step = None, torch.tensor([list(ids)])
    logits = None
    rows: list[Written] = [Written([], "", [], []) for _ in range(count)]
    open_ = [True] * count
    whole = torch.tensor([list(ids)]).expand(count, -1)
    for number in range(max_new_tokens):
        if logits is None or cache is None:
            batch = step if logits is None else whole
            output = forward(model, batch, None, None, torch.tensor([batch.shape[1] - 1]))
            cache = getattr(output, "past_key_values", None)
            if not hasattr(cache, "batch_repeat_interleave"):
                cache = None  # the network keeps something else: every step reads the whole text again
            elif count > 1 and number == 0:
                cache.batch_repeat_interleave(count)
        else:
            mask = torch.ones(count, whole.shape[1], dtype=torch.long)
            output = forward(model, whole[:, -1:], mask, cache, torch.tensor([0]))
        logits = output.logits[:, -1].cpu().double()
        logits = logits.expand(count, -1) if len(logits) != count else logits
        allowed = logits
        if number == 0 and ends:
            allowed = logits.clone()
            allowed[:, sorted(ends)] = -torch.inf
        tokens = _draw(allowed, temperature, top_p, generator)
        if greedy:
            tokens[0] = allowed[0].argmax()
        log_probs, entropies, _ = measured(logits, tokens)
        for i in range(count):
            if not open_[i]:
                continue
            if int(tokens[i]) in ends:
                open_[i] = False
                continue
            row = rows[i]
            row.ids.append(int(tokens[i]))
            row.log_probs.append(float(log_probs[i]))
            row.entropies.append(float(entropies[i]))
            if stop and any(s in model.tokenizer.decode(row.ids) for s in stop):  # type: ignore[union-attr]
                open_[i] = False
        if not any(open_):
            break
        whole = torch.cat([whole, tokens[:, None]], dim=1)
    return [_trimmed(model, row, stop) for row in rows]


def _draw(logits: Tensor, temperature: float, top_p: float, generator: torch.Generator) -> Tensor:
    p = (logits / temperature).softmax(-1)
    if top_p < 1:
        ordered, order = p.sort(dim=-1, descending=True)
        ordered[ordered.cumsum(-1) - ordered >= top_p] = 0  # the first token always stays
        p = torch.zeros_like(p).scatter(-1, order, ordered)
    return torch.multinomial(p, 1, generator=generator)[:, 0]


def _trimmed(model: Model, row: Written, stop: Sequence[str]) -> Written:
    """Without what follows a stop word: the tokens up to it, of which the last may reach into it; at least one."""
    text = model.tokenizer.decode(row.ids, skip_special_tokens=True)  # type: ignore[union-attr]
    cut = min((text.index(s) for s in stop if s in text), default=None)
    if cut is None:
        return Written(row.ids, text, row.log_probs, row.entropies)
    keep = len(row.ids)
    while keep and len(model.tokenizer.decode(row.ids[: keep - 1])) >= cut and keep > 1:  # type: ignore[union-attr]
        keep -= 1
    return Written(row.ids[:keep], text[:cut], row.log_probs[:keep], row.entropies[:keep])


def _end_tokens(model: Model) -> set[int]:
    settings = getattr(model.network, "generation_config", None)
    stop = getattr(settings, "eos_token_id", None)
    if stop is None:
        stop = getattr(model.tokenizer, "eos_token_id", None)
    return set() if stop is None else {stop} if isinstance(stop, int) else set(stop)
