"""The causal check behind a probe: erase what it reads, and see what the model then does.

Source: Elazar et al. 2021, "Amnesic Probing", section 3, with LEACE in place of repeated nullspace projection. The
control erases as many directions that were fitted in the same way to shuffled labels, and so is as large an edit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from intarsia.errors import BadInput
from intarsia.interpretation import outcomes, places, states
from intarsia.interpretation.divergence import kl_terms
from intarsia.interpretation.erasure import Eraser, leace, ledoit_wolf, one_hot
from intarsia.interpretation.places import Placed
from intarsia.interpretation.probing import classifier
from intarsia.interpretation.probing.probe import Erased, ProbeConfig
from intarsia.progress import track
from intarsia.sites import Apply, Edit, run

if TYPE_CHECKING:
    from intarsia.models import Model


def erase_and_compare(
    model: Model, config: ProbeConfig, records: Sequence[Any], texts: Placed, x: np.ndarray, y: np.ndarray,
    groups: np.ndarray, folds: np.ndarray, names: Sequence[str], layer: int, seed: int,
) -> list[Erased]:  # fmt: skip
    """Nothing erased, the label erased, random labels erased, at `layer` whose states are x [text, width].

    Erasers are fitted on half of the folds, and all figures are of the other half."""
    generator = np.random.default_rng(seed)
    fitted_on = folds < (folds.max() + 1) / 2
    held = np.flatnonzero(~fitted_on)
    rows = np.sort(generator.permutation(held)[: config.causal_texts]).tolist()
    some, rest = texts.part(rows), texts.part(held.tolist())
    base = distributions(model, some)
    outcome = _label_outcome(model, [records[i] for i in rows], config)
    states_of, labels_of = torch.from_numpy(x[fitted_on]), y[fitted_on]
    shrinkage = ledoit_wolf(states_of)

    def eraser_of(labels: np.ndarray) -> Eraser:
        return leace(states_of, one_hot(torch.from_numpy(labels), len(names)), shrinkage)

    def new_probe(at: np.ndarray) -> float | None:
        there, around = y[held], groups[held]
        if len(np.unique(there)) < 2 or len(np.unique(around)) < 2:
            return None
        parts = classifier.split(there, around, config.folds, seed)
        settings: dict[str, Any] = {"strength": config.strength, "seed": seed}
        return float((classifier.cross_validated(at, there, around, parts, len(names), **settings) == there).mean())

    shuffled = [eraser_of(generator.permutation(labels_of)) for _ in range(config.draws)]
    last = states.layer_count(model) - 1
    found = []
    for eraser in track([None, eraser_of(labels_of), *shuffled], "erasing"):
        edits = [] if eraser is None else [edit(model, layer, eraser)]
        here = torch.from_numpy(x[held])
        later = None
        if last > layer:
            at = places.collect(model, rest, [last], batch_size=config.batch_size, edits=edits, task="")
            later = new_probe(at[:, 0].double().numpy())
        log_p = base if eraser is None else distributions(model, some, edits)
        loss = right = None
        if outcome is not None:
            values, hits = outcome.measure(edits)
            loss, right = float(values.mean()), float(hits.mean())
        found.append(
            Erased(
                what="nothing" if eraser is None else "the label",
                rank=0 if eraser is None else eraser.rank,
                accuracy=new_probe((here if eraser is None else eraser(here)).numpy()),
                later=later,
                kl=float(kl_terms(base.exp(), base, log_p).mean()),
                changed=float((base.argmax(-1) != log_p.argmax(-1)).double().mean()),
                loss=loss,
                right=right,
            )
        )
    return [*found[:2], _average(found[2:])]


def _average(found: Sequence[Erased]) -> Erased:
    values: dict[str, Any] = {"what": f"random labels (mean of {len(found)})", "rank": found[0].rank}
    for name in ("accuracy", "later", "kl", "changed", "loss", "right"):
        numbers = [getattr(one, name) for one in found]
        values[name] = None if numbers[0] is None else float(np.mean(numbers))
    return Erased(**values)


def edit(model: Model, layer: int, eraser: Eraser) -> Edit:
    """The eraser at every token but the first after block `layer`.

    The first token of a text is an attention sink: its state, a hundred times as long as others, was not fitted on, and
    erasing a direction from it would break the model whatever the direction."""
    return Apply(states.site_name(model.sites, layer, "resid_post"), at=slice(1, None), function=eraser)


def _label_outcome(model: Model, records: Sequence[Any], config: ProbeConfig) -> outcomes.Outcome | None:
    if config.at == "marked":
        return None
    try:
        return outcomes.outcome(model, records, "label", max_tokens=config.max_tokens)
    except BadInput:
        return None  # the model gives no labels, or others: its distribution has to do


@torch.no_grad()
def distributions(model: Model, texts: Placed, edits: Sequence[Edit] = ()) -> Tensor:
    """Log probabilities [text, vocabulary] (or [text, class]) float32 at the last position of each place."""
    order = sorted(range(len(texts)), key=lambda i: len(texts.ids[i]))
    out: list[Tensor] = [torch.empty(0)] * len(texts)
    for start in range(0, len(order), 8):
        rows = order[start : start + 8]
        result = run(model, [texts.ids[i] for i in rows], edits)
        scores = result.logits
        for n, i in enumerate(rows):
            line = scores[n] if scores.dim() == 2 else scores[n, texts.at[i][-1]]
            out[i] = line.double().log_softmax(-1).float().cpu()
    return torch.stack(out).double()
