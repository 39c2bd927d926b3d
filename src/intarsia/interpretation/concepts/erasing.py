"""The computation behind `interpretation.erase`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from intarsia.errors import BadInput
from intarsia.interpretation import averages, places, states
from intarsia.interpretation.concepts.erase import Erase, EraseConfig, EraseLayer
from intarsia.interpretation.erasure import Eraser, leace, ledoit_wolf
from intarsia.interpretation.outcomes import outcome
from intarsia.interpretation.places import Placed
from intarsia.interpretation.probing import classifier
from intarsia.interpretation.probing.causal import edit
from intarsia.interpretation.uncertainty.judging import auroc
from intarsia.progress import track
from intarsia.sites import Edit, read, resume

if TYPE_CHECKING:
    from intarsia.models import Model

WHAT = "interpretation.erase"


def look(
    model: Model,
    config: EraseConfig,
    positive: Sequence[Any],
    negative: Sequence[Any],
    records: Sequence[Any],
    seed: int,
) -> Erase:
    """Fit erasers on half of the examples, measure on the other half and on the texts; see `interpretation.erase`."""
    classifier.sklearn()
    states.check_readable(model, WHAT)
    count = states.layer_count(model)
    erased = sorted(set(config.layers)) or list(range(count))
    if wrong := [layer for layer in erased if not 0 <= layer < count]:
        raise BadInput(f"{WHAT}: layer {wrong[0]} does not exist: there are 0 to {count - 1}")
    sets = []
    for name, given in (("positive", positive), ("negative", negative)):
        sets.append(states.choose(given, config.max_texts, seed, f"{WHAT}: {name}"))
        if len(sets[-1]) < 4:
            raise BadInput(f"{WHAT}: {len(sets[-1])} {name} texts were given: wants four or more (half fit, half test)")
    chosen = states.choose(records, config.max_texts, seed, WHAT)
    judged = outcome(model, chosen, config.measure, word=config.word, target=config.target,
                     max_tokens=config.max_tokens, seed=seed, what=WHAT)  # fmt: skip
    examples = places.placed(model, [*sets[0], *sets[1]], config.at, max_tokens=config.max_tokens, what=WHAT)
    y = np.array([1] * len(sets[0]) + [0] * len(sets[1]))
    generator = np.random.default_rng(seed)
    fitted = np.zeros(len(y), dtype=bool)
    for k in (0, 1):
        rows = generator.permutation(np.flatnonzero(y == k))
        fitted[rows[: len(rows) // 2]] = True
    training, test = (examples.part(np.flatnonzero(rows).tolist()) for rows in (fitted, ~fitted))
    base, base_hits = judged.measure(task="measuring")
    readable = [probes(model, config, test, y[~fitted], [], seed)]
    losses, hits = [], []
    marks = [y[fitted], *(generator.permutation(y[fitted]) for _ in range(config.draws))]
    for mark in track(marks, "erasing"):
        edits = erasers(model, config, training, mark, erased)
        readable.append(probes(model, config, test, y[~fitted], edits, seed))
        loss, hit = judged.measure(edits)
        losses.append(loss)
        hits.append(hit)
    groups = [getattr(record, "group", None) for record in chosen]
    finding = Erase(
        title=f"{model.identity.source} without the concept",
        technique=WHAT,
        layers=[
            EraseLayer(layer=n, before=readable[0][n], after=readable[1][n],
                       shuffled=float(np.mean([r[n] for r in readable[2:]])))
            for n in range(count)
        ],
        erased=erased,
        name=judged.name,
        loss=float(base.mean()),
        hits=float(base_hits.mean()),
        rise=averages.mean((losses[0] - base).numpy(), groups if len(groups) == len(judged) else None, seed=seed),
        hits_after=float(hits[0].mean()),
        shuffled_rise=float(torch.stack(losses[1:]).mean() - base.mean()),
        shuffled_hits=float(torch.stack(hits[1:]).mean()),
        texts=len(judged),
        provenance={"seed": seed, "settings": config.model_dump(), "texts": len(judged), "examples": len(y)},
    )  # fmt: skip
    return finding.model_copy(update={"summary": summarise(finding)})


def erasers(model: Model, config: EraseConfig, texts: Placed, y: np.ndarray, layers: Sequence[int]) -> list[Edit]:
    """An eraser a layer, each fitted on states that those below have changed. Every block runs once."""
    marks = torch.from_numpy(y).double()[:, None]
    sites = [states.site_name(model.sites, layer, "resid_post") for layer in layers]
    starts = range(0, len(texts), config.batch_size)
    parts = [read(model, texts.ids[s : s + config.batch_size], sites[0]) for s in starts]
    edits: list[Edit] = []
    for n, (layer, site) in enumerate(zip(layers, sites, strict=True)):
        if n:
            # On from where the last eraser left the stream.
            before = layers[n - 1]
            parts = [resume(model, acts, after=before, state=acts[sites[n - 1]], at=site) for acts in parts]
        rows = [
            acts[site][row, texts.at[start + row]].double().mean(0).cpu()
            for start, acts in zip(starts, parts, strict=True)
            for row in range(acts.batch.size)
        ]
        x = torch.stack(rows)
        eraser = leace(x, marks, ledoit_wolf(x))
        edits.append(edit(model, layer, eraser))
        parts = [acts.replace(site, _but_first(acts[site], eraser)) for acts in parts]
    return edits


def _but_first(state: Tensor, eraser: Eraser) -> Tensor:
    """What `edit` does: the eraser at every token of [text, token, width] but the first."""
    return torch.cat([state[:, :1], eraser(state[:, 1:])], dim=1)


def probes(
    model: Model, config: EraseConfig, texts: Placed, y: np.ndarray, edits: Sequence[Edit], seed: int
) -> list[float]:
    """AUROC of a new probe on each layer's states under the edits, cross-validated over the texts."""
    count = states.layer_count(model)
    x = places.collect(model, texts, range(count), batch_size=config.batch_size, edits=edits, task="")
    folds = classifier.split(y, np.arange(len(y)), config.folds, seed)
    return [auroc(held_out_scores(x[:, n].double(), y, folds), y == 1) for n in range(count)]


