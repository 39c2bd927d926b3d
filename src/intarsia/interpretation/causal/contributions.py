"""The computation behind `interpretation.direct_logit_attribution`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from intarsia.errors import BadInput
from intarsia.interpretation import states
from intarsia.interpretation.causal.cells import base_run, below, site
from intarsia.interpretation.causal.contrast import Contrast, contrast
from intarsia.interpretation.causal.direct_logit_attribution import (
    DirectLogitAttribution,
    DirectLogitAttributionConfig,
    Part,
)
from intarsia.interpretation.wording import percent
from intarsia.measure import provenance
from intarsia.sites import unembed

if TYPE_CHECKING:
    from intarsia.models import Model

WHO = "interpretation.direct_logit_attribution"


def take_apart(model: Model, config: DirectLogitAttributionConfig) -> DirectLogitAttribution:
    """Take the logit apart; see `interpretation.direct_logit_attribution`."""
    sites = model.sites
    count = states.layer_count(model)
    forms = {wiring.form for wiring in sites.wiring[sites.main.name]}
    norm = f"{sites.main.prefix}final_norm"
    if not forms <= {"pre-norm", "parallel"} or norm not in sites:
        raise BadInput(
            f"{WHO}: {type(model.network).__name__} norms its stream between blocks or has no final norm: "
            f"the stream is no "
            "sum of what its parts wrote; use interpretation.activation_patching"
        )
    made = contrast(model, WHO, config.prompt, answer=config.answer, foil=config.foil)
    foil = made.foil if config.foil is not None else None
    acts = base_run(model, made.clean, ["attn_out", "mlp_out", "z", "mlp_act"])
    final = acts[below(model, count)][0, made.at]
    gain, offset, capped, logit = functional(model, made, final, foil)

    def share(state: Tensor) -> float:
        return float(state.double() @ gain)

    parts = [Part(name="embedding", kind="embed", value=share(acts[below(model, 0)][0, made.at]))]
    heads: list[list[float]] | None = []
    biases: list[float] = []
    neurons: list[tuple[int, int, float, float]] = []
    for layer in range(count):
        for kind, name in (("attn_out", "attention"), ("mlp_out", "MLP")):
            if (at := site(model, layer, kind)) in acts:
                value = share(acts[at][0, made.at])
                parts.append(Part(name=f"{name} {layer}", kind=name.lower(), layer=layer, value=value))
        for inner, outer in (("z", "attn_out"), ("mlp_act", "mlp_out")):
            if site(model, layer, inner) not in acts or site(model, layer, outer) not in acts:
                continue
            before, after = acts[site(model, layer, inner)][0, made.at], acts[site(model, layer, outer)][0, made.at]
            found = inside(model, layer, inner, outer, before, after, gain)
            if inner == "z":
                heads = None if found is None or heads is None else [*heads, found.sum(-1).tolist()]
                biases.append(share(after) - float(found.sum()) if found is not None else 0.0)
            elif found is not None:
                best = found.abs().topk(min(config.neurons, len(found))).indices.tolist()
                neurons += [(layer, n, float(found[n]), float(before[n])) for n in best]
    parts.append(Part(name="constants (biases of the final norm and head)", kind="constant", value=offset))
    total = sum(part.value for part in parts)
    whole = abs(logit - total) <= 2e-3 * max(1.0, abs(logit), float((final.double() * gain).abs().sum()))
    if not whole:
        raise BadInput(
            f"{WHO}: what attention and MLP add in {type(model.network).__name__} does not sum to its stream "
            f"({total:.4g} instead of {logit:.4g}): this network adds something else, too"
        )
    name = states.Vocabulary(model)
    finding = DirectLogitAttribution(
        title=f"What writes {name(made.answer)!r} in {model.identity.source}",
        technique=WHO,
        prompt=config.prompt,
        answer=name(made.answer),
        foil=name(foil) if foil is not None else None,
        logit=logit,
        error=logit - total,
        parts=parts,
        heads=heads if heads and len(heads) == count else None,
        biases=biases if heads and len(heads) == count else None,
        neurons=sorted(neurons, key=lambda n: -abs(n[2]))[: config.neurons],
        capped=capped,
        provenance=provenance(settings=config.model_dump()),
    )
    return finding.model_copy(update={"summary": summarise(finding)})


@torch.no_grad()
def functional(model: Model, made: Contrast, final: Tensor, foil: int | None) -> tuple[Tensor, float, bool, float]:
    """(g, c, capped, logit): with the final norm's scale as it is, the logit is g · stream + c, all float64.

    Where the network squashes its logits (a soft cap), the logit is the one before that."""
    sites = model.sites
    norm = sites.tap(f"{sites.main.prefix}final_norm").module
    gain, centred, bias = frozen_norm(norm, final)
    head = model.network.get_output_embeddings()
    tokens = [made.answer] if foil is None else [made.answer, foil]
    weight = head.weight[tokens].double()
    signs = torch.tensor([1.0, -1.0][: len(tokens)], dtype=torch.float64, device=weight.device)
    row, extra = signs @ weight, 0.0
    if getattr(head, "bias", None) is not None:
        extra = float(signs @ head.bias[tokens].double())
    # What the network does to its logits afterwards: nothing, a constant scale, or a soft cap.
    normed = (gain * (final.double() - final.double().mean() if centred else final.double()) + bias).to(
        head.weight.dtype
    )
    plain, given = head(normed).double(), unembed(model, final[None])[0].double()
    scale = float((plain @ given) / (plain @ plain))
    capped = bool((given - scale * plain).abs().max() > 1e-3 * given.abs().max())
    scale = 1.0 if capped else scale
    vector = scale * gain * row
    if centred:
        vector = vector - vector.mean()
    offset = scale * (float(row @ bias) + extra)
    picked = (plain if capped else given)[tokens]
    return vector, offset, capped, float(signs @ picked)


@torch.no_grad()
def frozen_norm(norm: nn.Module, x: Tensor) -> tuple[Tensor, bool, Tensor]:
    """A norm as the linear map it is at x [width]: y = gain * (x, centred or not) + bias, in float64.

    What the module does is tried, not looked up: its bias is what it makes of zero, it centres where a constant added
    to x changes nothing, and its weights show on a known input. Raises `BadInput` where that does not give its
    output."""
    width = len(x)
    scale = float(x.double().pow(2).mean().sqrt())

    def through(value: Tensor) -> Tensor:
        return norm(value.to(x.dtype)[None, None])[0, 0].double()

    bias = through(torch.zeros(width, dtype=torch.float64, device=x.device))
    out = through(x)
    size = (out - bias).abs().max()
    centred = bool((through(x.double() + scale) - out).abs().max() <= 1e-2 * size)
    # Between 1 and 2 in size and of both signs: no entry is near zero, centred or not.
    probe = torch.linspace(1, 2, width, dtype=torch.float64, device=x.device) * scale
    probe[1::2] *= -1
    shown = through(probe) - bias
    u, at_x = (v - v.mean() if centred else v for v in (probe, x.double()))
    weight = shown / u
    fit = weight * at_x
    strength = ((out - bias) @ fit) / (fit @ fit)
    gain = strength * weight
    tolerance = 3e-2 if x.dtype in (torch.float16, torch.bfloat16) else 1e-3
    if (gain * at_x + bias - out).abs().max() > tolerance * size:
        raise BadInput(f"{WHO}: the norm {type(norm).__name__} is no scaling of its input: it cannot be frozen")
    return gain, centred, bias


def inside(
    model: Model, layer: int, inner: str, outer: str, before: Tensor, after: Tensor, gain: Tensor
) -> Tensor | None:
    """What each entry of `before` (heads or neurons) adds to gain · after; None where they do not add up.

    The map between them is the output projection, for some networks with a norm behind it (Gemma 3), frozen."""
    sites = model.sites
    projection, end = sites.tap(site(model, layer, inner)).module, sites.tap(site(model, layer, outer))
    flat = before.reshape(1, 1, -1).detach().requires_grad_(True)
    with torch.enable_grad():
        raw = projection(flat)[0, 0]
    wide = raw.detach().double()
    row = gain * end.scale
    if end.module is not projection and _normed(end.module, raw.detach(), after, end.scale):
        scale, centred, _ = frozen_norm(end.module, raw.detach())
        row = row * scale
        row = row - row.mean() if centred else row
    elif (wide * end.scale - after.double()).abs().max() > 1e-2 * after.abs().max().clamp(min=1e-6):
        return None
    (slope,) = torch.autograd.grad(raw, flat, row.to(raw.dtype))
    return (slope[0, 0].double() * flat.detach()[0, 0].double()).reshape(before.shape)


@torch.no_grad()
def _normed(module: nn.Module, raw: Tensor, after: Tensor, scale: float) -> bool:
    """Whether `after` is a norm of the projection's output."""
    if "norm" not in type(module).__name__.lower():
        return False
    out = module(raw[None, None])[0, 0] * scale
    return bool((out.double() - after.double()).abs().max() <= 1e-2 * after.abs().max())


def summarise(finding: DirectLogitAttribution) -> str:
    """The largest writers, for and against."""
    named = {part.name: part.value for part in finding.parts if part.kind != "attention" or finding.heads is None}
    if finding.heads is not None:
        named |= {f"head {i}.{h}": v for i, row in enumerate(finding.heads) for h, v in enumerate(row)}
    ranked = sorted(named.items(), key=lambda pair: -pair[1])
    up = ", ".join(f"{name} ({value:+.2f})" for name, value in ranked[:3])
    down = ", ".join(f"{name} ({value:+.2f})" for name, value in ranked[::-1][:2] if value < 0)
    text = f"The {finding.what} is {finding.logit:.2f}. Written for it most by {up}"
    text += f"; against it by {down}. " if down else ". "
    half = len(finding.of_kind("mlp")) // 2
    late = sum(p.value for p in finding.parts if p.layer is not None and p.layer >= half)
    if finding.logit > 0 and 0 <= late <= finding.logit:
        text += f"The upper half of the layers writes {percent(late / finding.logit)} of it. "
    if finding.capped:
        text += "The network squashes its logits afterwards (soft cap); this is the logit before that. "
    return text + "Direct effects only: a part that works through later ones shows up there."
