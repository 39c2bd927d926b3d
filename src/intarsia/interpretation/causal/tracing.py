"""The computation behind `interpretation.causal_tracing`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from intarsia.interpretation import states
from intarsia.interpretation.causal.causal_tracing import CausalTracing, CausalTracingConfig
from intarsia.interpretation.causal.cells import Write, base_run, below, site
from intarsia.interpretation.causal.contrast import contrast, span
from intarsia.interpretation.causal.controls import Controls
from intarsia.interpretation.causal.findings import MEANING, EffectMap
from intarsia.interpretation.causal.patching import Cells, check_kinds, strongest_sentence, with_control
from intarsia.measure import provenance
from intarsia.sites import Activations, Add, run

if TYPE_CHECKING:
    from intarsia.models import Model

WHO = "interpretation.causal_tracing"
WINDOW = 10 / 48  # the paper restores 10 of GPT-2 XL's 48 layers


def trace(model: Model, config: CausalTracingConfig, seed: int) -> CausalTracing:
    """Restore every cell; see `interpretation.causal_tracing`."""
    check_kinds(model, config.kinds, WHO)
    made = contrast(model, WHO, config.prompt, answer=config.answer, foil=config.foil, metric=config.metric)
    subject = span(model, config.prompt, config.subject, WHO)
    count = states.layer_count(model)
    layers = states.spaced(count, config.stride)
    window = min(config.window or max(1, round(WINDOW * count)), count)

    clean = base_run(model, made.clean, config.kinds)
    entered = clean[below(model, 0)]
    sigma = float(entered[0].double().std())
    noise = _noise(entered, subject, config.noise * sigma, config.samples, seed)
    ids = made.clean.expand(config.samples, -1)
    blur = Add(below(model, 0), value=noise)
    noised = base_run(model, ids, config.kinds, [blur])
    with torch.no_grad():
        corrupt = made.scored(run(model, ids, [blur], **made.keep)).cpu()
    made.corrupt_value = float(corrupt.mean())
    made.corrupt_prompt = f"noise of {config.noise:g} sigma on '{config.subject.strip()}', mean of {config.samples}"
    made.check_differs(WHO)

    controls = Controls(model, clean, config.kinds, config.control_prompt, seed) if config.controls else None
    # The controls are an average over every cell and three kinds: one noise sample serves them.
    once = _rows(noised, 1)
    positions = list(range(made.length))
    maps = []
    for kind in config.kinds:
        width = 1 if kind == "resid_post" else window

        def writes(layer: int, column: int, kind: str = kind, width: int = width) -> list[Write]:
            around = range(max(0, layer - width // 2), min(count, layer - width // 2 + width))
            return [Write(kind, i, (column,), clean[site(model, i, kind)][0][[column]]) for i in around]

        cells = Cells(model, clean, noised, kind, layers, positions, writes)
        # The mean over samples is taken before the ratio, or a sample that hardly hurts would decide.
        shares = cells.effects(lambda values: values - corrupt, made, config.batch_size, f"restoring {MEANING[kind]}")
        shares = shares / made.difference
        found = EffectMap(
            site=kind,
            row_names=[f"layer {i}" for i in layers],
            column_names=[f"{name}*" if p in subject else name for p, name in enumerate(made.tokens())],
            effect=shares.mean(-1).tolist(),
            spread=shares.std(-1).tolist() if config.samples > 1 else None,
            note="* had noise. Tokens before the first of these are the same in both runs.",
        )
        for which in config.controls:
            other = Cells(model, clean, once, kind, layers, positions, writes).control(controls, which)  # type: ignore[arg-type]
            task = f"restoring {MEANING[kind]}, control"
            shares = other.effects(lambda values: values - corrupt[:1], made, config.batch_size, task)
            found.controls[which] = (shares / made.difference).mean(-1).tolist()
        maps.append(with_control(found))
    finding = CausalTracing(
        title=f"Where {model.identity.source} calls up what it knows of '{config.subject.strip()}'",
        technique=WHO,
        contrast=made.told(),
        maps=maps,
        subject=subject,
        sigma=sigma,
        samples=config.samples,
        window=window,
        provenance=provenance(seed=seed, settings=config.model_dump()),
    )
    return finding.model_copy(update={"summary": summarise(finding)})


def _noise(entered: Tensor, subject: Sequence[int], size: float, samples: int, seed: int) -> Tensor:
    """[sample, token, width]: zero but at the subject's tokens."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.zeros(samples, *entered.shape[1:], dtype=entered.dtype, device=entered.device)
    drawn = torch.randn(samples, len(subject), entered.shape[-1], generator=generator) * size
    noise[:, list(subject)] = drawn.to(noise)
    return noise


def _rows(base: Activations, count: int) -> Activations:
    return replace(base.rows(slice(0, count)), extras={})


def summarise(finding: CausalTracing) -> str:
    """What noise did, and where restoring helps most."""
    told = finding.contrast
    text = f"Noise on the subject takes the {told.measured} from {told.clean:.3g} to {told.corrupted:.3g}. "
    text += "What calls it back best: "
    text += "; ".join(f"{MEANING[m.site]} at {strongest_sentence(m)}" for m in finding.maps) + "."
    early = finding.maps[0]
    last = max(finding.subject)
    best = max(range(len(early.row_names)), key=lambda r: early.beyond[r][last])
    text += (
        f" At the subject's last token the {early.row_names[best]} does most ({early.effect[best][last]:.0%}). "
        f"Means of {finding.samples} noise samples; a state that is enough to call up a fact need not be "
        f"where it is kept."
    )
    return text
