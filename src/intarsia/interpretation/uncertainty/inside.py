"""Signals from inside the network: what late layers add to an answer, and what a linear probe reads off states."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from intarsia.errors import MissingExtra, Note
from intarsia.interpretation import states
from intarsia.interpretation.continuing import TOKENS_PER_BATCH
from intarsia.progress import track
from intarsia.sites import read

if TYPE_CHECKING:
    from intarsia.models import Model

PLAUSIBLE = 0.1


def early_layers(depth: int) -> list[int]:
    """The layers a contrast may be made with: every second of the upper half, without the last."""
    return list(range(depth - 3, depth // 2 - 1, -2))[::-1] or [max(0, depth - 2)]


@torch.no_grad()
def look_inside(
    model: Model, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]], layers: Sequence[int]
) -> tuple[list[float], Tensor]:
    """(layer contrast of each answer, states [answer, layer, width] at each answer's last token, float32)."""
    depth = states.layer_count(model)
    early = early_layers(depth)
    wanted = sorted({*early, *layers, depth - 1})
    names = {layer: states.site_name(model.sites, layer, "resid_post") for layer in wanted}
    contrasts: list[float] = []
    last: list[Tensor] = []
    rows = [[*p, *a] for p, a in zip(prompts, answers, strict=True)]
    size = max(1, TOKENS_PER_BATCH // max(map(len, rows)))
    for start in track(range(0, len(rows), size), "reading the layers"):
        part = rows[start : start + size]
        acts = read(model, part, list(names.values()))
        for i, row in enumerate(part):
            tail = list(answers[start + i])
            at = slice(len(row) - len(tail) - 1, len(row) - 1)  # the positions that the answer's tokens follow
            final = states.logits(model, acts[names[depth - 1]][i, at]).cpu()
            others = torch.stack([states.logits(model, acts[names[layer]][i, at]).cpu() for layer in early])
            contrasts.append(float(contrast(final, others, torch.tensor(tail)).mean()))
            last.append(torch.stack([acts[names[layer]][i, len(row) - 1].float().cpu() for layer in layers]))
    return contrasts, torch.stack(last)


def contrast(final: Tensor, early: Tensor, tokens: Tensor) -> Tensor:
    """DoLa's log probability of tokens [n]: how much the last layer prefers them to an early one.

    final: [n, vocabulary] logits; early: [layer, n, vocabulary]. At each token the early layer is the one with the
    largest Jensen-Shannon divergence from the last; the score is the log softmax of log p_final - log p_early over the
    tokens with at least a tenth of the highest probability (Chuang et al. 2023, equations 2-5). A token outside them
    counts as their least."""
    log_p = final.double().log_softmax(-1)
    log_q = early.double().log_softmax(-1)
    mean = torch.logaddexp(log_p.expand_as(log_q), log_q) - np.log(2)
    divergence = 0.5 * ((log_p.exp() * (log_p - mean)).sum(-1) + (log_q.exp() * (log_q - mean)).sum(-1))
    chosen = log_q[divergence.argmax(0), torch.arange(len(final), device=final.device)]
    head = log_p >= log_p.max(-1, keepdim=True).values + np.log(PLAUSIBLE)
    scores = torch.where(head, log_p - chosen, -torch.inf).log_softmax(-1)
    own = scores.gather(-1, tokens[:, None])[:, 0]
    lowest = torch.where(head, scores, torch.inf).min(-1).values
    return torch.where(own > -torch.inf, own, lowest)


def probe(
    hidden: Tensor, right: np.ndarray, groups: Sequence[str | None], *, folds: int, strength: float, seed: int
) -> np.ndarray | None:
    """[layer, answer]: probability of being right, by a logistic regression that did not see the answer.

    hidden: [answer, layer, width]. States are standardised in each fold; folds keep groups whole. None where there are
    fewer right or wrong answers than folds. Raises `MissingExtra` without scikit-learn."""
    try:
        from sklearn.linear_model import LogisticRegression
        from sklearn.model_selection import StratifiedGroupKFold
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    except ImportError:
        raise MissingExtra("the truth probe", "quality") from None
    from intarsia.measure.intervals import group_numbers

    if min(right.sum(), (~right).sum()) < folds:
        return None
    found = np.zeros((hidden.shape[1], len(right)))
    splits = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    cuts = list(splits.split(np.zeros(len(right)), right, group_numbers(groups)))
    if any(len(set(right[train])) < 2 for train, _ in cuts):
        return None
    for layer in track(range(hidden.shape[1]), "fitting probes"):
        x = hidden[:, layer].double().numpy()
        for train, test in cuts:
            model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=500))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", category=RuntimeWarning)
                model.fit(x[train], right[train])
            found[layer, test] = model.predict_proba(x[test])[:, 1]
    return found


def tell_no_probe(right: np.ndarray, folds: int) -> None:
    """Note why there is no probe."""
    few = min(int(right.sum()), int((~right).sum()))
    warnings.warn(f"no truth probe: {few} answers of the rarer kind are too few for {folds} folds", Note, stacklevel=3)
