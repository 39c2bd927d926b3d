"""The computation behind `interpretation.tcav`."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from intarsia.errors import BadInput
from intarsia.interpretation import states
from intarsia.interpretation.concepts.learning import direction, examples
from intarsia.interpretation.concepts.tcav import Tcav, TcavConfig, TcavLayer
from intarsia.interpretation.outcomes import Outcome, outcome
from intarsia.interpretation.probing import classifier
from intarsia.interpretation.wording import percent
from intarsia.progress import track

if TYPE_CHECKING:
    from intarsia.models import Model

WHAT = "interpretation.tcav"


def look(
    model: Model,
    config: TcavConfig,
    positive: Sequence[Any],
    negative: Sequence[Any],
    records: Sequence[Any],
    seed: int,
) -> Tcav:
    """Gradients once, then as many directions as one likes; see `interpretation.tcav`."""
    classifier.sklearn()
    states.check_readable(model, WHAT)
    chosen = states.choose(records, config.max_texts, seed, WHAT)
    judged = outcome(model, chosen, config.measure, word=config.word, target=config.target,
                     max_tokens=config.max_tokens, seed=seed, what=WHAT)  # fmt: skip
    if config.at == "last" and judged.mean:
        raise BadInput(f"{WHAT}: the loss of a text's own tokens is read everywhere: at=mean, or measure label or word")
    layers = states.spaced(states.layer_count(model), config.stride)
    x, y, _ = examples(model, positive, negative, config, config.at, seed, WHAT)
    gradients = text_gradients(judged, layers, config.at)
    generator = np.random.default_rng(seed)
    draws = [redrawn(y, generator) for _ in range(config.runs)]
    shuffled = [generator.permutation(y) for _ in range(config.runs)]
    rows, ps = [], []
    for n, layer in enumerate(track(layers, "learning directions")):
        at = x[:, layer].double()
        own = torch.stack([direction(at[rows_], y[rows_], config.method) for rows_ in draws])
        other = torch.stack([direction(at, s, config.method) for s in shuffled])
        whole = direction(at, y, config.method)
        along = at @ whole
        gap = float(along[torch.from_numpy(y == 1)].mean() - along[torch.from_numpy(y == 0)].mean())
        g = gradients[:, n].double()
        steep = [(g @ d.T).mean(0).numpy() for d in (whole[None], other)]
        scores, random = ((g @ d.T > 0).double().mean(0).numpy() for d in (own, other))
        ps.append(t_test(scores, random))
        ends = [np.quantile(s, [0.025, 0.975]) for s in (scores, random)]
        rows.append(
            TcavLayer(
                layer=layer, score=scores.mean(), low=ends[0][0], high=ends[0][1], random=random.mean(),
                random_low=ends[1][0], random_high=ends[1][1], p=1.0, rank=rank_p(float(steep[0][0]), steep[1]),
                slope=float((g @ whole).mean() * gap),
            )
        )  # fmt: skip
    rows = [row.model_copy(update={"p": p}) for row, p in zip(rows, holm(ps), strict=True)]
    answer = judged.name.removeprefix("loss of ").replace("loss a token", "the texts' own tokens")
    if config.target is not None:
        answer = f"the label '{config.target}'"
    finding = Tcav(
        title=f"Is {model.identity.source} sensitive to the concept?",
        technique=WHAT,
        layers=rows,
        answer=answer,
        texts=len(judged),
        runs=config.runs,
        provenance={"seed": seed, "settings": config.model_dump(), "texts": len(judged), "examples": len(y)},
    )
    return finding.model_copy(update={"summary": summarise(finding)})


def text_gradients(judged: Outcome, layers: Sequence[int], at: str) -> Tensor:
    """[text, layer, width] derivative of the answer's log probability by the stream after each layer.

    `mean`: by a step that every token but the first takes (the sum over tokens); `last`: by a step at the token from
    which the answer is read."""
    model = judged.model
    names = [states.site_name(model.sites, layer, "resid_post") for layer in layers]
    width = model.sites.main.width
    out = torch.empty(len(judged), len(layers), width)
    for rows in track(judged.batches, "differentiating"):
        _, found = judged.gradients(rows, names, [width] * len(names))
        for row, i in enumerate(rows):
            length = len(judged.ids[i])
            where = list(range(1, length)) or [0]
            if at == "last":
                first = judged.steps[i][0][0]
                where = [first if first >= 0 else length - 1]
            for n, gradient in enumerate(found):
                out[i, n] = -gradient[row, where].sum(0)  # of log p, which is minus the loss
    return out


def redrawn(y: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Rows drawn with replacement from each of the two sets."""
    return np.concatenate([generator.choice(np.flatnonzero(y == k), int((y == k).sum())) for k in (1, 0)])


def t_test(a: np.ndarray, b: np.ndarray) -> float:
    """p of the two-sided Welch t-test; 1 or 0 where neither varies."""
    if a.std() < 1e-12 and b.std() < 1e-12:
        return 1.0 if abs(a.mean() - b.mean()) < 1e-12 else 0.0
    from scipy import stats  # a dependency of scikit-learn

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scores that are all alike on one side
        return float(stats.ttest_ind(a, b, equal_var=False).pvalue)


def rank_p(slope: float, random: np.ndarray) -> float:
    """Share of slopes, this one and the random ones, that are at least as steep as it, whichever way."""
    return float((1 + (np.abs(random) >= abs(slope)).sum()) / (1 + len(random)))


def holm(ps: Sequence[float]) -> list[float]:
    """p values corrected for their number, step by step from the smallest (Holm 1979)."""
    order = np.argsort(ps)
    out, highest = [1.0] * len(ps), 0.0
    for place, i in enumerate(order):
        highest = max(highest, min(1.0, (len(ps) - place) * ps[i]))
        out[i] = highest
    return out


def summarise(finding: Tcav) -> str:
    """At which layers the answer is sensitive, and which way."""
    count = sum(row.significant for row in finding.layers)
    row = finding.strongest()
    if not count:
        return (
            f"In no layer is {finding.answer} more sensitive to the concept than to {finding.runs} random "
            f"directions (the score furthest from one half is {row.score:.2f} at layer {row.layer}; random: "
            f"{row.random_low:.2f} to {row.random_high:.2f})."
        )
    way = "likelier" if row.score > 0.5 else "less likely"
    share = row.score if row.score > 0.5 else 1 - row.score
    text = f"Along the concept {finding.answer} gets {way} in {percent(share)} of {finding.texts} texts at layer "
    text += f"{row.layer}"
    text += f" (random directions score {row.random_low:.2f} to {row.random_high:.2f})"
    return f"{text}; the difference is significant in {count} of {len(finding.layers)} layers."
