"""The computation behind `interpretation.neurons`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from intarsia.errors import BadInput
from intarsia.interpretation import states
from intarsia.interpretation.neurons.neurons import Excerpt, LayerNeurons, Neurons, NeuronsConfig, NeuronView
from intarsia.interpretation.neurons.statistics import Best, Running
from intarsia.interpretation.wording import percent, visible
from intarsia.progress import track
from intarsia.sites import Replace, read, unembed

if TYPE_CHECKING:
    from intarsia.models import Model

WHAT = "interpretation.neurons"
DEAD = 1e-6  # a spread below this share of the layer's median is none


def look(model: Model, config: NeuronsConfig, records: Sequence[Any], seed: int) -> Neurons:
    """One pass for the statistics, one over the few texts that are shown; see `interpretation.neurons`."""
    states.check_readable(model, WHAT)
    layers = neuron_layers(model, config.stride, WHAT)
    asked = [parse(name, model, WHAT) for name in config.neurons]
    layers = sorted({*layers, *(layer for layer, _ in asked)})
    chosen = states.choose(records, config.max_texts, seed, WHAT)
    texts = [states.text_of(record) for record in chosen]
    running, best, tokens = watch(model, texts, layers, config)
    widths = {layer: len(running[layer].mean) for layer in layers}
    for layer, neuron in asked:
        if not 0 <= neuron < widths[layer]:
            raise BadInput(
                f"{WHAT}: neuron {layer}:{neuron} does not exist: layer {layer} has 0 to {widths[layer] - 1}"
            )
    selectivity = {layer: selectivity_of(running[layer], best[layer]) for layer in layers}
    rows = []
    for layer in layers:
        std = running[layer].std
        level = float(std.median()) * DEAD
        rows.append(
            LayerNeurons(
                layer=layer, neurons=widths[layer], sparsity=float(running[layer].sparsity.median()),
                selectivity=float(selectivity[layer].median()), dead=int((std <= level).sum()),
                strongest=float(torch.maximum(running[layer].maximum, -running[layer].minimum).max()),
            )
        )  # fmt: skip
    if not asked:
        flat = torch.cat([selectivity[layer] for layer in layers])
        owner = torch.cat([torch.full((widths[layer],), layer) for layer in layers])
        own = torch.cat([torch.arange(widths[layer]) for layer in layers])
        asked = [(int(owner[i]), int(own[i])) for i in flat.topk(min(config.show, len(flat))).indices]
    excerpts = excerpts_of(model, texts, asked, best, config)
    views = []
    for (layer, neuron), found in zip(asked, excerpts, strict=True):
        stats = running[layer]
        writes, against = written_tokens(model, layer, neuron, config.writes)
        views.append(
            NeuronView(
                layer=layer, neuron=neuron, mean=float(stats.mean[neuron]), std=float(stats.std[neuron]),
                maximum=float(stats.maximum[neuron]), minimum=float(stats.minimum[neuron]),
                positive=float(stats.positive[neuron]), sparsity=float(stats.sparsity[neuron]),
                selectivity=float(selectivity[layer][neuron]), excerpts=found, writes=writes, against=against,
            )
        )  # fmt: skip
    finding = Neurons(
        title=f"What excites the neurons of {model.identity.source}",
        technique=WHAT,
        layers=rows,
        views=views,
        side=config.side,
        texts=len(texts),
        tokens=tokens,
        provenance={"seed": seed, "settings": config.model_dump(), "texts": len(texts), "tokens": tokens},
    )
    return finding.model_copy(update={"summary": summarise(finding)})


def neuron_layers(model: Model, stride: int, what: str) -> list[int]:
    """Layers whose neurons can be read. Raises `BadInput` where there are none."""
    count = states.layer_count(model)
    there = [n for n in states.spaced(count, stride) if states.site_name(model.sites, n, "mlp_act") in model.sites]
    if not there:
        model.sites.expand(states.site_name(model.sites, count - 1, "mlp_act"))  # says why
        raise BadInput(f"{what}: no layer of {type(model.network).__name__} has neurons that can be read")
    return there


def parse(name: str, model: Model, what: str) -> tuple[int, int]:
    """(layer, neuron) of `7:42`; the neuron's number is checked by whoever knows how many there are."""
    layer, _, neuron = name.partition(":")
    if not layer.strip().isdigit() or not neuron.strip().isdigit():
        raise BadInput(f"{what}: '{name}' is no neuron: wants layer:number, as in 7:42")
    if states.site_name(model.sites, int(layer), "mlp_act") not in model.sites:
        last = states.layer_count(model) - 1
        raise BadInput(f"{what}: layer {layer} of neuron '{name}' has no neurons: there are layers 0 to {last}")
    return int(layer), int(neuron)


