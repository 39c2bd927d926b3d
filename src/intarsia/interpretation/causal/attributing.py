"""The computation behind `interpretation.attribution_patching`."""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from intarsia.interpretation import states
from intarsia.interpretation.causal.attribution_patching import AttributionPatching, AttributionPatchingConfig
from intarsia.interpretation.causal.cells import base_run, run_cells, site
from intarsia.interpretation.causal.contrast import Contrast, contrast
from intarsia.interpretation.causal.findings import MEANING, EffectMap
from intarsia.interpretation.causal.patching import Cells, check_kinds, strongest_sentence
from intarsia.interpretation.evaluation.correlation import spearman
from intarsia.measure import provenance
from intarsia.sites import read

if TYPE_CHECKING:
    from intarsia.models import Model

WHO = "interpretation.attribution_patching"


def attribute(model: Model, config: AttributionPatchingConfig, seed: int) -> AttributionPatching:
    """Approximate every effect, and check a sample; see `interpretation.attribution_patching`."""
    check_kinds(model, config.kinds, WHO)
    made = contrast(
        model, WHO, config.prompt, config.corrupt, answer=config.answer, foil=config.foil, metric=config.metric
    )
    layers = list(range(states.layer_count(model)))
    clean, corrupt = (base_run(model, ids, config.kinds) for ids in (made.clean, made.corrupt))
    restoring = config.direction == "restore"
    source, base = (clean, corrupt) if restoring else (corrupt, clean)
    ends = (made.corrupt_value, made.clean_value) if restoring else (made.clean_value, made.corrupt_value)
    names = [site(model, layer, kind) for kind in config.kinds for layer in layers]
    slopes = gradients(made, made.corrupt if restoring else made.clean, names)  # type: ignore[arg-type]
    draw = random.Random(seed)
    maps, checked, agreement = [], {}, {}
    for kind in config.kinds:
        rows = []
        for layer in layers:
            name = site(model, layer, kind)
            product = ((source[name][0].double() - base[name][0].double()) * slopes[name][0].double()).sum(-1)
            rows.append(product.sum(0) if kind == "z" else product)
        effect = torch.stack(rows).cpu() / (ends[1] - ends[0])
        cells = Cells(model, source, base, kind, layers, range(made.length))
        maps.append(
            EffectMap(
                site=kind,
                row_names=[f"layer {i}" for i in layers],
                column_names=cells.names(made),
                columns_are="head" if kind == "z" else "token",
                effect=effect.tolist(),
            )
        )
        if config.check and cells.moved:
            chosen = sorted(draw.sample(cells.moved, min(config.check, len(cells.moved))))
            writes = [cells.write(*cells.cells[i]) for i in chosen]
            values = run_cells(
                model, base, writes, made.scored, batch_size=config.batch_size, keep=made.keep,
                task=f"checking {MEANING[kind]}",
            )[:, 0]  # fmt: skip
            true = made.effect(values, *ends).tolist()
            width = len(cells.columns)
            found = [(i // width, i % width, float(effect.flatten()[i]), t) for i, t in zip(chosen, true, strict=True)]
            rho = spearman([a for _, _, a, _ in found], true) if len(found) > 2 else math.nan
            checked[kind], agreement[kind] = found, None if math.isnan(rho) else rho
    finding = AttributionPatching(
        title=f"Which states of {model.identity.source} carry the answer, by gradient",
        technique=WHO,
        contrast=made.told(),
        maps=maps,
        direction=config.direction,
        checked=checked,
        agreement=agreement,
        provenance=provenance(seed=seed, settings=config.model_dump()),
    )
    return finding.model_copy(update={"summary": summarise(finding)})


def gradients(made: Contrast, ids: Tensor, names: list[str]) -> dict[str, Tensor]:
    """d metric / d site of the run on `ids`, by site name, [1, token, ...]; zeros where nothing depends on a site."""
    acts = read(made.model, ids, [*names, "logits"], grad=True)
    value = made.scored(acts["logits"])[0]
    found = torch.autograd.grad(value, [acts[name] for name in names], allow_unused=True)
    return {
        name: torch.zeros_like(acts[name]) if slope is None else slope.detach()
        for name, slope in zip(names, found, strict=True)
    }


def summarise(finding: AttributionPatching) -> str:
    """The strongest cells, and how far to trust them."""
    parts = [f"{MEANING[m.site]} at {strongest_sentence(m)}" for m in finding.maps]
    text = f"By the gradient, what matters most: {'; '.join(parts)}."
    known = {s: rho for s, rho in finding.agreement.items() if rho is not None}
    if known:
        told = ", ".join(f"{s} {rho:.2f}" for s, rho in known.items())
        text += f" Against true patching on a sample, the rank correlation is {told}"
        weak = [s for s, rho in known.items() if rho < 0.7]
        text += f": do not rely on the map of {', '.join(weak)}." if weak else ": the maps rank cells well."
    return text
