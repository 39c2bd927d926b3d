"""The steps of `compression.factorize`: which layers, their ranks, and the factors, block after block."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from torch import Tensor

from intarsia.compression.checking import check_plain
from intarsia.compression.factorization.crossing import Crossed, crossed
from intarsia.compression.factorization.factoring import chosen_ridge, factors, metric, refitted
from intarsia.compression.factorization.modules import fill_factors, lay_factors
from intarsia.compression.factorization.ranks import Ranks, Rule, check_budget, chosen, same_share, saves
from intarsia.compression.factorization.reading import Reading, reading_of
from intarsia.compression.linears import Linear
from intarsia.compression.quantization.hf import IntarsiaQuantizationConfig, mark
from intarsia.compression.searching.sensitivity import sensitivity
from intarsia.compression.statistics import LayerStats, collect_over, relative_error, some_windows, told
from intarsia.compression.targets import targets
from intarsia.compression.walking import Walk
from intarsia.errors import BadInput, Note
from intarsia.progress import track

if TYPE_CHECKING:
    from intarsia.compression.factorization.technique import FactorizeConfig
    from intarsia.data import ImageText, Text
    from intarsia.models import Model

WHO = "compression.factorize"
HELD = 0.25  # of the tokens: what a ridge is chosen on


class Factors:
    """What was made: `pairs`, A and C by the layer's name, and each layer's `errors`; `ridges` of those refitted."""

    def __init__(self) -> None:
        self.pairs: dict[str, tuple[Tensor, Tensor]] = {}
        self.errors: dict[str, float] = {}
        self.ridges: dict[str, float] = {}

    def put(self, layer: Linear, left: Tensor, right: Tensor) -> None:
        """Keep the factors in the network's precision, and let the layer compute what they will."""
        left, right = left.to(layer.weight.dtype), right.to(layer.weight.dtype)
        self.pairs[layer.name] = left, right
        layer.set(left.double() @ right.double())


def factorize(
    model: Model, config: FactorizeConfig, calibration: Sequence[Text] | None, images: Sequence[ImageText] | None
) -> Model:
    """See `intarsia.compression.factorization.technique.factorize`."""
    check_plain(model, WHO, "factor")
    rule = _rule(model, config, bool(images))
    new = model.copy()
    layers, kept = targets(new, "factor", config.skip)
    layers = _own(new, layers, kept)
    if config.rank is None:
        check_budget(layers, config.keep)
    reading = Reading()
    if config.method != "plain" or rule == "sensitivity":
        reading = reading_of(model, calibration, images, config.tokens, WHO)
    ranks = _ranks(new, layers, config, rule, reading)
    out = _factors(model, new, [layer for layer in layers if layer.name in ranks.of], ranks.of, config, reading)
    for layer in layers:
        if layer.name in ranks.unseen or (layer.name in ranks.of and layer.name not in out.pairs):
            kept[layer.name] = "nothing that was read reached it"
        elif layer.name not in out.pairs:
            kept[layer.name] = "no rank pays" if config.rank is None else "no smaller as factors"
    if not out.pairs:
        raise BadInput(f"{WHO}: what was read reached no layer; method plain needs no text")
    return _changed(new, config, rule, layers, ranks, out, kept)


def _rule(model: Model, config: FactorizeConfig, looks: bool) -> Rule:
    """How ranks are chosen. Raises `BadInput` where that cannot be."""
    pairs = getattr(model.config, "is_encoder_decoder", False)
    hears = "logits" in model.sites and not pairs and not looks
    if config.rank is not None:
        if config.ranks not in ("auto", "uniform"):
            raise BadInput(f"rank {config.rank} is for all layers: ranks {config.ranks} would choose others; give one")
        return "uniform"
    if config.ranks == "sensitivity" and not hears:
        what = "is an encoder-decoder" if pairs else "looks at pictures" if looks else "predicts no tokens"
        raise BadInput(f"ranks sensitivity: {type(model.network).__name__} {what}; take energy")
    if config.ranks != "auto":
        return config.ranks
    return "sensitivity" if hears and config.method != "plain" else "energy"


def _own(model: Model, layers: Sequence[Linear], kept: dict[str, str]) -> list[Linear]:
    """The layers whose weight is nobody else's, and that some rank makes smaller."""
    uses: dict[int, int] = {}
    for module in model.network.modules():
        for parameter in module.parameters(recurse=False):
            uses[id(parameter)] = uses.get(id(parameter), 0) + 1
    chosen = []
    for layer in layers:
        if uses[id(layer.module.weight)] > 1:
            kept[layer.name] = "shares its weight with another module"
        elif not saves(layer.shape, 1):
            kept[layer.name] = "no smaller as factors"
        else:
            chosen.append(layer)
    if not chosen:
        raise BadInput(f"{WHO}: no layer of this network becomes smaller as factors")
    return chosen


