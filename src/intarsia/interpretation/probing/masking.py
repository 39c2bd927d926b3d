"""The computation behind `interpretation.perturbed_masking`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from intarsia.errors import BadInput
from intarsia.interpretation import states
from intarsia.interpretation.divergence import kl
from intarsia.interpretation.explained import neutral_token
from intarsia.interpretation.probing import trees
from intarsia.interpretation.probing.perturbed_masking import ImpactMatrix, PerturbedMasking, PerturbedMaskingConfig
from intarsia.interpretation.wording import percent
from intarsia.progress import track
from intarsia.sites import read, run

if TYPE_CHECKING:
    from intarsia.models import Model

WHAT = "interpretation.perturbed_masking"


def look(model: Model, config: PerturbedMaskingConfig, records: Sequence[Any], seed: int) -> PerturbedMasking:
    """Impact matrices, one sentence after the other; see `interpretation.perturbed_masking`."""
    states.check_readable(model, WHAT)
    causal = states.is_causal(model)
    if config.distance == "auto":
        # States of causal models differ in length by orders of magnitude, the more the fewer tokens stand before.
        config = config.model_copy(update={"distance": "kl" if causal and states.has_head(model) else "state"})
    if config.distance != "state" and not states.has_head(model):
        raise BadInput(f"{WHAT}: {type(model.network).__name__} has no head over a vocabulary: distance=state")
    if not causal and getattr(model.tokenizer, "mask_token_id", None) is None:
        raise BadInput(f"{WHAT}: the tokenizer has no mask token, and {type(model.network).__name__} is not causal")
    chosen = states.choose(records, config.max_texts, seed, WHAT)
    limit = min(n for n in (config.max_tokens, model.context_length) if n)
    labelled = all(getattr(record, "label", None) for record in chosen)
    gold = trees.of_records(chosen, WHAT) if labelled else None
    read_words = []
    for i, record in enumerate(chosen, 1):
        words = states.text_of(record).split()
        if len(words) < 2:
            raise BadInput(f"{WHAT}: text {i} is a single word: wants sentences of two words or more")
        ids, positions = trees.word_positions(model, words, limit - int(causal), f"{WHAT}: text {i}")
        if causal and ids[0] not in model.tokenizer.all_special_ids:  # type: ignore[union-attr]
            # The first token serves a causal model as an attention sink: it should not be one of the words.
            named = [getattr(model.tokenizer, f"{name}_token_id", None) for name in ("bos", "eos")]
            begin = next((token for token in named if token is not None), neutral_token(model))
            ids, positions = [begin, *ids], [[p + 1 for p in mine] for mine in positions]
        read_words.append((words, ids, positions))
    site = model.sites.expand(f"{model.sites.main.prefix}layers.{config.layer}.resid_post")[0]
    sentences, spans = [], []
    for n, (words, ids, positions) in enumerate(track(read_words, "masking words")):
        matrix = (causal_impact if causal else masked_impact)(model, ids, positions, config, site)
        skip = gold[n].punctuation if gold is not None else ()
        # Impacts are similarities: the strongest tree is the shortest under their negative.
        edges = trees.spanning_tree(-symmetric(matrix), skip)
        spans.append(edges)
        sentences.append(
            ImpactMatrix(
                words=words,
                impact=[[None if np.isnan(v) else float(v) for v in line] for line in matrix],
                edges=sorted(edges),
                gold=sorted(gold[n].edges) if gold is not None else None,
            )
        )
    near, total = 0.0, 0.0
    for s in sentences:
        for i, line in enumerate(s.impact):
            near += sum(max(v, 0.0) for j, v in enumerate(line) if v is not None and abs(i - j) == 1)
            total += sum(max(v, 0.0) for v in line if v is not None)
    finding = PerturbedMasking(
        title=f"What matters for which word in {model.identity.source}",
        technique=WHAT,
        sentences=sentences,
        pictures=config.pictures,
        uuas=trees.uuas(spans, gold) if gold is not None else None,
        chain=trees.uuas([trees.chain(s) for s in gold], gold) if gold is not None else None,
        near=near / total if total else 0.0,
        causal=causal,
        distance=config.distance,
        provenance={"seed": seed, "settings": config.model_dump(), "texts": len(sentences)},
    )
    word, other = finding.strongest()[0][1:3]
    text = f"In the first of {len(sentences)} sentences '{other}' matters most for '{word}'."
    text += f" {percent(finding.near)} of all impact comes from neighbouring words."
    if finding.uuas is not None:
        text += f" The trees that impacts span hold {percent(finding.uuas)} of the gold edges; linking every word with"
        text += f" the next finds {percent(finding.chain or 0.0)}."
    if causal:
        text += " The model reads from left to right: only earlier words can matter."
    return finding.model_copy(update={"summary": text})


def symmetric(matrix: np.ndarray) -> np.ndarray:
    """Both directions averaged, or the one there is; zero on the diagonal."""
    both = np.stack([matrix, matrix.T])
    known = ~np.isnan(both)
    return np.where(known, both, 0.0).sum(0) / np.maximum(known.sum(0), 1)


@torch.no_grad()
def masked_impact(
    model: Model, ids: Sequence[int], positions: Sequence[Sequence[int]], config: PerturbedMaskingConfig, site: str
) -> np.ndarray:
    """[i, j] impact of word j on word i: i masked against i and j masked. NaN on the diagonal.

    A word of several tokens is masked whole, and its state is their mean."""
    mask = int(model.tokenizer.mask_token_id)  # type: ignore[union-attr]
    count = len(positions)
    # Variant (i, i) masks i alone.
    pairs = [(i, j) for i in range(count) for j in range(count)]
    variants = []
    for i, j in pairs:
        row = list(ids)
        for place in (*positions[i], *positions[j]):
            row[place] = mask
        variants.append(row)
    seen = _look(model, variants, [list(positions[i]) for i, _ in pairs],
                 [[ids[p] for p in positions[i]] for i, _ in pairs], config, site)  # fmt: skip
    out = np.full((count, count), np.nan)
    for (i, j), value in zip(pairs, seen, strict=True):
        if i != j:
            out[i, j] = _distance(seen[i * count + i], value, config.distance)
    return out


@torch.no_grad()
def causal_impact(
    model: Model, ids: Sequence[int], positions: Sequence[Sequence[int]], config: PerturbedMaskingConfig, site: str
) -> np.ndarray:
    """[i, j] impact of word j on the prediction of word i > j: from the text before i, and from the same without j. NaN
    for j >= i."""
    count = len(positions)
    out = np.full((count, count), np.nan)
    for i, mine in enumerate(positions):
        # Up to the word's first token: later ones have read some of the word itself.
        before = list(range(mine[0]))
        kept = [before, *([p for p in before if p not in positions[j]] for j in range(i))]
        rows = [[ids[p] for p in row] for row in kept]
        seen = _look(model, rows, [[len(row) - 1] for row in rows], [[ids[mine[0]]]] * len(rows), config, site)
        for j in range(i):
            out[i, j] = _distance(seen[0], seen[j + 1], config.distance)
    return out


def _look(
    model: Model, rows: list[list[int]], places: list[list[int]], tokens: list[list[int]],
    config: PerturbedMaskingConfig, site: str,
) -> list[Tensor]:  # fmt: skip
    """What each row says at its places: the mean state [width], the probabilities of its tokens there [token], or the
    log probabilities [token, vocabulary]."""
    out = []
    for start in range(0, len(rows), config.batch_size):
        part = slice(start, start + config.batch_size)
        if config.distance == "state":
            states_of = read(model, rows[part], site)[site]
            out += [s[p].double().mean(0).cpu() for s, p in zip(states_of, places[part], strict=True)]
        else:
            logits = run(model, rows[part]).logits
            for line, p, t in zip(logits, places[part], tokens[part], strict=True):
                log_p = line[p].double().log_softmax(-1)
                if config.distance == "probability":
                    log_p = log_p.gather(-1, torch.tensor(t, device=log_p.device)[:, None])[:, 0].exp()
                out.append(log_p.cpu())
    return out


def _distance(before: Tensor, after: Tensor, kind: str) -> float:
    if kind == "kl":
        return float(kl(before, after).mean())
    return float((before - after).norm()) if kind == "state" else float((before - after).mean())
