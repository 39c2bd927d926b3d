"""The computation behind `interpretation.path_patching`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from intarsia.errors import BadInput
from intarsia.interpretation import states
from intarsia.interpretation.causal.cells import Write, base_run, below, resumed, run_cells, site
from intarsia.interpretation.causal.contrast import Contrast, contrast
from intarsia.interpretation.causal.findings import EffectMap
from intarsia.interpretation.causal.patching import check_kinds, strongest_sentence
from intarsia.interpretation.causal.path_patching import PathPatching, PathPatchingConfig
from intarsia.measure import provenance
from intarsia.progress import track
from intarsia.sites import Activations, Apply, Replace

if TYPE_CHECKING:
    from intarsia.models import Model

WHO = "interpretation.path_patching"


def follow(model: Model, config: PathPatchingConfig) -> PathPatching:
    """Patch every sender's path; see `interpretation.path_patching`."""
    check_kinds(model, ["z", "attn_out", "mlp_out"], WHO)
    made = contrast(
        model, WHO, config.prompt, config.corrupt, answer=config.answer, foil=config.foil, metric=config.metric
    )
    count = states.layer_count(model)
    kinds = ["z", "attn_out", "mlp_out"]
    wanted = [_receiver(model, text, count) for text in config.receivers]
    inputs = sorted({kind for _, _, kind in wanted if kind})
    check_kinds(model, inputs, WHO)
    clean = base_run(model, made.clean, [*kinds, *inputs])
    corrupt = base_run(model, made.corrupt, ["z"])
    heads = clean[site(model, 0, "z")].shape[2]
    for text, (layer, head, _) in zip(config.receivers, wanted, strict=True):
        if layer < count and not 0 <= head < heads:
            raise BadInput(
                f"{WHO}: receiver '{text}': head {head} does not exist, there are {heads} (0 to {heads - 1})"
            )
    highest = max(layer for layer, _, _ in wanted)
    layers = [layer for layer in states.spaced(count, config.stride) if layer < highest]
    if not layers:
        raise BadInput(f"{WHO}: no layer lies below the receivers {', '.join(config.receivers)}")
    effect = []
    for layer in track(layers, "patching paths"):
        values = path_values(made, clean, corrupt, layer, heads, wanted, config.mlps == "frozen", config.batch_size)
        effect.append(made.effect(values, made.clean_value, made.corrupt_value).tolist())
    finding = PathPatching(
        title=f"Which heads of {model.identity.source} act on {', '.join(config.receivers)}",
        technique=WHO,
        contrast=made.told(),
        maps=[
            EffectMap(
                site="z",
                row_names=[f"layer {i}" for i in layers],
                column_names=[str(h) for h in range(heads)],
                columns_are="head",
                effect=effect,
            )
        ],
        receivers=list(config.receivers),
        mlps=config.mlps,
        provenance=provenance(settings=config.model_dump()),
    )
    one = finding.maps[0]
    through = "the stream alone" if config.mlps == "frozen" else "the stream and MLPs"
    total = sum(map(sum, one.effect))
    text = (
        f"The strongest direct path to {', '.join(config.receivers)} is from {strongest_sentence(one)}, "
        f"along {through}. "
        f"All heads shown add up to {total:.0%}; what is missing goes other ways (through heads in between, "
        f"or from the "
        "embeddings)."
    )
    return finding.model_copy(update={"summary": text})


@torch.no_grad()
def path_values(
    made: Contrast,
    clean: Activations,
    corrupt: Activations,
    layer: int,
    heads: int,
    receivers: Sequence[tuple[int, int, str]],
    frozen: bool,
    batch_size: int,
) -> Tensor:
    """The metric for each sender head of a layer, [head] float64."""
    model = made.model
    out = torch.full((heads,), made.clean_value, dtype=torch.float64)
    targets = [r for r in receivers if r[0] > layer]
    everywhere = tuple(range(made.length))
    for chunk in torch.arange(heads).split(batch_size):
        senders = chunk.tolist()
        cells: list[list[Write]] = [[] for _ in senders]
        ends: Tensor | None = None
        for end in sorted({at for at, _, _ in targets}):
            stream = sent(model, clean, corrupt, layer, senders, end, frozen)
            if end == len(model.sites.blocks):
                ends = stream
                continue
            kinds = sorted({kind for at, _, kind in targets if at == end})
            rows = [0] * len(senders)
            found = resumed(model, clean, end, rows, state=stream, at=[site(model, end, kind) for kind in kinds])
            for at, head, kind in targets:
                if at == end:
                    value = found[site(model, end, kind)]
                    own = head * value.shape[2] // heads  # in grouped attention several heads share a key
                    for row, cell in enumerate(cells):
                        cell.append(Write(kind, end, everywhere, value[row, :, own], own))
        if ends is not None and not cells[0]:
            output = resumed(model, clean, len(model.sites.blocks), [0] * len(senders), state=ends, **made.keep)
            out[senders] = made.scored(output).cpu()
            continue
        if ends is not None:
            # The direct path to the logits adds to what comes through the other receivers.
            final = below(model, len(model.sites.blocks))
            for row, cell in enumerate(cells):
                difference = ends[row] - clean[final][0]
                out[senders[row]] = _with_both(made, clean, cell, difference)
            continue
        if cells[0]:
            values = run_cells(
                model, clean, cells, made.scored, batch_size=batch_size, keep=made.keep, task="receivers"
            )
            out[senders] = values[:, 0]
    return out


def _with_both(made: Contrast, clean: Activations, cell: Sequence[Write], difference: Tensor) -> float:
    model = made.model
    final = below(model, len(model.sites.blocks))
    edits = [Replace(site(model, w.layer, w.kind), value=w.value[None, :, None], heads=w.head) for w in cell]
    stream = resumed(model, clean, min(w.layer for w in cell), [0], edits, at=final)[final] + difference
    return float(made.scored(resumed(model, clean, len(model.sites.blocks), [0], state=stream, **made.keep))[0])


def sent(
    model: Model, clean: Activations, corrupt: Activations, layer: int, senders: Sequence[int], end: int, frozen: bool
) -> Tensor:
    """The stream that enters block `end` when one head of `layer` is corrupt and the others keep what they gave,
    [sender, token, width]."""
    rows = list(range(len(senders)))
    new = corrupt[site(model, layer, "z")][0]

    def put(z: Tensor) -> Tensor:
        z = z.clone()
        for row, head in enumerate(senders):
            z[row, :, head] = new[:, head]
        return z

    edits: list[Apply | Replace] = [Apply(site(model, layer, "z"), function=put)]
    held = [(i, "attn_out") for i in range(layer + 1, end)] + [(i, "mlp_out") for i in range(layer, end) if frozen]
    for i, kind in held:
        name = site(model, i, kind)
        edits.append(Replace(name, value=clean[name].expand(len(rows), -1, -1)))
    at = below(model, end)
    return resumed(model, clean, layer, [0] * len(rows), edits, at=at)[at]


def _receiver(model: Model, text: str, count: int) -> tuple[int, int, str]:
    """(layer, head, input); the layer of the logits is one above the last."""
    if text.strip() == "logits":
        return count, 0, ""
    match = re.fullmatch(r"(\d+)\.(\d+)\.([qkv])", text.strip())
    if not match:
        raise BadInput(f"{WHO}: receiver '{text}': wants logits, or layer.head.input with input q, k or v (9.6.q)")
    layer = int(match[1])
    if layer >= count:
        raise BadInput(f"{WHO}: receiver '{text}': layer {layer} does not exist, there are {count} (0 to {count - 1})")
    return layer, int(match[2]), match[3]
