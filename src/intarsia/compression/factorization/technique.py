"""`compression.factorize`: linear layers as products of two small matrices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from intarsia.catalog import Config, technique

if TYPE_CHECKING:
    from intarsia.data import ImageText, Text
    from intarsia.models import Model


class FactorizeConfig(Config):
    """Settings of `compression.factorize`."""

    method: Literal["whitened", "asvd", "plain"] = Field(
        "whitened",
        description="what factors are nearest to: whitened, the layer's outputs over a text; asvd, its weights by the "
        "size of their inputs; plain, its weights (the last two ruin small networks and are here to compare)",
    )
    keep: float = Field(0.8, gt=0, lt=1, description="share of the layers' parameters that is left")
    ranks: Literal["auto", "sensitivity", "energy", "uniform"] = Field(
        "auto",
        description="how layers share the budget: by what the predictions hear of them (sensitivity), by the share of "
        "their outputs that is lost (energy), or alike; auto: sensitivity where there are predictions and a text",
    )
    rank: int | None = Field(
        None, ge=1, description="one rank for all layers in place of `keep`; layers it would not make smaller stay"
    )
    sequential: bool = Field(
        True, description="factor block after block on what the factored ones below give; no: all on one pass, before"
    )
    refit: bool = Field(
        True, description="sequential: let each layer's second factor make good what the blocks below do otherwise now"
    )
    ridge: float | None = Field(
        None, ge=0, description="refit: how firmly the factor holds to what it was, in shares of size; default: chosen "
        "for each layer on a quarter of the text, held out"
    )  # fmt: skip
    damping: float = Field(
        1e-4, ge=0, description="whitened: added to the diagonal of the inputs' moments, in means of it"
    )
    tokens: int = Field(4096, ge=2, description="tokens of calibration text")
    skip: tuple[str, ...] = Field((), description="patterns of layer names to leave as they are, like '*.down_proj'")


@technique(
    "compression.factorize",
    kind="change",
    family="factorization",
    source="Wang et al. 2024, SVD-LLM, arXiv 2403.07378, §3 (whitening and refit); Yuan et al. 2023, ASVD, "
    "arXiv 2312.05821, §3; Goel et al. 2020, arXiv 2003.11066, §3.2-3.3",
    example={"method": "plain", "keep": 0.9},
)
def factorize(
    model: Model,
    config: FactorizeConfig,
    *,
    calibration: list[Text] | None = None,
    images: list[ImageText] | None = None,
) -> Model:
    """Low-rank factorization: the matrix of a linear layer becomes a product A C of two that have fewer parameters.

    A layer [out, in] at rank r has r (out + in) weights. Of all layers in the blocks (`nn.Linear`, GPT-2's `Conv1D`)
    `keep` is left in sum; the ranks are chosen by layer, and a layer for which no rank pays stays dense. Embeddings,
    the head, shared weights, what is outside of the blocks and the three-dimensional tensors of experts stay as they
    are.
    `extras["compression.factorize"]` says which rank each layer has, its error |(A C - W) x|^2 / |W x|^2 over the text,
    the ridge of its refit (none: a refit did not help on held-out text), and what was left, with the reason.

    The network keeps its sites and can be trained, saved and read by `transformers` where `intarsia.compression` was
    imported; `compression.dequantize` multiplies the factors out. `compression.quantize` afterwards rounds the factors.
    To make good the error of rounding by factors give `compression.quantize` a `rank`.

    - calibration: texts of the domain the model is meant for; by default Python's documentation, where it is installed.
      Method plain reads none, unless ranks are to be chosen by sensitivity.
    - images: pictures for networks that look at some; the text tower of CLIP and its like reads their captions, or
      `calibration`. Layers that nothing reached stay dense.

    Raises `BadInput` for quantized and factored networks, settings that contradict each other, a budget that no rank
    keeps, and networks that take more than a text where they were given no images."""
    from intarsia.compression.factorization.factorizing import factorize as run

    return run(model, config, calibration, images)
