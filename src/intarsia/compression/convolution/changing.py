"""What the techniques do to a `Model`: pictures to pixels, the change on a copy, learning, statistics, facts."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from intarsia.compression.convolution.hf import settled
from intarsia.compression.convolution.narrowing import prune_network
from intarsia.compression.convolution.networks import accuracy, answers, check_network, check_pixels, mode
from intarsia.compression.convolution.normalising import norms, reestimate
from intarsia.compression.convolution.pictures import pixels_and_labels
from intarsia.compression.convolution.quantizing import practise, quantize_network, settle
from intarsia.compression.convolution.recovering import Lesson, recover
from intarsia.compression.convolution.searching import search_network
from intarsia.compression.convolution.substituting import factorize_network
from intarsia.compression.convolution.zeroing import bytes_at_rest, zero_network
from intarsia.errors import BadInput
from intarsia.measure.counting import count_macs
from intarsia.measure.size import count_parameters, tensor_bytes

if TYPE_CHECKING:
    from intarsia.compression.convolution.technique import (
        DistilFiltersConfig,
        FactorizeFiltersConfig,
        LearnConfig,
        PruneFiltersConfig,
        QuantizeFiltersConfig,
        RenormalizeConfig,
        SearchFiltersConfig,
    )
    from intarsia.models import Model

Pictures = Sequence[Any]


def renormalize(model: Model, config: RenormalizeConfig, train: Pictures) -> Model:
    """See `intarsia.compression.renormalize`."""
    name = "compression.renormalize"
    if not norms(model.network):
        raise BadInput(f"{name}: {type(model.network).__name__} has no batch norms with running statistics")
    pixels, _ = pixels_and_labels(model, train[: config.inputs], name)
    check_pixels(model.network, pixels, name)
    network = copy.deepcopy(model.network)
    count = reestimate(network, pixels, config.batch, config.inputs)
    changed = model.with_network(network, technique=name, config=config.model_dump(mode="json"))
    changed.extras[name] = {"norms": count, "pictures": len(pixels)}
    return changed


def quantize(
    model: Model, config: QuantizeFiltersConfig, train: Pictures, test: Pictures | None, seed: int
) -> Model:  # fmt: skip
    """See `intarsia.compression.quantize_filters`."""
    job = _Job(model, "compression.quantize_filters", config, train, test, seed)
    given: dict[str, Any] = {"terms": config.terms, "edges": config.edges, "skip": config.skip}
    network = copy.deepcopy(model.network)
    losses: list[float] = []
    if config.epochs:
        practise(network, config.format, **given)
        losses = job.learn(network)
        settle(network)
    coded = quantize_network(network, config.format, **given, pixels=job.pixels)
    return job.done(network, losses, layers=len(coded))


def prune(model: Model, config: PruneFiltersConfig, train: Pictures, test: Pictures | None, seed: int) -> Model:
    """See `intarsia.compression.prune_filters`."""
    job = _Job(model, "compression.prune_filters", config, train, test, seed)
    weights = config.grain == "weights"
    if weights and config.times is not None:
        raise BadInput(f"{job.name}: times counts for filters; zeros take no memory away while a network runs")
    if weights:
        scope = "global" if config.scope == "global" else "layer"
        network = zero_network(model.network, config.share, scope=scope, pixels=job.pixels)
    else:
        network = prune_network(
            model.network, job.pixels, config.share, times=config.times, score=config.score, scope=config.scope,
            multiple=config.multiple,
        )  # fmt: skip
    return job.done(network, job.learn(network, keep_zeros=weights))


def factorize(
    model: Model, config: FactorizeFiltersConfig, train: Pictures, test: Pictures | None, seed: int
) -> Model:  # fmt: skip
    """See `intarsia.compression.factorize_filters`."""
    job = _Job(model, "compression.factorize_filters", config, train, test, seed)
    network, errors = factorize_network(
        model.network, job.pixels, config.kind, config.share, times=config.times, skip=config.skip, steps=config.steps,
        seed=seed,
    )  # fmt: skip
    return job.done(network, job.learn(network), errors={n: list(pair) for n, pair in errors.items()})


def distil(
    model: Model, config: DistilFiltersConfig, teacher: Model, train: Pictures, test: Pictures | None, seed: int
) -> Model:
    """See `intarsia.compression.distil_filters`."""
    job = _Job(model, "compression.distil_filters", config, train, test, seed)
    network = copy.deepcopy(model.network)
    return job.done(network, job.learn(network, teacher.network))


def search(model: Model, config: SearchFiltersConfig, train: Pictures, test: Pictures | None, seed: int) -> Model:
    """See `intarsia.compression.search_filters`."""
    job = _Job(model, "compression.search_filters", config, train, test, seed)
    asked = {
        "bytes": None if config.times is None else 1 / config.times,
        "latency": config.latency,
        "macs": config.macs,
    }
    budget = {name: share for name, share in asked.items() if share is not None}
    if not budget:
        raise BadInput(f"{job.name}: give a budget: times, latency or macs")
    if job.labels is None:
        raise BadInput(f"{job.name}: candidates are ranked by accuracy, and some pictures of train have no label")
    order = torch.randperm(len(job.pixels), generator=torch.Generator().manual_seed(seed)).to(job.pixels.device)
    count = max(1, round(config.held * len(order)))
    held, rest = order[:count], order[count:]
    if not len(rest):
        raise BadInput(f"{job.name}: {len(order)} pictures are too few to hold some out; give more, or less `held`")
    found = search_network(
        model.network, job.pixels[rest], job.labels[rest], job.pixels[held], job.labels[held], budget=budget,
        lesson=replace(job.lesson(), epochs=config.shared_epochs), by=config.by, discard=config.discard,
        rounds=config.rounds, population=config.population, multiple=config.multiple, seed=seed,
    )  # fmt: skip
    changed = job.done(found.best, job.learn(found.best), choice=asdict(found.choice))
    changed.finding = found.finding
    return changed


class _Job:
    """One technique's pictures and settings, checked before any work."""

    def __init__(
        self, model: Model, name: str, config: LearnConfig, train: Pictures, test: Pictures | None, seed: int
    ):  # fmt: skip
        self.model, self.name, self.config, self.seed = model, name, config, seed
        check_network(model.network, name)
        self.pixels, self.labels = pixels_and_labels(model, train, name)
        check_pixels(model.network, self.pixels, name, self.labels)
        self.test = None
        if test is not None:
            pixels, labels = pixels_and_labels(model, test, name)
            if labels is None:
                raise BadInput(f"{name}: some pictures of test have no label, so accuracy cannot be told")
            self.test = (pixels, labels)

    def lesson(self) -> Lesson:
        """How the settings say it learns."""
        names = {field.name for field in fields(Lesson)}
        return Lesson(**{key: value for key, value in self.config.model_dump().items() if key in names})

    def learn(self, network: nn.Module, teacher: nn.Module | None = None, keep_zeros: bool = False) -> list[float]:
        """Loss of every step; none with `epochs` 0."""
        if not self.config.epochs:
            return []
        teacher = self.model.network if teacher is None else teacher
        return recover(
            network,
            self.pixels,
            self.labels,
            teacher,
            self.lesson(),
            seed=self.seed,
            keep_zeros=keep_zeros,
            who=self.name,
        )

    def done(self, network: nn.Module, losses: list[float], **facts: Any) -> Model:
        """The changed model, with its facts."""
        before, pixels = self.model.network, self.pixels[:1]
        said: dict[str, Any] = {}
        for key, one in (("before", before), ("after", network)):
            said[key] = {
                "parameters": count_parameters(one)[0],
                "bytes": tensor_bytes(one),
                "bytes_at_rest": bytes_at_rest(one),
                "macs": _macs(one, pixels),
            }
            if self.test is not None:
                said[key]["accuracy"] = accuracy(one, *self.test)
        changed = self.model.with_network(
            settled(network), technique=self.name, config=self.config.model_dump(mode="json")
        )
        changed.extras[self.name] = said | facts | ({"loss": [losses[0], losses[-1]]} if losses else {})
        return changed


def _macs(network: nn.Module, pixels: Tensor) -> int:
    with mode(network, training=False):
        return count_macs(lambda: answers(network, pixels)).macs
