"""The computation behind `interpretation.ablate`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from intarsia.errors import BadInput
from intarsia.interpretation import averages, states
from intarsia.interpretation.evaluation.correlation import spearman
from intarsia.interpretation.neurons.ablate import MANY, ONE, Ablate, AblateConfig, Ablated, Together
from intarsia.interpretation.neurons.removing import Component, Remover
from intarsia.interpretation.outcomes import outcome

if TYPE_CHECKING:
    from intarsia.models import Model

WHAT = "interpretation.ablate"


def look(model: Model, config: AblateConfig, records: Sequence[Any], seed: int) -> Ablate:
    """Measure, take out, rank; see `interpretation.ablate`."""
    states.check_readable(model, WHAT)
    chosen = states.choose(records, config.max_texts, seed, WHAT)
    judged = outcome(
        model, chosen, config.measure, word=config.word, max_tokens=config.max_tokens, seed=seed, what=WHAT
    )
    remover = Remover(model, judged, config.what, config.how, seed, config.first)
    everything = remover.components()
    tried = chosen_components(config, remover)
    base, base_hits = judged.measure()
    estimate = None
    if config.what == "neurons" and len(tried) > config.candidates:
        estimates = dict(zip(everything, remover.estimates().tolist(), strict=True))
        tried = sorted(tried, key=lambda c: -abs(estimates[c]))[: config.candidates]
    loss, hits = remover.without([[c] for c in tried])
    rises = loss - base
    found = [
        Ablated(
            layer=layer, number=number, hits=float((hits[n] - base_hits).mean()),
            rise=averages.mean(rises[n].numpy(), seed=seed, draws=500),
        )
        for n, (layer, number) in enumerate(tried)
    ]  # fmt: skip
    if config.what == "neurons" and len(everything) > len(tried) > 2 and not config.only:
        estimate = float(np.nan_to_num(spearman([estimates[c] for c in tried], rises.mean(1).numpy())))
    order = [tried[i] for i in rises.mean(1).argsort(descending=True).tolist()]
    finding = Ablate(
        title=f"{model.identity.source} without some of its {MANY[config.what]}",
        technique=WHAT,
        what=config.what,
        how=config.how,
        loss=judged.name,
        base=float(base.mean()),
        base_hits=float(base_hits.mean()),
        components=found,
        all=len(everything),
        together=several(remover, order, everything, config, base, seed),
        estimate=estimate,
        texts=len(judged),
        show=config.show,
        provenance={"seed": seed, "settings": config.model_dump(), "texts": len(judged)},
    )
    return finding.model_copy(update={"summary": summarise(finding)})


def chosen_components(config: AblateConfig, remover: Remover) -> list[Component]:
    """The components that the settings name. Raises `BadInput` for one that does not exist."""
    everything = remover.components()
    for layer in config.layers:
        if layer not in remover.layers:
            raise BadInput(f"{WHAT}: layer {layer} has no {config.what}: there are layers {_range(remover.layers)}")
    if not config.only:
        return [c for c in everything if not config.layers or c[0] in config.layers]
    known, out = set(everything), []
    whole = config.what not in ("heads", "neurons")
    for name in config.only:
        layer, _, number = name.partition(":")
        wanted = "a layer, as in 7" if whole else "layer:number, as in 7:3"
        if not layer.strip().isdigit() or (not whole and not number.strip().isdigit()) or (whole and number):
            raise BadInput(f"{WHAT}: '{name}' names none of the {config.what}: wants {wanted}")
        component = (int(layer), -1 if whole else int(number))
        if component not in known:
            there = f"layers {_range(remover.layers)}"
            if not whole and component[0] in remover.sizes:
                there = f"layer {component[0]} has 0 to {remover.sizes[component[0]] - 1}"
            raise BadInput(f"{WHAT}: '{name}' does not exist among the {config.what}: {there}")
        out.append(component)
    return list(dict.fromkeys(out))


def several(
    remover: Remover, order: Sequence[Component], everything: Sequence[Component], config: AblateConfig,
    base: torch.Tensor, seed: int,
) -> list[Together]:  # fmt: skip
    """The n most damaging out at once, for n = 1, 2, 4, ..., and random sets of as many."""
    most = min(config.together, len(order), len(everything) - 1)
    counts = [1 << k for k in range(most.bit_length()) if 1 << k <= most]
    if not counts:
        return []
    generator = np.random.default_rng(seed)
    sets: list[Sequence[Component]] = []
    for count in counts:
        sets.append(order[:count])
        sets += [
            [everything[i] for i in generator.choice(len(everything), count, replace=False)]
            for _ in range(config.draws)
        ]
    rise = (remover.without(sets, "ablating several")[0] - base).mean(1).tolist()
    out = []
    for n, count in enumerate(counts):
        start = n * (config.draws + 1)
        others = rise[start + 1 : start + 1 + config.draws]
        out.append(
            Together(count=count, rise=rise[start], random=float(np.mean(others)), low=min(others), high=max(others))
        )
    return out


def _range(layers: Sequence[int]) -> str:
    return f"{layers[0]} to {layers[-1]}"


def summarise(finding: Ablate) -> str:
    """What is missed most, against what is usual and against random sets."""
    ranked = finding.ranked()
    worst = ranked[0]
    text = f"The {finding.loss} is {finding.base:.3f} nats; without {ONE[finding.what]} {worst.name} it"
    text += f" changes by {worst.rise[0]:+.3f}"
    text += f" (95 % interval {worst.rise[1]:+.3f} to {worst.rise[2]:+.3f}), the most of {len(ranked)} that were tried"
    middle = sorted(c.rise[0] for c in ranked)[len(ranked) // 2]
    text += f"; the median is {middle:+.4f}."
    if worst.rise[1] <= 0:
        text += " That is within the noise of these texts."
    if finding.together:
        last = finding.together[-1]
        if last.count > 1:
            text += (
                f" The {last.count} most damaging together cost {last.rise:.3f} nats, random ones {last.random:.3f}."
            )
    if finding.estimate is not None:
        text += f" Candidates were chosen by a first-order estimate (Spearman {finding.estimate:.2f} with the "
        text += "measured rise)."
    return text
