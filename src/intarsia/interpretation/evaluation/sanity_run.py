"""The computation behind `interpretation.sanity`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from intarsia.interpretation.evaluation import stability, variants
from intarsia.interpretation.evaluation.sanity import Sanity, SanityConfig, SanityRow
from intarsia.interpretation.evaluation.texts import Asker, groups_of, interval, prepare, text_seed
from intarsia.progress import track

if TYPE_CHECKING:
    from intarsia.models import Model


def look(model: Model, config: SanityConfig, records: Sequence[Any], seed: int) -> Sanity:
    """Explain every text in ever more random models; see `interpretation.sanity`."""
    askers = [Asker(m, config.settings) for m in dict.fromkeys(config.methods)]
    chosen, texts = prepare(model, records, config, seed, "interpretation.sanity")
    groups = groups_of(chosen)
    depth = len(list(model.sites.blocks))
    counts = sorted({max(1, round(depth * (i + 1) / config.steps)) for i in range(config.steps)})
    seeds = [text_seed(seed, number) for number in range(len(texts))]
    own = {ask.method.name: [ask(e, s) for e, s in zip(texts, seeds, strict=True)] for ask in askers}
    rows = []
    for count in track(counts, "explaining random models"):
        found: dict[str, list[list[tuple[float, float]]]] = {ask.method.name: [] for ask in askers}
        for draw in range(config.draws):
            random = variants.with_random_blocks(model, count, seed + draw)  # one at a time: each has its own weights
            for ask in askers:
                mine = zip(texts, own[ask.method.name], seeds, strict=True)
                found[ask.method.name].append([stability.randomisation(ask, e, random, s, n) for e, s, n in mine])
        for name, draws in found.items():
            values = np.array(draws)  # [draw, text, signed or absolute]
            known = ~np.isnan(values)
            means = np.where(known, values, 0).sum(0) / np.where(known.any(0), known.sum(0), np.nan)
            signed, absolute = (interval(means[:, i].tolist(), groups, seed) for i in range(2))
            rows.append(SanityRow(method=name, blocks=count, signed=signed, absolute=absolute))
    rows.sort(key=lambda r: (list(own).index(r.method), r.blocks))
    passed = {
        r.method: all(v is None or v[0] <= config.threshold for v in (r.signed, r.absolute))
        and not (r.signed is None and r.absolute is None)
        for r in rows
        if r.blocks == depth
    }
    finding = Sanity(
        title=f"Are explanations of {model.identity.source} about the model?",
        technique="interpretation.sanity",
        rows=rows,
        depth=depth,
        passed=passed,
        texts=len(texts),
        provenance={"seed": seed, "settings": config.model_dump(mode="json"), "texts": len(texts)},
    )
    return finding.model_copy(update={"summary": summarise(finding, config.threshold)})


def summarise(finding: Sanity, threshold: float) -> str:
    """Which methods pass, in words."""
    good = [name for name, passed in finding.passed.items() if passed]
    bad = [name for name, passed in finding.passed.items() if not passed]
    text = ""
    if good:
        text += f"{', '.join(good)}: the explanation is gone when all {finding.depth} blocks are random, as it should. "
    if bad:
        text += (
            f"{', '.join(bad)}: more than a rank correlation of {threshold:g} is left (or nothing can be said): much "
            "of the explanation describes the text and not what the model learnt. "
        )
    return text + f"Measured on {finding.texts} texts; a method that passes may still be wrong."
