"""How near generated text comes to the text wanted: exact match and ROUGE-L."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from intarsia.errors import BadInput, MissingExtra
from intarsia.measure.intervals import with_interval
from intarsia.measure.quality_parts import GenerationQuality, Interval
from intarsia.progress import track

if TYPE_CHECKING:
    from intarsia.data import TextPair
    from intarsia.models import Model


def judge_generation(
    model: Model, pairs: Sequence[TextPair], *, max_new_tokens: int = 64, draws: int = 2000, seed: int = 0,
    runtime: Any = None,
) -> GenerationQuality:  # fmt: skip
    """Generate greedily from each prompt and compare. Raises `BadInput` for no pairs, `MissingExtra` without
    rouge-score."""
    scorer = rouge_scorer()
    if not pairs:
        raise BadInput("measuring generation needs prompts with targets; none were given")
    written, cut = generate_texts(model, [p.prompt for p in pairs], max_new_tokens, runtime)
    values = np.zeros((len(pairs), 3))
    for i, (pair, text) in enumerate(zip(pairs, written, strict=True)):
        same = " ".join(text.split()) == " ".join(pair.target.split())
        values[i] = same, scorer.score(pair.target, text)["rougeL"].fmeasure, 1
    groups = [p.group for p in pairs]

    def mean(column: int) -> Interval:
        return with_interval(
            values, lambda s: s[..., column] / np.maximum(s[..., 2], 1), groups, draws=draws, seed=seed
        )

    samples = [(p.prompt, p.target, text) for p, text in list(zip(pairs, written, strict=True))[:5]]
    return GenerationQuality(n=len(pairs), exact_match=mean(0), rouge_l=mean(1), cut=cut, samples=samples)


def rouge_scorer() -> Any:
    """Of ROUGE-L, with stems. Raises `MissingExtra` without rouge-score."""
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError:
        raise MissingExtra("measuring ROUGE-L", "quality") from None
    return RougeScorer(["rougeL"], use_stemmer=True)


def generate_texts(
    model: Model, prompts: Sequence[str], max_new_tokens: int, runtime: Any = None
) -> tuple[list[str], int]:
    """Greedy continuations of prompts, and how many prompts lost their beginning to leave room for them."""
    import torch

    from intarsia.measure.likelihood import check_causal, left_padded, length_batches

    tokenizer = model.tokenizer
    if tokenizer is None:
        raise BadInput("generation needs text: this model has no tokenizer (wrap(network, tokenizer))")
    if runtime is None:
        check_causal(model)
    encoded = [list(row) for row in tokenizer(list(prompts), verbose=False)["input_ids"]]
    cut = 0
    if context := model.context_length:
        room = context - max_new_tokens
        if room < 1:
            raise BadInput(f"max_new_tokens is {max_new_tokens}, and the network's context only {context}")
        cut = sum(len(row) > room for row in encoded)
        encoded = [row[-room:] for row in encoded]
    out = [""] * len(encoded)
    pad = tokenizer.pad_token_id or 0
    for rows in track(length_batches([len(r) for r in encoded], 2048 if runtime is None else 1, rows=16), "generating"):
        ids = [encoded[r] for r in rows]
        if runtime is not None:
            new = [runtime.generate(ids[0], max_new_tokens)]
        else:
            batch = left_padded(ids, pad)
            del batch["position_ids"]  # `generate` writes its own, from the mask
            with torch.inference_mode():
                all_ids = model.network.generate(
                    **{k: v.to(model.device) for k, v in batch.items()}, do_sample=False,
                    max_new_tokens=max_new_tokens, pad_token_id=pad,
                )  # fmt: skip
            new = all_ids[:, batch["input_ids"].shape[1] :].tolist()
        for row, tokens in zip(rows, new, strict=True):
            out[row] = tokenizer.decode(tokens, skip_special_tokens=True)
    return out, cut