def watch(
    model: Model, texts: Sequence[str], layers: Sequence[int], config: NeuronsConfig
) -> tuple[dict[int, Running], dict[int, Best], int]:
    """Statistics and best texts of every neuron of `layers`, and the number of tokens they are of."""
    running = {layer: Running() for layer in layers}
    best = {layer: Best(config.top, lowest=config.side == "lowest") for layer in layers}
    names = {layer: states.site_name(model.sites, layer, "mlp_act") for layer in layers}
    total = -(-len(texts) // config.batch_size)
    tokens = 0
    for batch in track(states.batches(model, texts, config.max_tokens, config.batch_size), "watching neurons", total):
        counted = counted_tokens(batch.mask)
        acts = read(model, {"input_ids": batch.ids, "attention_mask": batch.mask.long()}, list(names.values()))
        for layer, name in names.items():
            running[layer].add(acts[name][counted.to(acts[name].device)].cpu())
            best[layer].add(acts[name], counted, batch.first)
        tokens += int(counted.sum())
    return running, best, tokens


def counted_tokens(mask: Tensor) -> Tensor:
    """[text, token] the real tokens but each text's first one, unless it is the only one."""
    counted = mask.clone()
    counted[:, 0] &= mask.sum(1) == 1
    return counted


def selectivity_of(stats: Running, best: Best) -> Tensor:
    """[neuron] mean distance of the best texts' activations from the mean, in standard deviations."""
    reached = best.values.double()
    known = best.texts >= 0
    mean = torch.where(known, reached, 0.0).sum(0) / known.sum(0).clamp_min(1)
    return (mean - stats.mean).abs() / stats.std.clamp_min(1e-12)


def excerpts_of(
    model: Model, texts: Sequence[str], asked: Sequence[tuple[int, int]], best: dict[int, Best], config: NeuronsConfig
) -> list[list[Excerpt]]:
    """For each neuron the stretches around its strongest tokens, read once more."""
    wanted = sorted({int(t) for layer, neuron in asked for t in best[layer].texts[:, neuron] if t >= 0})
    names = {layer: states.site_name(model.sites, layer, "mlp_act") for layer, _ in asked}
    vocabulary = states.Vocabulary(model)
    traces: dict[tuple[int, int, int], list[float]] = {}
    ids: dict[int, list[int]] = {}
    for batch in states.batches(model, [texts[t] for t in wanted], config.max_tokens, config.batch_size):
        inputs = {"input_ids": batch.ids, "attention_mask": batch.mask.long()}
        acts = read(model, inputs, list(dict.fromkeys(names.values())))
        for row in range(len(batch.ids)):
            text = wanted[batch.first + row]
            real = batch.mask[row]
            ids[text] = batch.ids[row][real].tolist()
            for layer, neuron in asked:
                traces[layer, neuron, text] = acts[names[layer]][row, real, neuron].float().cpu().tolist()
    found = []
    for layer, neuron in asked:
        mine = []
        for text, position in zip(best[layer].texts[:, neuron], best[layer].positions[:, neuron], strict=True):
            if int(text) < 0:
                continue
            at, row = int(position), ids[int(text)]
            begin, end = max(0, at - config.context), min(len(row), at + config.context + 1)
            values = traces[layer, neuron, int(text)][begin:end]
            mine.append(Excerpt(text=int(text), tokens=[vocabulary(t) for t in row[begin:end]], values=values,
                                peak=at - begin))  # fmt: skip
        found.append(mine)
    return found


@torch.no_grad()
def direction(model: Model, layer: int, neuron: int) -> Tensor:
    """[width] what one unit of a neuron adds to the stream: its row of the down projection, and what the block does to
    an MLP's output after it (a scale, a norm)."""
    site, out = (states.site_name(model.sites, layer, kind) for kind in ("mlp_act", "mlp_out"))
    ids = torch.full((2, 1), 0, device=model.device)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    width = read(model, inputs, site)[site].shape[-1]
    value = torch.zeros(2, 1, width, dtype=torch.float32)
    value[1, 0, neuron] = 1
    written = read(model, inputs, out, edits=[Replace(site, value=value)])[out][:, 0].float()
    return written[1] - written[0]


@torch.no_grad()
def written_tokens(model: Model, layer: int, neuron: int, count: int) -> tuple[list[str], list[str]]:
    """The tokens a neuron's direction makes likelier, and those it makes less likely; none without a head.

    Norm and head are taken as odd functions, (f(d) - f(-d)) / 2: biases fall out."""
    if not states.has_head(model):
        return [], []
    d = direction(model, layer, neuron).to(model.dtype)
    both = unembed(model, torch.stack([d, -d])[None])[0].float()
    gained = (both[0] - both[1]) / 2
    name = states.Vocabulary(model)
    ends = [gained.topk(min(count, len(gained)), largest=largest).indices for largest in (True, False)]
    tops = [[visible(name(int(i))) for i in end] for end in ends]
    return tops[0], tops[1]


def summarise(finding: Neurons) -> str:
    """How many neurons there are, which is the most selective, what it fires on and writes."""
    count, dead = sum(r.neurons for r in finding.layers), sum(r.dead for r in finding.layers)
    text = f"{count:,} neurons over {finding.tokens:,} tokens of {finding.texts} texts; {dead or 'none'} of them"
    text += " hardly vary."
    view = finding.views[0]
    peaks = ", ".join(dict.fromkeys(f"'{e.tokens[e.peak].strip() or '␣'}'" for e in view.excerpts))
    text += f" Neuron {view.name} is excited most by {peaks}, {view.selectivity:.0f} standard deviations from its mean"
    text += f" (above zero at {percent(view.positive)} of the tokens)"
    if view.writes:
        text += f", and writes for {', '.join(repr(t.strip('␣') or '␣') for t in view.writes[:3])}"
    return text + "."
