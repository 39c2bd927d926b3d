"""Perplexity of a causal language model on texts, by windows that overlap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from intarsia.errors import BadInput
from intarsia.measure.intervals import with_interval
from intarsia.measure.quality_parts import TextQuality
from intarsia.progress import track

if TYPE_CHECKING:
    from intarsia.models import Model


def windows_of(length: int, window: int, stride: int) -> list[tuple[int, int, int]]:
    """(begin, end, first scored token) of each window over `length` tokens.

    Every token after the first is scored exactly once, with at least `window - stride` tokens before it where the text
    has that many."""
    out = []
    scored = 1
    begin = 0
    while scored < length:
        end = min(begin + window, length)
        out.append((begin, end, scored))
        scored = end
        begin += stride
    return out


def perplexity(
    model: Model,
    texts: Sequence[str],
    groups: Sequence[str | None] | None = None,
    *,
    window: int = 512,
    stride: int | None = None,
    max_tokens: int | None = None,
    draws: int = 2000,
    seed: int = 0,
    runtime: Any = None,
) -> TextQuality:
    """Perplexity over whole texts, each on its own; the first token of a text is given, not predicted.

    - window: tokens seen at once (at most the network's context); stride: how far it moves (default: half).
    - max_tokens: stop before the text that would exceed it (the first text always counts).

    Raises `BadInput` when nothing is left to predict."""
    from intarsia.measure.likelihood import check_causal, length_batches

    if model.tokenizer is None:
        raise BadInput("perplexity needs text: this model has no tokenizer (wrap(network, tokenizer))")
    if runtime is None:
        check_causal(model)
    window = min(window, model.context_length or window)
    stride = stride or max(1, window // 2)
    if not 0 < stride < window:
        raise BadInput(f"the stride is {stride} tokens: it must lie between 1 and the window's {window} - 1")
    groups = groups if groups is not None else [None] * len(texts)
    encoded = model.tokenizer(list(texts), verbose=False)["input_ids"] if texts else []
    kept, total = [], 0
    for i, ids in enumerate(encoded):
        if len(ids) < 2:
            continue
        if max_tokens is not None and kept and total + len(ids) - 1 > max_tokens:
            break
        kept.append(i)
        total += len(ids) - 1
    if not kept:
        raise BadInput("perplexity needs texts of two tokens or more; none were given")
    rows = [(i, *w) for i in kept for w in windows_of(len(encoded[i]), window, stride)]
    loss = np.zeros((len(texts), 2))
    batches = length_batches([end - begin for _, begin, end, _ in rows], 1024 if runtime is None else 1, rows=8)
    for batch in track(batches, "measuring perplexity"):
        ids = [encoded[rows[r][0]][rows[r][1] : rows[r][2]] for r in batch]
        for r, nll in zip(batch, _losses(model, ids, runtime), strict=True):
            text, begin, _, scored = rows[r]
            new = nll[scored - begin - 1 :]
            loss[text] += (new.sum(), len(new))
    loss = loss[kept]
    value = with_interval(
        loss, lambda s: np.exp(s[..., 0] / np.maximum(s[..., 1], 1)), [groups[i] for i in kept], draws=draws, seed=seed
    )
    size = sum(len(texts[i].encode()) for i in kept)
    return TextQuality(
        perplexity=value,
        bits_per_byte=float(loss[:, 0].sum() / np.log(2) / size),
        tokens=int(loss[:, 1].sum()),
        texts=len(kept),
        windows=len(rows),
        skipped=len(texts) - len(kept),
    )


def _losses(model: Model, ids: list[list[int]], runtime: Any) -> list[np.ndarray]:
    """Loss in nats of every token after the first, for rows of ids."""
    import torch

    from intarsia.measure.likelihood import accepts, given

    if runtime is not None:
        logits = [torch.from_numpy(np.asarray(runtime.logits(row), dtype=np.float32)) for row in ids]
    else:
        width = max(map(len, ids))
        pad = model.tokenizer.pad_token_id or 0
        batch = {
            "input_ids": torch.tensor([row + [pad] * (width - len(row)) for row in ids], device=model.device),
            "attention_mask": torch.tensor([[1] * len(r) + [0] * (width - len(r)) for r in ids], device=model.device),
        }
        with torch.inference_mode():
            logits = model.network(**given(batch, accepts(model.network)), use_cache=False).logits
    out = []
    for row, scores in zip(ids, logits, strict=True):
        n = len(row)
        want = torch.tensor(row[1:], device=scores.device)
        nll = torch.nn.functional.cross_entropy(scores[: n - 1].float(), want, reduction="none")
        out.append(nll.double().cpu().numpy())
    return out
