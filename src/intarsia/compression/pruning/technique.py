"""`compression.prune`, `compression.narrow`, `compression.drop_blocks`: three grains of leaving things out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from intarsia.catalog import Config, technique

if TYPE_CHECKING:
    from intarsia.data import Text
    from intarsia.models import Model


class PruneConfig(Config):
    """Settings of `compression.prune`."""

    method: Literal["sparsegpt", "wanda", "magnitude"] = Field(
        "sparsegpt",
        description="sparsegpt: the other weights make good what a zero spoils; wanda: size times what the input is "
        "like; magnitude: size alone, without any text",
    )
    sparsity: float | None = Field(
        None, gt=0, lt=1, description="share of each layer's weights that become zero; default: 0.5, or the pattern's"
    )
    pattern: str | None = Field(
        None,
        pattern=r"^\d+:\d+$",
        description="N:M, like 2:4 (in a recipe with quotes): N weights of every M neighbours stay; default: anywhere",
    )
    scope: Literal["layer", "global"] = Field(
        "layer", description="magnitude: whether layers are alike in sparsity, or one threshold holds for all of them"
    )
    ratios: dict[str, float] = Field(
        {}, description="sparsity of layers whose name a pattern matches, like '*.down_proj=0.3'; the first one counts"
    )
    skip: tuple[str, ...] = Field((), description="patterns of layer names to leave as they are, like '*.down_proj'")
    sequential: bool = Field(
        True, description="read a block's inputs after the blocks below were pruned; no: all in one pass, before"
    )
    damping: float = Field(0.01, gt=0, description="sparsegpt: added to the inputs' second moment, in means of it")
    block: int = Field(64, ge=1, description="sparsegpt: columns among which weights are compared")
    tokens: int = Field(4096, ge=2, description="tokens of calibration text")


class NarrowConfig(Config):
    """Settings of `compression.narrow`."""

    neurons: float = Field(0.25, ge=0, lt=1, description="share of the neurons of every MLP to remove")
    multiple: int = Field(32, ge=1, description="the neurons that are left in an MLP are a multiple of this")
    heads: int = Field(
        0, ge=0, description="key-value heads to remove from every block, each with the query heads that read it"
    )
    refit: bool = Field(True, description="let what is left make good what went, by least squares")
    ridge: float = Field(
        0.5, ge=0, description="how firmly the weights that are left hold to what they were, in shares of their inputs"
    )
    tokens: int = Field(4096, ge=2, description="tokens of calibration text")


class DropBlocksConfig(Config):
    """Settings of `compression.drop_blocks`."""

    count: int = Field(1, ge=1, description="blocks to remove")
    blocks: tuple[int, ...] = Field(
        (), description="blocks to remove, by their numbers; default: those that the ranking puts last"
    )
    rank: Literal["divergence", "influence"] = Field(
        "divergence",
        description="divergence: KL of the next token with the block left out; influence: how far a block turns the "
        "stream (one forward only; blind to blocks that write little on which much depends)",
    )
    greedy: bool = Field(
        True, description="divergence: rank again after each removal; no: remove the last ones of one ranking"
    )
    tokens: int = Field(512, ge=2, description="tokens of text to rank on")


@technique(
    "compression.prune",
    kind="change",
    family="pruning",
    source="Frantar & Alistarh 2023, SparseGPT, arXiv 2301.00774, algorithm 1; Sun et al. 2023, Wanda, arXiv "
    "2306.11695, eq. 1; N:M: Mishra et al. 2021, arXiv 2104.08378; magnitude: Han et al. 2015, arXiv 1506.02626",
    example={"method": "magnitude", "pattern": "2:4"},
)
def prune(model: Model, config: PruneConfig, *, calibration: list[Text] | None = None) -> Model:
    """Unstructured and N:M pruning: weights of the blocks' linear layers become zero.

    The network keeps its shape, and is a plain network with zeros in it: smaller only where something packs zeros, and
    no faster in PyTorch on a CPU. Embeddings, the head, what is outside of the blocks and the three-dimensional tensors
    of experts stay as they are (`extras["compression.prune"]["kept"]` says why). `extras` also holds each layer's
    sparsity and, where text was read, its error: |(W' - W) x|^2 / |W x|^2 over the text.

    - calibration: texts of the domain the model is meant for, for sparsegpt and wanda; by default Python's
      documentation, where it is installed.

    Raises `BadInput` for settings that contradict each other, rows that a pattern does not divide, quantized networks,
    and, where text is read, networks that take more than a text."""
    from intarsia.compression.pruning.sparsifying import prune as run

    return run(model, config, calibration)


@technique(
    "compression.narrow",
    kind="change",
    family="pruning",
    source="Goel et al. 2020, arXiv 2003.11066, pruning; least squares on the kept inputs: He et al. 2017, arXiv "
    "1707.06168, §3; heads in groups: Ainslie et al. 2023, arXiv 2305.13245",
    example={"neurons": 0.25, "multiple": 4},
)
def narrow(model: Model, config: NarrowConfig, *, calibration: list[Text] | None = None) -> Model:
    """Structured pruning: neurons of the MLPs and attention heads go, and the network is really narrower.

    A neuron's score is its mean square times the squared norm of what it writes; a key-value head's, the mean square of
    what its query heads write together. The lowest go, as many in every block, for the config of a plain Hugging Face
    network knows one width. Blocks are done one after the other, and what is left is refitted by least squares to
    write what all wrote together. `extras["compression.narrow"]` says what was kept in each block, and each part's
    error: |what it writes now - what it wrote|^2 / |what it wrote|^2 over the text.

    - calibration: texts of the domain the model is meant for; by default Python's documentation, where it is installed.

    Raises `BadInput` where the network has no such parts (mixtures of experts), takes more than a text, or cannot be
    written with fewer heads: GPT-2 and BERT derive a head's width from their number."""
    from intarsia.compression.pruning.narrowing import narrow as run

    return run(model, config, calibration)


@technique(
    "compression.drop_blocks",
    kind="change",
    family="pruning",
    source="Men et al. 2024, ShortGPT, arXiv 2403.03853, §3 (block influence); measured divergence and greedy removal: "
    "Kim et al. 2024, Shortened LLaMA, arXiv 2402.02834, §3.2",
    example={"count": 1},
)
def drop_blocks(model: Model, config: DropBlocksConfig, *, calibration: list[Text] | None = None) -> Model:
    """Whole blocks go, those whose absence changes least what the model says.

    The network is made anew with fewer blocks, so that its cache, its lists of layer kinds and its config fit. What
    every block is worth, by influence and by divergence, is told when the change ends (`model.finding`).

    - calibration: texts of the domain the model is meant for; by default Python's documentation, where it is installed.
      With `blocks` given no text is read.

    Raises `BadInput` where no block would be left, for a ranking by divergence without logits, networks that take more
    than a text, and those that transformers cannot build with fewer blocks."""
    from intarsia.compression.pruning.dropping import drop_blocks as run

    return run(model, config, calibration)
