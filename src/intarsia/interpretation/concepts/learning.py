"""From two sets of texts to directions and erasers: the computation behind `interpretation.concept`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from intarsia.errors import BadInput
from intarsia.interpretation import places, states
from intarsia.interpretation.concepts.concept import ConceptConfig, ConceptLayer, LearnConcept
from intarsia.interpretation.concepts.vectors import Concept
from intarsia.interpretation.erasure import leace, ledoit_wolf
from intarsia.interpretation.fitted import facts_of
from intarsia.interpretation.probing import classifier
from intarsia.interpretation.uncertainty.judging import auroc, interval
from intarsia.progress import track

if TYPE_CHECKING:
    from intarsia.models import Model

WHAT = "interpretation.concept"


def examples(
    model: Model, positive: Sequence[Any], negative: Sequence[Any], config: Any, at: places.Place, seed: int, what: str
) -> tuple[Tensor, np.ndarray, list[Any]]:
    """States [text, layer, width] of both sets in all layers, 1 or 0 for each text, and the records themselves."""
    sets = []
    for name, records in (("positive", positive), ("negative", negative)):
        chosen = states.choose(records, config.max_texts, seed, f"{what}: {name}")
        if len(chosen) < 2:
            raise BadInput(f"{what}: one {name} text was given: wants two or more of each set")
        sets.append(chosen)
    records = [*sets[0], *sets[1]]
    texts = places.placed(model, records, at, max_tokens=config.max_tokens, what=what)
    x = places.collect(model, texts, range(states.layer_count(model)), batch_size=config.batch_size)
    return x, np.array([1] * len(sets[0]) + [0] * len(sets[1])), records


def learn(model: Model, config: ConceptConfig, positive: Sequence[Any], negative: Sequence[Any], seed: int) -> Concept:
    """Directions, erasers and how well they tell; see `interpretation.concept`."""
    classifier.sklearn()
    states.check_readable(model, WHAT)
    x, y, records = examples(model, positive, negative, config, config.at, seed, WHAT)
    return of_states(model, x, y, config, [getattr(r, "group", None) for r in records], seed)


def of_states(
    model: Model, x: Tensor, y: np.ndarray, config: ConceptConfig, groups: Sequence[str | None], seed: int
) -> Concept:
    """The concept of states x [text, layer, width] with marks y [text] (1 positive, 0 negative)."""
    from intarsia.measure.intervals import group_numbers

    numbers = group_numbers(groups)
    folds = classifier.split(y, numbers, config.folds, seed)
    generator = np.random.default_rng(seed)
    shuffled = [generator.permutation(y) for _ in range(config.draws)]
    rows, parts = [], []
    for layer in track(range(x.shape[1]), "learning directions"):
        at = x[:, layer].double()
        d = direction(at, y, config.method)
        along = (at @ d).numpy()
        high, low = along[y == 1].mean(), along[y == 0].mean()
        eraser = leace(at, torch.from_numpy(y).double()[:, None], ledoit_wolf(at))
        rank = eraser.rank  # none where the two sets have the same mean
        zero = torch.zeros_like(d)
        parts.append((d, high - low, (high + low) / 2, eraser.read[:, 0] if rank else zero,
                      eraser.write[0] if rank else zero, eraser.mean))  # fmt: skip
        within = np.sqrt((along[y == 1].var() + along[y == 0].var()) / 2)
        held = held_out(at, y, folds, config.method)
        control = [auroc(held_out(at, s, folds, config.method), s == 1) for s in shuffled]
        rows.append(
            ConceptLayer(
                layer=layer, auroc=interval(auroc, held, y == 1, groups, seed=seed),
                control=float(np.nan_to_num(np.mean(control), nan=0.5)), gap=float(high - low),
                separation=float((high - low) / max(within, 1e-12)), norm=float(at.norm(dim=-1).median()),
            )
        )  # fmt: skip
    columns = [torch.stack([torch.as_tensor(part[i]) for part in parts]).float() for i in range(6)]
    finding = LearnConcept(
        title=f"A concept in {model.identity.source}",
        technique=WHAT,
        layers=rows,
        method=config.method,
        positives=int(y.sum()),
        negatives=int((1 - y).sum()),
        provenance={"seed": seed, "settings": config.model_dump(), "texts": len(y)},
    )
    finding = finding.model_copy(update={"summary": summarise(finding)})
    return Concept(*columns, method=config.method, at=config.at, model=facts_of(model), finding=finding)


def direction(x: Tensor, y: np.ndarray, method: str, seed: int = 0) -> Tensor:
    """The unit direction [width] float64 from the texts with y = 0 to those with y = 1, for states x [text, width].

    - mean: the difference of the two means. logistic: the normal of a logistic regression on standardised states, in
      the states' own coordinates. leace: what LEACE reads, the difference of means whitened twice (Fisher's
      discriminant)."""
    marks = torch.from_numpy(y)
    apart = x[marks == 1].mean(0) - x[marks == 0].mean(0)
    if method == "logistic":
        probe = classifier.fit(x.numpy(), y, np.arange(len(y)), 2, strength=0.01, seed=seed)
        d = torch.from_numpy((probe.weights[:, 1] - probe.weights[:, 0]) / probe.scale)
    elif method == "leace":
        eraser = leace(x, marks.double()[:, None], ledoit_wolf(x))
        d = eraser.read[:, 0] if eraser.rank else apart
    else:
        d = apart
    d = d / d.norm().clamp_min(1e-300)
    return d if float(d @ apart) >= 0 else -d


def held_out(x: Tensor, y: np.ndarray, folds: np.ndarray, method: str) -> np.ndarray:
    """[text] how far each text lies along a direction learnt from the other folds, in standard deviations from halfway
    between its two means."""
    out = np.zeros(len(y))
    for fold in np.unique(folds):
        test = folds == fold
        if len(np.unique(y[~test])) < 2:
            continue
        train = x[torch.from_numpy(~test)]
        d = direction(train, y[~test], method)
        along = (train @ d).numpy()
        middle = (along[y[~test] == 1].mean() + along[y[~test] == 0].mean()) / 2
        out[test] = ((x[torch.from_numpy(test)] @ d).numpy() - middle) / max(along.std(), 1e-12)
    return out


def summarise(finding: LearnConcept) -> str:
    """Where the direction tells best, and whether that is more than chance."""
    best = finding.best
    text = f"At layer {best.layer} the direction ranks a held-out positive text above a negative one with probability"
    text += f" {best.auroc[0]:.2f} (95 % interval {best.auroc[1]:.2f} to {best.auroc[2]:.2f}; chance is 0.50, shuffled"
    text += (
        f" labels give {best.control:.2f}), learnt from {finding.positives} positive and {finding.negatives} negative"
    )
    text += " texts."
    if best.auroc[1] <= 0.5:
        text += " That is within what chance gives: it is not a direction to build on."
    elif min(finding.positives, finding.negatives) < 20:
        text += " With so few texts it may have picked up an accident of theirs."
    return text
