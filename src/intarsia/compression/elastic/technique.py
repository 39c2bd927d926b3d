"""`compression.search_architecture`: the best smaller network that a language model holds; and its width alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from intarsia.catalog import Config, technique

if TYPE_CHECKING:
    from intarsia.data import Text
    from intarsia.models import Model


class SearchArchitectureConfig(Config):
    """Settings of `compression.search_architecture`."""

    budget: str = Field(
        "params<0.85x",
        description="bounds on params, bytes, latency, energy, like 'bytes<300MB, latency<0.8x' (x: times the model as "
        "it is); what keeps it and diverges least is taken",
    )
    neurons: bool = Field(True, description="let the MLPs have fewer neurons")
    heads: bool = Field(True, description="let attention have fewer key-value heads, each with its query heads")
    most_blocks: float = Field(0.2, ge=0, lt=1, description="most of the blocks that may go, as a share")
    width: bool = Field(
        False, description="let the residual stream be narrower (SliceGPT, one basis for all blocks); embedding and "
        "head are two tables then, which costs a small model with one more than it gains"
    )  # fmt: skip
    uneven: bool = Field(
        False, description="let blocks differ in neurons; such a network loads with intarsia.compression imported, and "
        "engines do not take it"
    )  # fmt: skip
    multiple: int = Field(64, ge=1, description="neurons of an MLP are a multiple of this")
    width_multiple: int = Field(64, ge=1, description="the width is a multiple of this")
    least: float = Field(0.5, gt=0, le=1, description="least share of neurons and of heads that stays")
    least_width: float = Field(0.75, gt=0, le=1, description="least share of the width that stays")
    by: Literal["auto", "knapsack", "evolution", "optuna"] = Field(
        "auto", description="knapsack: exact, for one bound and blocks in the order of their ranking; evolution: "
        "NSGA-II over any set of blocks; optuna: the same by Optuna (extra `search`); auto: knapsack for one bound"
    )  # fmt: skip
    population: int = Field(32, ge=4, description="evolution, optuna: networks of a generation")
    generations: int = Field(20, ge=1, description="evolution, optuna: how many")
    finalists: int = Field(8, ge=1, description="networks that are made and measured, the best by prediction")
    refit: bool = Field(True, description="let what is left make good what went, by least squares")
    ridge: float = Field(
        0.5, ge=0, description="how firmly the weights that are left hold to what they were, in shares of their inputs"
    )
    train_steps: int = Field(
        0, ge=0, description="steps in which the shared weights learn by the sandwich rule, before the search"
    )
    tune: Literal["lora", "all"] = Field("lora", description="what learns: thin matrices beside each layer, or all")
    rank: int = Field(16, ge=1, description="lora: rank of the thin matrices")
    learning_rate: float | None = Field(None, gt=0, description="default: 1e-3 for lora, 5e-5 for all")
    batch_size: int = Field(1, ge=1, description="windows of text in a step")
    tokens: int = Field(4096, ge=2, description="tokens of calibration text, which shared weights also learn from")
    rank_tokens: int = Field(512, ge=2, description="tokens that blocks are ranked and widths tried on")
    quality_tokens: int = Field(2048, ge=2, description="tokens that finalists are judged on")
    prompt_tokens: int = Field(128, ge=1, description="latency: tokens of the prompt that is read")
    new_tokens: int = Field(24, ge=1, description="latency: tokens that are written")
    repeats: int = Field(5, ge=1, description="latency: rounds")
    keep: Path | None = Field(None, description="folder in which a training that was stopped goes on")


class SliceWidthConfig(Config):
    """Settings of `compression.slice_width`."""

    share: float = Field(0.1, gt=0, lt=1, description="share of the residual stream's directions to remove")
    multiple: int = Field(32, ge=1, description="the width that is left is a multiple of this")
    refit: bool = Field(True, description="let what reads the stream make good what went, by least squares")
    ridge: float = Field(
        0.5, ge=0, description="how firmly the weights that are left hold to what they were, in shares of their inputs"
    )
    tokens: int = Field(4096, ge=2, description="tokens of calibration text")


@technique(
    "compression.search_architecture",
    kind="change",
    family="search",
    source="Cai et al. 2020, Once-for-All, arXiv 1908.09791, §3; sandwich rule: Yu & Huang 2019, arXiv 1903.05134; "
    "width: Ashkboos et al. 2024, SliceGPT, arXiv 2401.15024; NSGA-II: Deb et al. 2002",
    needs="weights",
    example={"budget": "params<0.9x", "multiple": 4, "tokens": 128, "rank_tokens": 32, "quality_tokens": 64,
             "finalists": 2},
)  # fmt: skip
def search_architecture(
    model: Model, config: SearchArchitectureConfig, *, calibration: list[Text] | None = None,
    test: list[Text] | None = None, seed: int = 0,
) -> Model:  # fmt: skip
    """The best smaller network within a language model: fewer blocks, neurons, key-value heads, a narrower stream.

    Neurons and heads are sorted by what they write, so that every smaller network is a slice of the full one. What each
    cut costs is predicted (blocks: measured), choices within the budget are found by a knapsack or by NSGA-II, and the
    best are made, refitted and measured on text. The result is a plain, smaller network; `finding` has the Pareto front
    and `extras["compression.search_architecture"]` what was chosen. `distil` it afterwards, with the model as its
    teacher. With `train_steps` the shared weights learn first, so that all of the smaller networks are better.

    - calibration: texts of the domain the model is meant for; by default Python's documentation, where it is installed.
    - test: texts that quality is judged on; default: the last part of calibration, which is then not read before.

    Raises `BadInput` for budgets that arithmetic shows to be out of reach and for networks with experts, several
    towers, or (with `width`) LayerNorms and norms after a block; `OutOfBudget` where nothing measured keeps it."""
    from intarsia.compression.elastic.searching import search as run

    return run(model, config, calibration, test, seed)


@technique(
    "compression.slice_width",
    kind="change",
    family="pruning",
    source="Ashkboos et al. 2024, SliceGPT, arXiv 2401.15024, §3",
    needs="weights",
    example={"share": 0.25, "multiple": 4},
)
def slice_width(model: Model, config: SliceWidthConfig, *, calibration: list[Text] | None = None) -> Model:
    """A narrower residual stream: turned into its principal directions, the minor ones cut off everywhere.

    Gains of the norms are folded into what reads them, which makes one table for embedding and head two. One basis
    serves all blocks, so that the network stays a plain one of its class; SliceGPT's own basis for each block wants
    adapters between them. What reads the stream is refitted by least squares. `extras["compression.slice_width"]` says
    how much of the stream is left.

    - calibration: texts of the domain the model is meant for; by default Python's documentation, where it is installed.

    Raises `BadInput` for networks with LayerNorm, with norms after a block (Gemma 2 and 3), experts, several towers."""
    from intarsia.compression.elastic.searching import slice_width as run

    return run(model, config, calibration)
