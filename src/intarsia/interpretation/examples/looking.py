"""From texts to the edits that change what a model says about them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from intarsia.errors import BadInput
from intarsia.interpretation import states
from intarsia.interpretation.examples.finding import EditedText, EditedTexts, summarise
from intarsia.interpretation.examples.search import Bounds, Search, Vocabulary
from intarsia.interpretation.explained import explain_text
from intarsia.measure import LabelTask
from intarsia.progress import track
from intarsia.sites import read

if TYPE_CHECKING:
    from intarsia.interpretation.examples.adversarial import AdversarialConfig
    from intarsia.interpretation.examples.counterfactual import CounterfactualConfig
    from intarsia.models import Model


def look(
    model: Model,
    records: Sequence[Any],
    bounds: Bounds,
    config: AdversarialConfig | CounterfactualConfig,
    *,
    technique: str,
    title: str,
    how: str,
    seed: int,
    target: str | None = None,
    encoder: Model | None = None,
    least: float = 0.0,
) -> EditedTexts:
    """Search an edit for each text; see `interpretation.adversarial` and `interpretation.counterfactual`."""
    chosen = states.choose(records, config.max_texts, seed, technique)
    task = LabelTask.zero_shot(config.labels, config.template) if config.labels else None
    first = explain_text(model, chosen[0], task=task)
    names = [c.name for c in first.choices]
    if len(names) < 2:
        raise BadInput(
            f"{technique} needs a model that chooses: one with a label task (adaptation.label, or a data set that has "
            "one), a sequence classifier's head, or labels to choose from (--labels good,bad)"
        )
    if target is not None and target not in names:
        raise BadInput(f"{technique}: no choice '{target}'; there are: {', '.join(names)}")
    vocabulary = Vocabulary(model, forbidden=names)
    goal = names.index(target) if target is not None else None
    found: list[EditedText] = []
    for record in track(chosen, "searching edits"):
        search = Search(explain_text(model, record, task=task), vocabulary, bounds, goal)
        if goal is not None and goal == search.now:
            continue  # it is what the model says already
        edited = search.result(search.run())
        if encoder is not None and edited.flipped:
            similarity = cosine(encoder, edited.text, edited.edited)
            edited = edited.model_copy(update={"similarity": similarity, "flipped": similarity >= least})
        found.append(edited)
    if not found:
        raise BadInput(f"{technique}: the model answers '{target}' for all {len(chosen)} texts already")
    finding = EditedTexts(
        title=title,
        technique=technique,
        edited=found,
        max_edits=bounds.max_edits,
        provenance={
            "seed": seed,
            "texts": len(chosen),
            "settings": config.model_dump(),
            "model": model.identity.source,
        },
    )
    return finding.model_copy(update={"summary": summarise(finding, how)})


@torch.no_grad()
def cosine(encoder: Model, one: str, other: str) -> float:
    """Of the two texts' mean last states under an encoder."""
    blocks = len(encoder.sites.blocks)
    site = f"{encoder.sites.main.prefix}layers.{blocks - 1}.resid_post"
    acts = read(encoder, [one, other], site)
    weight = acts.mask[..., None].to(acts[site])
    pooled = (acts[site] * weight).sum(1) / weight.sum(1)
    return float(torch.nn.functional.cosine_similarity(pooled[0], pooled[1], dim=0))