def _ranks(model: Model, layers: Sequence[Linear], config: FactorizeConfig, rule: Rule, reading: Reading) -> Ranks:
    if config.rank is not None:
        ranks = Ranks({layer.name: config.rank for layer in layers if saves(layer.shape, config.rank)})
        if not ranks.of:
            raise BadInput(
                f"rank {config.rank} makes no layer smaller (r (out + in) < out in is wanted): take a lower one"
            )
        if stay := [layer for layer in layers if layer.name not in ranks.of]:
            worst = stay[0]
            warnings.warn(
                f"rank {config.rank} would not make {len(stay)} layers smaller, they stay dense (first: {worst.name}, "
                f"{worst.shape[0]} x {worst.shape[1]})", Note, stacklevel=5,
            )  # fmt: skip
        return ranks
    if rule == "uniform":
        return same_share(layers, config.keep)
    heard = sensitivity(model, layers, some_windows(reading.windows)) if rule == "sensitivity" else None
    stats = heard.stats if heard is not None else collect_over(model, layers, reading.runs(model)) if reading else None
    return chosen(layers, config.keep, config.method, stats, heard, config.damping)


def _factors(
    model: Model, new: Model, layers: Sequence[Linear], ranks: Mapping[str, int], config: FactorizeConfig,
    reading: Reading,
) -> Factors:  # fmt: skip
    """The factors of every layer; the weights of `new` become their products."""
    out = Factors()
    if config.method == "plain":
        for layer in track(list(layers), "factoring"):
            _factor(layer, ranks[layer.name], None, config, out)
        return out
    pairs = getattr(model.config, "is_encoder_decoder", False)
    steps = config.sequential and bool(reading.windows) and not pairs
    walked = [layer for layer in layers if steps and layer.block is not None]
    if at_once := [layer for layer in layers if layer not in walked]:
        stats = collect_over(new, at_once, reading.runs(new))
        for layer in track([layer for layer in at_once if _seen(layer, stats)], "factoring"):
            _factor(layer, ranks[layer.name], stats[layer.name], config, out)
    if walked:
        _walk(model, new, walked, ranks, config, reading.windows, out)
    return out


def _seen(layer: Linear, stats: Mapping[str, LayerStats]) -> bool:
    return layer.name in stats and stats[layer.name].count > 0


def _walk(
    model: Model, new: Model, layers: Sequence[Linear], ranks: Mapping[str, int], config: FactorizeConfig,
    windows: Sequence[Sequence[int]], out: Factors,
) -> None:  # fmt: skip
    walk = Walk(new, windows)
    before = Walk(model, windows, still=True) if config.refit else None
    below = iter(before.blocks(None)) if before is not None else None
    for index in walk.blocks("factoring blocks"):
        if below is not None:
            next(below)
        some = [layer for layer in layers if layer.block == index]
        weights = {layer.name: layer.weight.clone() for layer in some}
        stats = walk.look(some) if some else {}
        some = [layer for layer in some if _seen(layer, stats)]
        for layer in some:
            _factor(layer, ranks[layer.name], stats[layer.name], config, out)
        if before is None or not some:
            continue
        twins = [(replace(layer, module=model.network.get_submodule(layer.name)), layer) for layer in some]
        found = crossed(before, walk, twins, HELD if config.ridge is None else 0.0)
        for layer in some:
            if layer.name in found:
                _refit(layer, weights[layer.name], *found[layer.name], config.ridge, out)
    told(walk.seen)


def _refit(layer: Linear, weight: Tensor, fit: Crossed, held: Crossed, ridge: float | None, out: Factors) -> None:
    """Of a layer that has its factors. fit, held: text to fit on, and to choose a ridge on where none is given; then
    the fit is made on both."""
    left, right = out.pairs[layer.name]
    if ridge is None:
        ridge = chosen_ridge(weight, left, right, (fit.moment, fit.cross), (held.moment, held.cross))
        fit = fit.joined(held)
    if math.isfinite(ridge):
        out.ridges[layer.name] = ridge
        out.put(layer, refitted(weight, left, right, fit.moment, fit.cross, ridge), right)


def _factor(layer: Linear, rank: int, stats: LayerStats | None, config: FactorizeConfig, out: Factors) -> None:
    weight = layer.weight.double()
    moment = metric(config.method, layer.shape[1], stats, config.damping)
    out.put(layer, *factors(weight, moment.to(weight), rank))
    if stats is not None and stats.count:
        out.errors[layer.name] = relative_error(layer.weight.double() - weight, weight, stats.moment.double())


def _changed(
    new: Model, config: FactorizeConfig, rule: Rule, layers: Sequence[Linear], ranks: Ranks, out: Factors,
    kept: dict[str, str],
) -> Model:  # fmt: skip
    network = new.network
    shapes = {layer.name: layer.shape for layer in layers}
    made = {name: left.shape[1] for name, (left, _) in out.pairs.items()}
    plan = IntarsiaQuantizationConfig(factors=made)
    lay_factors(network, plan.factors)
    for name, pair in out.pairs.items():
        fill_factors(network.get_submodule(name), *pair)  # type: ignore[arg-type]
    mark(network, plan)
    changed = new.with_network(network, technique=WHO, config=config.model_dump(mode="json"))
    before = sum(o * i for o, i in shapes.values())
    after = sum(made[n] * (o + i) if n in made else o * i for n, (o, i) in shapes.items())
    changed.extras[WHO] = {
        "method": config.method,
        "ranks": rule,
        "parameters_before": before,
        "parameters": after,
        "layers": {
            name: {"rank": rank}
            | ({"error": out.errors[name]} if name in out.errors else {})
            | ({"ridge": out.ridges[name]} if name in out.ridges else {})
            for name, rank in made.items()
        },
        "kept": dict(sorted(kept.items())),
    }
    if ranks.predicted is not None:
        changed.extras[WHO] |= {"predicted_kl": ranks.predicted, "predicted_kl_uniform": ranks.uniform}
    return changed
