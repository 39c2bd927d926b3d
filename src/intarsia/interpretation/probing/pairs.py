"""The computation behind `interpretation.minimal_pairs`."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from intarsia.errors import BadInput
from intarsia.interpretation import averages, states
from intarsia.interpretation.probing.minimal_pairs import MinimalPairs, MinimalPairsConfig, PairGroup, ScoredPair
from intarsia.interpretation.wording import percent
from intarsia.measure.likelihood import length_batches
from intarsia.progress import track
from intarsia.sites import run

if TYPE_CHECKING:
    from intarsia.models import Model

WHAT = "interpretation.minimal_pairs"
TOKENS_PER_BATCH = 1024


def look(model: Model, config: MinimalPairsConfig, records: Sequence[Any], seed: int) -> MinimalPairs:
    """Score both sentences of every pair; see `interpretation.minimal_pairs`."""
    states.check_readable(model, WHAT)
    if not states.has_head(model):
        raise BadInput(
            f"{WHAT}: {type(model.network).__name__} has no head over a vocabulary: it gives no probabilities"
        )
    if not records:
        raise BadInput(f"{WHAT}: no pairs were given: wants prompt (the good sentence) and target (the bad one)")
    for i, record in enumerate(records, 1):
        if not hasattr(record, "target") or not record.prompt.strip() or not record.target.strip():
            raise BadInput(f"{WHAT}: pair {i} lacks a sentence: wants prompt (the good one) and target (the bad one)")
        if record.prompt == record.target:
            raise BadInput(f"{WHAT}: the two sentences of pair {i} are equal")
    pairs = list(records)
    if len(pairs) > config.max_pairs:
        pairs = [pairs[i] for i in sorted(random.Random(seed).sample(range(len(pairs)), config.max_pairs))]
    sentences = [s for pair in pairs for s in (pair.prompt, pair.target)]
    limit = min(n for n in (config.max_tokens, model.context_length) if n)
    ids = [list(model.tokenizer(s, verbose=False)["input_ids"]) for s in sentences]  # type: ignore[misc]
    if long := next((i for i, row in enumerate(ids) if len(row) > limit), None):
        raise BadInput(f"{WHAT}: pair {long // 2 + 1} has a sentence of {len(ids[long])} tokens, {limit} are read")
    if short := [i for i, row in enumerate(ids) if not row]:
        raise BadInput(f"{WHAT}: pair {short[0] // 2 + 1} has a sentence without tokens")
    causal = states.is_causal(model)
    log_p = (causal_log_probs if causal else masked_log_probs)(model, ids)
    if (empty := next((i for i, row in enumerate(log_p) if all(v is None for v in row)), None)) is not None:
        raise BadInput(
            f"{WHAT}: pair {empty // 2 + 1} has a sentence of a single token, and nothing stands before it to "
            "predict it"
        )
    known = [[v for v in row if v is not None] for row in log_p]
    totals = np.array([sum(row) for row in known]).reshape(-1, 2)
    means = np.array([sum(row) / len(row) for row in known]).reshape(-1, 2)
    margin = totals[:, 0] - totals[:, 1]
    right = correct(totals)
    lengths = np.array([len(row) for row in ids]).reshape(-1, 2)
    names = [pair.group for pair in pairs]
    vocabulary = states.Vocabulary(model)
    shown = []
    for i in np.argsort(margin, kind="stable")[: config.shown]:
        tokens = [[vocabulary(t) for t in ids[2 * i + side]] for side in (0, 1)]
        shown.append(
            ScoredPair(
                good=pairs[i].prompt, bad=pairs[i].target, log_p_good=totals[i, 0], log_p_bad=totals[i, 1],
                good_tokens=tokens[0], bad_tokens=tokens[1], good_values=log_p[2 * i], bad_values=log_p[2 * i + 1],
            )
        )  # fmt: skip
    groups = []
    for name in sorted({n for n in names if n is not None}):
        mine = [i for i, n in enumerate(names) if n == name]
        value = averages.mean(right[mine], seed=seed)
        groups.append(PairGroup(name=name, pairs=len(mine), accuracy=value, margin=float(margin[mine].mean())))
    finding = MinimalPairs(
        title=f"Minimal pairs under {model.identity.source}",
        technique=WHAT,
        accuracy=averages.mean(right, seed=seed),
        per_token=averages.mean(correct(means), seed=seed),
        shorter=float(correct(-lengths).mean()),
        margin=float(margin.mean()),
        pairs=len(pairs),
        groups=groups,
        scored=shown,
        how="log probability" if causal else "pseudo log likelihood",
        provenance={"seed": seed, "settings": config.model_dump(), "pairs": len(pairs)},
    )
    value, low, high = finding.accuracy
    text = (
        f"The good sentence is the likelier one in {percent(value)} of {len(pairs)} pairs (95 % interval {percent(low)}"
    )
    text += f" to {percent(high)}; chance is 50 %), by {finding.margin:+.2f} nats on average."
    if low <= 0.5 <= high:
        text += " That is within what chance gives."
    if abs(finding.shorter - 0.5) > 0.2 and abs(finding.per_token[0] - value) > 0.1:
        text += f" Length matters here: by the mean over tokens it is {percent(finding.per_token[0])}."
    return finding.model_copy(update={"summary": text})


def correct(scores: np.ndarray) -> np.ndarray:
    """[pair] 1 where the first of two scores is higher, a half where they are equal."""
    return (scores[:, 0] > scores[:, 1]) + 0.5 * (scores[:, 0] == scores[:, 1])


@torch.no_grad()
def causal_log_probs(model: Model, ids: Sequence[list[int]]) -> list[list[float | None]]:
    """Log probability of each token given those before it; None for the first, which nothing predicts."""
    out: list[list[float | None]] = [[] for _ in ids]
    for rows in track(length_batches([len(row) for row in ids], TOKENS_PER_BATCH), "scoring sentences"):
        logits = run(model, [ids[i] for i in rows]).logits
        for row, i in enumerate(rows):
            log_p = logits[row, : len(ids[i]) - 1].double().log_softmax(-1)
            wanted = torch.tensor(ids[i][1:], device=log_p.device)[:, None]
            out[i] = [None, *log_p.gather(-1, wanted)[:, 0].tolist()]
    return out


@torch.no_grad()
def masked_log_probs(model: Model, ids: Sequence[list[int]]) -> list[list[float | None]]:
    """Log probability of each token when it alone is masked; None for special tokens."""
    mask = getattr(model.tokenizer, "mask_token_id", None)
    if mask is None:
        raise BadInput(f"{WHAT}: the tokenizer has no mask token, which scoring by a masked language model needs")
    special = set(model.tokenizer.all_special_ids)  # type: ignore[union-attr]
    places = [(i, t) for i, row in enumerate(ids) for t, token in enumerate(row) if token not in special]
    out: list[list[float | None]] = [[None] * len(row) for row in ids]
    batches = length_batches([len(ids[i]) for i, _ in places], TOKENS_PER_BATCH)
    for part in track(batches, "scoring sentences"):
        rows = [[mask if n == t else token for n, token in enumerate(ids[i])] for i, t in (places[p] for p in part)]
        logits = run(model, rows).logits
        for row, p in enumerate(part):
            i, t = places[p]
            out[i][t] = float(logits[row, t].double().log_softmax(-1)[ids[i][t]])
    return out