def held_out_scores(x: Tensor, y: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """[text] log odds of the positive set under a probe fitted on the other folds."""
    out = np.zeros(len(y))
    for fold in np.unique(folds):
        test = folds == fold
        if len(np.unique(y[~test])) < 2:
            continue
        probe = classifier.fit(x[torch.from_numpy(~test)].numpy(), y[~test], np.flatnonzero(~test), 2, strength=0.01)
        log_p = probe.log_probabilities(x[torch.from_numpy(test)].numpy())
        out[test] = log_p[:, 1] - log_p[:, 0]
    return out


def summarise(finding: Erase) -> str:
    """What probes read before and after, and the price beside that of a meaningless erasure."""
    where = [row for row in finding.layers if row.layer in finding.erased]
    best = max(where, key=lambda row: row.before)
    last = finding.layers[-1]
    text = f"A new probe at layer {best.layer} falls from an AUROC of {best.before:.2f} to {best.after:.2f}"
    if last.layer != best.layer:
        text += f", in the last layer from {last.before:.2f} to {last.after:.2f}"
    text += f". The {finding.name} is {finding.loss:.3f} nats and changes by {finding.rise[0]:+.3f} (95 %"
    text += f" interval {finding.rise[1]:+.3f} to {finding.rise[2]:+.3f}); erasing shuffled examples changes it by"
    text += f" {finding.shuffled_rise:+.3f}."
    if best.before < 0.6:
        text += " The probes read nothing of the concept to begin with: that says nothing about it."
    elif best.after > 0.5 + 0.7 * (best.before - 0.5):
        text += " The erasure hardly carries over to held-out examples: give more of them."
    elif finding.rise[1] <= finding.shuffled_rise:
        text += " The model does not seem to need the concept for these texts."
    return text
