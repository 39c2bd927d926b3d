"""The techniques: new batch-norm statistics, filters on few values, fewer filters, compact filters, distillation, and
export, for networks of filters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from intarsia.catalog import Config, technique

if TYPE_CHECKING:
    from intarsia.data import ImageText
    from intarsia.models import Model


class LearnConfig(Config):
    """How a changed network learns from the one it was."""

    epochs: float = Field(4, ge=0, description="times that the pictures are learnt from; 0: not at all")
    batch: int = Field(64, ge=2, description="pictures of a step")
    learning_rate: float = Field(2e-3, gt=0, description="AdamW's peak learning rate, of one cycle")
    temperature: float = Field(4.0, gt=0, description="softens the teacher's and the student's answers")
    soft: float = Field(0.7, gt=0, le=1, description="the teacher's share of the loss, where pictures have labels")
    hints: tuple[str, ...] = Field((), description="names of modules whose output is to be the teacher's")
    hint_weight: float = Field(1.0, gt=0, description="weight of the hints' loss")
    shift: int = Field(0, ge=0, description="pixels by which pictures are moved at random while learning")
    flip: bool = Field(False, description="mirror pictures at random while learning")


class RenormalizeConfig(Config):
    """Settings of `compression.renormalize`."""

    inputs: int = Field(1000, ge=2, description="pictures that are read at most")
    batch: int = Field(256, ge=2, description="pictures at once")


class QuantizeFiltersConfig(LearnConfig):
    """Settings of `compression.quantize_filters`."""

    format: Literal["int8", "int6", "int5", "int4", "int3", "int2", "ternary", "binary", "power"] = Field(
        "int8",
        description="values of a filter's weights, with one scale a filter: whole numbers of so many bits; -1, 0 and "
        "1; -1 and 1; or powers of two",
    )
    terms: float = Field(
        1.0, ge=1, le=2, description="power: powers of two that a weight is the sum of, in the mean over filters"
    )
    edges: Literal["int8", "keep"] = Field(
        "int8",
        description="the first layer of filters (with 4 bits and fewer) and linear layers: 8 bits, or as they are",
    )
    skip: tuple[str, ...] = Field((), description="patterns of layer names to leave as they are")
    epochs: float = Field(
        0, ge=0, description="times that the pictures are learnt from, rounded, before the codes are put in place"
    )


class PruneFiltersConfig(LearnConfig):
    """Settings of `compression.prune_filters`."""

    grain: Literal["filters", "weights"] = Field(
        "filters",
        description="filters: whole ones go and the network is smaller; weights: the smallest become zero (bytes at "
        "rest only: nothing is faster by it)",
    )
    share: float = Field(0.3, ge=0, lt=1, description="share of filters, or of weights, that goes")
    times: float | None = Field(
        None, ge=1, description="filters: how many times less memory the network is to take, in place of `share`"
    )
    score: Literal["l2", "gamma"] = Field(
        "l2", description="what a filter is worth: the norm of all weights tied to it, or its batch norms' scales"
    )
    scope: Literal["group", "global"] = Field(
        "group", description="whether every group of filters (every layer of weights) loses the same share, or all do"
    )
    multiple: int = Field(4, ge=1, description="filters left in a group are a multiple of this")


class FactorizeFiltersConfig(LearnConfig):
    """Settings of `compression.factorize_filters`."""

    kind: Literal["tucker", "polyadic", "spatial", "separable", "grouped", "bottleneck", "fire"] = Field(
        "tucker", description="what takes the place of a layer of filters"
    )
    share: float = Field(
        0.5, gt=0, le=1, description="share of the ranks (widths, one over the groups) a layer can have"
    )
    times: float | None = Field(
        None, ge=1, description="how many times less memory the network is to take, in place of `share`"
    )
    steps: int = Field(100, ge=0, description="steps in which each layer is taught what the old one gave")
    skip: tuple[str, ...] = Field((), description="patterns of layer names to leave as they are")


class DistilFiltersConfig(LearnConfig):
    """Settings of `compression.distil_filters`."""

    epochs: float = Field(10, gt=0, description="times that the pictures are learnt from")


class SearchFiltersConfig(LearnConfig):
    """Settings of `compression.search_filters`."""

    times: float | None = Field(4.0, ge=1, description="how many times less memory the network is to take")
    latency: float | None = Field(
        None,
        gt=0,
        le=1,
        description="most time of a picture, as a share of what it takes now; measured here in PyTorch",
    )
    macs: float | None = Field(None, gt=0, le=1, description="most multiply-accumulates, as a share of what there are")
    by: Literal["evolution", "optuna"] = Field(
        "evolution", description="parents and children; or Optuna's sampler (extra `search`)"
    )
    discard: Literal["none", "synflow", "naswot"] = Field(
        "none", description="a guess without training that throws away half of twice as many candidates"
    )
    rounds: int = Field(8, ge=1, description="generations")
    population: int = Field(24, ge=4, description="networks that a generation tries")
    multiple: int = Field(4, ge=1, description="filters of a group are a multiple of this")
    shared_epochs: float = Field(4, ge=0, description="times that the shared weights learn from the pictures")
    held: float = Field(0.2, gt=0, lt=0.9, description="share of the pictures that candidates are ranked by")


class ExportFiltersConfig(Config):
    """Settings of `compression.export_filters`."""

    mode: Literal["static", "dynamic", "float"] = Field(
        "static",
        description="static: 8-bit weights and activations, ranges from the pictures; float: as it is; dynamic: ranges "
        "at run time, which is slower than float for filters",
    )
    pictures: int = Field(300, ge=1, description="static: pictures that ranges are taken from, at most")
    reduce_range: bool = Field(
        False, description="7-bit weights: safe from overflow on processors without 8-bit dot products, a bit coarser"
    )


@technique(
    "compression.renormalize",
    kind="change",
    family="convolutions",
    source="Ioffe & Szegedy 2015, arXiv 1502.03167, algorithm 2; Sun et al. 2019, arXiv 1906.00625",
    needs="pictures",
    extra="vision",
)
def renormalize(model: Model, config: RenormalizeConfig, *, train: list[ImageText]) -> Model:
    """Take the statistics of a network's batch norms again, in one pass over pictures; nothing else changes.

    The step after whatever changed weights elsewhere, and for pictures of another kind than those it was trained on.
    Raises `BadInput` for a network without batch norms."""
    from intarsia.compression.convolution.changing import renormalize as run

    return run(model, config, train)


@technique(
    "compression.quantize_filters",
    kind="change",
    family="convolutions",
    source="Goel et al. 2020, arXiv 2003.11066, quantization; TWN, arXiv 1605.04711; XNOR-Net, arXiv 1603.05279, §3.1; "
    "FLightNN, arXiv 1904.02835",
    needs="pictures",
    extra="vision",
)
def quantize_filters(
    model: Model, config: QuantizeFiltersConfig, *, train: list[ImageText], test: list[ImageText] | None = None,
    seed: int = 0,
) -> Model:  # fmt: skip
    """Filters on few values: whole numbers of 8 to 2 bits, ternary, binary, or powers of two, with a scale a filter.

    The batch norms' statistics are taken again from `train`: for 3 bits and fewer that is most of what rounding cost.
    With `epochs` the network first learns rounded, from what it was. In PyTorch the gain is the size; for speed,
    `compression.export_filters` (8 bits). The folder loads once `intarsia.compression` is imported.

    - test: labelled pictures; accuracy before and after is noted in `extras`."""
    from intarsia.compression.convolution.changing import quantize as run

    return run(model, config, train, test, seed)


@technique(
    "compression.prune_filters",
    kind="change",
    family="convolutions",
    source="Goel et al. 2020, arXiv 2003.11066, pruning; Li et al. 2017, arXiv 1608.08710; Liu et al. 2017, arXiv "
    "1708.06519; Fang et al. 2023, arXiv 2301.12900, §3",
    needs="pictures",
    extra="vision",
)
def prune_filters(
    model: Model, config: PruneFiltersConfig, *, train: list[ImageText], test: list[ImageText] | None = None,
    seed: int = 0,
) -> Model:  # fmt: skip
    """Take the least needed filters out, with all that knows of them, or set the smallest weights to zero; then learn
    from what the network was.

    Channels that are added to one another go together. Where a network's config can name the widths that are left
    (ResNet's basic layers), the folder is a plain Hugging Face one; else it loads once `intarsia.compression` is
    imported.

    - test: labelled pictures; accuracy before and after is noted in `extras`."""
    from intarsia.compression.convolution.changing import prune as run

    return run(model, config, train, test, seed)


@technique(
    "compression.factorize_filters",
    kind="change",
    family="convolutions",
    source="Goel et al. 2020, arXiv 2003.11066, compact filters and factorization; Tucker: arXiv 1511.06530; CP: arXiv "
    "1412.6553; spatial: arXiv 1405.3866; separable: arXiv 1704.04861; grouped: arXiv 1707.01083; fire: 1602.07360",
    needs="pictures",
    extra="vision",
)
def factorize_filters(
    model: Model, config: FactorizeFiltersConfig, *, train: list[ImageText], test: list[ImageText] | None = None,
    seed: int = 0,
) -> Model:  # fmt: skip
    """Compact layers in the place of filters: factors of the old ones, separable, grouped, bottleneck or fire layers.

    Each is taught on what the old layer gave, then the whole learns from what the network was. Fewer operations
    need not be less time: there are more calls. Measure in the engine that will run it.

    - test: labelled pictures; accuracy before and after is noted in `extras`."""
    from intarsia.compression.convolution.changing import factorize as run

    return run(model, config, train, test, seed)


@technique(
    "compression.distil_filters",
    kind="change",
    family="convolutions",
    source="Hinton et al. 2015, arXiv 1503.02531, §2; FitNets: Romero et al. 2015, arXiv 1412.6550, §2.2",
    needs="pictures",
    extra="vision",
)
def distil_filters(
    model: Model, config: DistilFiltersConfig, *, teacher: Model, train: list[ImageText],
    test: list[ImageText] | None = None, seed: int = 0,
) -> Model:  # fmt: skip
    """A network of filters learns to answer as a larger one does, on pictures; labels count where all have one.

    - teacher: of the same classes; its architecture may be any other."""
    from intarsia.compression.convolution.changing import distil as run

    return run(model, config, teacher, train, test, seed)


@technique(
    "compression.search_filters",
    kind="change",
    family="convolutions",
    source="Goel et al. 2020, arXiv 2003.11066, architecture search; Once-for-All, arXiv 1908.09791, §3; sandwich: "
    "arXiv 1903.05134, §3.2; evolution: arXiv 1802.01548",
    needs="pictures",
    extra="vision",
)
def search_filters(
    model: Model, config: SearchFiltersConfig, *, train: list[ImageText], test: list[ImageText] | None = None,
    seed: int = 0,
) -> Model:  # fmt: skip
    """The best narrower, shallower network with smaller kernels, within budgets of memory, work and measured time.

    The network becomes one that holds all of these on shared weights, which learn by the sandwich rule; candidates are
    tried on pictures held out, and the one taken learns from what the network was. `finding` shows the Pareto front.

    - train: labelled pictures. test: labelled pictures; accuracy before and after is noted in `extras`."""
    from intarsia.compression.convolution.changing import search as run

    return run(model, config, train, test, seed)


@technique(
    "compression.export_filters",
    kind="change",
    family="convolutions",
    source="Jacob et al. 2018, arXiv 1712.05877, §2 (whole-number inference); ONNX Runtime's static quantization",
    needs="pictures",
    extra="export",
)
def export_filters(model: Model, config: ExportFiltersConfig, *, train: list[ImageText]) -> Model:
    """The same network as an ONNX file with 8-bit weights and activations, ready in `exports["onnx"]`: the quick form
    on a CPU.

    The network of the result is the one that was given; the file is temporary until the model is saved.
    `extras` says how near the file's answers are on the pictures. `intarsia.compression.convolution.open_onnx` runs it.

    - train: pictures that ranges of activations are taken from."""
    from intarsia.compression.convolution.exporting import export as run

    return run(model, config, train)
