"""The computation behind `interpretation.map_states` and `interpretation.cross_model`."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from intarsia.errors import BadInput
from intarsia.interpretation import divergence
from intarsia.interpretation import states as reading
from intarsia.interpretation.patchscopes.cross_model import CrossModel, CrossModelConfig
from intarsia.interpretation.patchscopes.identity_reading import identity_logits
from intarsia.interpretation.patchscopes.map_states import MappedPair, MapStates, MapStatesConfig
from intarsia.interpretation.patchscopes.mapping import StateMaps, aligned, fit_maps, paired_states, paired_texts
from intarsia.interpretation.patchscopes.operator import Source, Target, own_layer, patch, read_states
from intarsia.interpretation.patchscopes.prompts import same_vocabulary
from intarsia.interpretation.patchscopes.scoring import chosen_cell, mean_interval
from intarsia.interpretation.patchscopes.token_identity import PROMPTS
from intarsia.interpretation.wording import percent
from intarsia.progress import listening, track

if TYPE_CHECKING:
    from intarsia.models import Model

CHUNK = 16  # states that are patched into all layers at a time


def fit(model: Model, config: MapStatesConfig, explainer: Model, records: Sequence[Any], seed: int) -> StateMaps:
    """Fit and measure maps; see `interpretation.map_states`."""
    what = "interpretation.map_states"
    for each in (model, explainer):
        reading.check_readable(each, what)
    texts = [reading.text_of(r) for r in reading.choose(records, config.max_texts, seed, what)]
    if len(texts) < 2:
        raise BadInput(f"{what}: a single text was given: wants two or more, to fit on and to measure with")
    random.Random(seed).shuffle(texts)
    pairs = paired_texts(model, explainer, texts, config.max_tokens)
    held = max(1, round(config.held_out * len(pairs)))
    layers = reading.spaced(reading.layer_count(model), config.stride)
    if config.pairs == "same":
        wanted = [(layer, own_layer(layer, model, explainer)) for layer in layers]
    else:
        to = reading.spaced(reading.layer_count(explainer), config.stride)
        wanted = [(a, b) for a in layers for b in to]
    maps, rows = fit_maps(model, explainer, pairs[held:], wanted, config.penalty)
    explained, measured = _explained(maps, model, explainer, pairs[:held])
    mean = sum(explained.values()) / len(explained) if explained else 0.0
    enough = "" if rows >= 10 * model.sites.main.width else " That is fewer than ten for every coordinate: fit on more."
    maps.finding = MapStates(
        title=f"Maps from {model.identity.source} to {explainer.identity.source}",
        technique=what,
        summary=f"{len(maps.pairs)} maps explain {percent(max(0.0, mean))} of the variance of held-out states, fitted "
        f"on {rows:,} positions.{enough}",
        pairs=[MappedPair(layer=a, target_layer=b, explained=explained.get((a, b), 0.0)) for a, b in maps.pairs],
        positions=rows,
        held_out_positions=measured,
        provenance={"seed": seed, "settings": config.model_dump(), "texts": len(texts)},
    )
    return maps


def _explained(
    maps: StateMaps, model: Model, explainer: Model, pairs: Sequence[Any]
) -> tuple[dict[tuple[int, int], float], int]:
    """Share of variance each map explains, 1 - |y - f(x)|^2 / |y - mean y|^2, and at how many positions."""
    from_layers, to_layers = sorted({a for a, _ in maps.pairs}), sorted({b for _, b in maps.pairs})
    parts = list(paired_states(model, explainer, pairs, from_layers, to_layers, "measuring the maps"))
    if not parts:
        return {}, 0
    x, y = (torch.cat([part[i] for part in parts]) for i in (0, 1))
    out = {}
    for a, b in maps.pairs:
        wanted = y[:, to_layers.index(b)].double().cpu()
        given = maps(x[:, from_layers.index(a)], a, b).double().cpu()
        around = (wanted - wanted.mean(0)).square().sum()
        out[a, b] = float(1 - (wanted - given).square().sum() / around.clamp_min(1e-30))
    return out, len(x)


@torch.no_grad()
def look(
    model: Model, config: CrossModelConfig, explainer: Model, train: Sequence[Any], test: Sequence[Any], seed: int
) -> CrossModel:
    """Fit maps on `train`, and let the explainer read states of `test`; see `interpretation.cross_model`."""
    what = "interpretation.cross_model"
    for each in (model, explainer):
        reading.check_readable(each, what)
        if not (reading.is_causal(each) and reading.has_head(each)):
            raise BadInput(f"{what}: {type(each.network).__name__} is no causal language model")
    fitting = [reading.text_of(r) for r in reading.choose(train, config.max_texts, seed, f"{what} (train)")]
    judging = [reading.text_of(r) for r in reading.choose(test, config.max_texts, seed, f"{what} (test)")]
    layers = reading.spaced(reading.layer_count(model), config.stride)
    to = reading.spaced(reading.layer_count(explainer), config.stride)
    places = _places(paired_texts(model, explainer, judging, config.max_tokens), config.positions, seed)
    if not places:
        raise BadInput(f"{what}: no position of the test texts is in both tokenisations: give longer texts")
    pairs = paired_texts(model, explainer, fitting, config.max_tokens)
    maps, rows = fit_maps(model, explainer, pairs, [(a, b) for a in layers for b in to], config.penalty)

    last = reading.layer_count(model) - 1
    wanted = sorted({*layers, last})
    states = read_states(model, [p for _, p, _ in places], [t for *_, t in places], wanted)
    at = [wanted.index(layer) for layer in layers]
    name, other = _words(model, explainer)
    ids = {name(i): i for i in reversed(range(len(model.tokenizer)))}  # type: ignore[arg-type]
    right, bits, own = [], [], []
    for part in track(list(states.split(CHUNK)), "reading across models"):
        final = divergence.log_probabilities(reading.logits(model, part[:, wanted.index(last)]))
        tops = [name(int(i)) for i in final.argmax(-1)]
        with listening(None):
            found = patch(
                Source(model, "", layers=layers, states=part[:, at]),
                Target(explainer, PROMPTS.get(config.prompt, config.prompt), layers=to),
                mapping=maps,
            )
            alone = identity_logits(model, part[:, at], layers, prompt=config.prompt).argmax(-1)
        said = [[[other(int(i)) for i in line] for line in row] for row in found.top]
        right.append(
            np.array([[[w == top for w in line] for line in row] for row, top in zip(said, tops, strict=True)])
        )
        bits.append(_surprisal(said, final, ids))
        own.append((alone == final.argmax(-1)[:, None]).cpu().numpy())
    hits, nats, alone_hits = np.concatenate(right), np.concatenate(bits), np.concatenate(own)
    groups = [str(number) for number, *_ in places]
    chosen, cells = chosen_cell(hits, groups, seed)
    counts = (~np.isnan(nats)).sum(0)
    means = np.where(counts > 0, np.nansum(nats, 0) / np.maximum(counts, 1), np.nan)
    finding = CrossModel(
        title=f"{model.identity.source} read by {explainer.identity.source}",
        technique=what,
        model=model.identity.source,
        explainer=explainer.identity.source,
        prompt=PROMPTS.get(config.prompt, config.prompt),
        layers=layers,
        target_layers=to,
        agreement=hits.mean(0).tolist(),
        surprisal=[[None if np.isnan(v) else float(v) for v in line] for line in means],
        own=alone_hits.mean(0).tolist(),
        mean_agreement=mean_interval(hits.mean((1, 2)), groups, seed),
        chosen=mean_interval(chosen, groups, seed),
        best=sorted({(layers[a], to[b]) for a, b in cells}),
        fitted_positions=rows,
        positions=len(places),
        texts=len(set(groups)),
        provenance={"seed": seed, "settings": config.model_dump()},
    )
    return finding.model_copy(update={"summary": summarise(finding, model.sites.main.width)})


def _places(pairs: Sequence[Any], most: int, seed: int) -> list[tuple[int, Any, int]]:
    """(text number, prompt, index) of positions in both tokenisations, drawn by `seed`."""
    everything = [(n, a, t) for n, (a, b) in enumerate(pairs) for t, _ in aligned(a, b)]
    picked = random.Random(seed).sample(range(len(everything)), min(most, len(everything)))
    return [everything[i] for i in sorted(picked)]


def _words(model: Model, explainer: Model) -> tuple[Callable[[int], str], Callable[[int], str]]:
    """What names the tokens of either model so that equal tokens have equal names: their ids where the vocabularies are
    the same, else their texts. A part of a character has no text of its own, and equals nothing."""
    if same_vocabulary(model, explainer):
        return str, str

    def named(one: Model, mark: str) -> Callable[[int], str]:
        name = reading.Vocabulary(one)
        return lambda i: f"{mark}{i}" if "\ufffd" in name(i) else name(i)

    return named(model, "\ufffd<"), named(explainer, "\ufffd>")


def _surprisal(said: list[list[list[str]]], final: Tensor, ids: dict[str, int]) -> np.ndarray:
    """[position, layer, target layer] nats of what was said under the model's own distribution; nan where the model
    has no such token."""
    table = final.double().cpu().numpy()
    return np.array(
        [
            [[-row[ids[w]] if ids.get(w, len(row)) < len(row) else np.nan for w in line] for line in lines]
            for row, lines in zip(table, said, strict=True)
        ]
    )


def summarise(finding: CrossModel, width: int) -> str:
    """How well the explainer reads, against the model reading itself."""
    assert finding.chosen is not None
    own = max(finding.own)
    a, b = finding.best[0]
    text = (
        f"{finding.explainer} reads the model's own next token from {percent(finding.chosen[0])} of its states with "
        f"the pair of layers that is best on other texts (layer {a} into {b}); reading itself, the model gets "
        f"{percent(own)} at its best layer. {finding.positions:,} positions of {finding.texts} texts."
    )
    if finding.fitted_positions < 10 * width:
        text += (
            f" The maps were fitted on {finding.fitted_positions:,} positions, fewer than ten for every coordinate: "
            "more text would read better."
        )
    return text
