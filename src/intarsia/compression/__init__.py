"""Making models small and cheap: weights on a grid of whole numbers, and the engines that run them fast.

    small = compression.quantize(model, bits=4)        # a transformers network; hooks and weights work as before
    fast = compression.export(small)                   # the same numbers for ONNX Runtime GenAI: small and quick on CPU
    plain = compression.dequantize(small)              # an ordinary network with the rounded weights
    less = compression.drop_blocks(model, count=3)     # or prune, narrow, trim_vocabulary: a smaller network
    best = compression.search_architecture(model, budget="params<0.8x", calibration=texts)   # the best slice of it
    thin = compression.factorize(model, keep=0.8)      # linear layers as products of two small matrices
    near = compression.distil(less, teacher=model, train=texts)   # what a cut cost is won back; before quantizing
    fits = compression.fit(model, budget="bytes<90MB, decode>4x", calibration=texts)   # all of these, within a budget

Importing this package also teaches `transformers` to load a folder that holds a quantized or factored network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from intarsia.catalog import Config, technique
from intarsia.compression.advising.technique import AdviseConfig, advise
from intarsia.compression.convolution.technique import (
    DistilFiltersConfig,
    ExportFiltersConfig,
    FactorizeFiltersConfig,
    PruneFiltersConfig,
    QuantizeFiltersConfig,
    RenormalizeConfig,
    SearchFiltersConfig,
    distil_filters,
    export_filters,
    factorize_filters,
    prune_filters,
    quantize_filters,
    renormalize,
    search_filters,
)
from intarsia.compression.distillation.technique import DistilConfig, distil
from intarsia.compression.elastic.technique import (
    SearchArchitectureConfig,
    SliceWidthConfig,
    search_architecture,
    slice_width,
)
from intarsia.compression.factorization.technique import FactorizeConfig, factorize
from intarsia.compression.pruning.technique import (
    DropBlocksConfig,
    NarrowConfig,
    PruneConfig,
    drop_blocks,
    narrow,
    prune,
)
from intarsia.compression.quantization import registration
from intarsia.compression.searching.technique import FitConfig, fit
from intarsia.compression.vocabulary.technique import TrimVocabularyConfig, trim_vocabulary
from intarsia.errors import BadInput

if TYPE_CHECKING:
    from transformers import Cache

    from intarsia.data import Text
    from intarsia.models import Model

__all__ = [
    "AdviseConfig",
    "DistilConfig",
    "DistilFiltersConfig",
    "DropBlocksConfig",
    "ExportConfig",
    "ExportFiltersConfig",
    "FactorizeConfig",
    "FactorizeFiltersConfig",
    "FitConfig",
    "NarrowConfig",
    "PruneConfig",
    "PruneFiltersConfig",
    "QuantizeConfig",
    "QuantizeFiltersConfig",
    "RenormalizeConfig",
    "SearchArchitectureConfig",
    "SearchFiltersConfig",
    "SliceWidthConfig",
    "TrimVocabularyConfig",
    "advise",
    "dequantize",
    "distil",
    "distil_filters",
    "drop_blocks",
    "export",
    "export_filters",
    "factorize",
    "factorize_filters",
    "fit",
    "narrow",
    "prune",
    "prune_filters",
    "quantize",
    "quantize_filters",
    "quantized_cache",
    "renormalize",
    "search_architecture",
    "search_filters",
    "slice_width",
    "trim_vocabulary",
    "tune_kernels",
]

registration.install()


class QuantizeConfig(Config):
    """Settings of `compression.quantize`."""

    bits: Literal[8, 6, 5, 4, 3, 2] = Field(
        8, description="bits of a weight: 8 is nearly free, 4 halves the file once more; below, quality falls quickly"
    )
    average_bits: float | None = Field(
        None, ge=3, le=8, description="bits of a weight in the mean, in place of `bits`: layers get 3 to 8 each, by "
        "how much the predictions hear of their error"
    )  # fmt: skip
    among: tuple[Literal[3, 4, 5, 6, 8], ...] = Field(
        (3, 4, 5, 6, 8), min_length=1, description="bits that average_bits chooses among; (4, 5, 8) are what GGUF has"
    )
    values: Literal["whole", "ternary", "binary", "power"] = Field(
        "whole", description="whole numbers in a row of `bits`, or, in their place, the survey's extremes: ternary (2 "
        "bits), binary (1), powers of two (4)"
    )  # fmt: skip
    method: Literal["nearest", "gptq", "awq", "awq+gptq"] = Field(
        "nearest",
        description="how points of the grid are chosen: the nearest; or by what layers read of a text: inputs scaled "
        "first (awq), each weight's error made good by the next (gptq), or both, the best for 4 bits and fewer",
    )
    group_size: int | None = Field(
        None, ge=8, description="weights of a row that share a scale; default: the whole row for 8 bits, 32 for fewer"
    )
    scheme: Literal["auto", "symmetric", "asymmetric"] = Field(
        "auto", description="whether zero sits in the middle of the grid; auto: symmetric for 8 bits, not for fewer"
    )
    embed: Literal["int8", "int4", "keep"] = Field(
        "int8", description="the input embedding and the output head: 8 bits with a scale a row; groups of 4 bits by "
        "the same method, for the smallest files; or as they are"
    )  # fmt: skip
    sequential: bool = Field(
        True, description="gptq, awq: round block after block on what the rounded ones give; no: quicker, a bit worse"
    )
    damping: float = Field(0.01, ge=0, description="gptq: added to the diagonal of the inputs' moments, in means of it")
    rank: int = Field(
        0, ge=0, description="rank of factors in 8 bits beside each rounded layer, which make good what rounding did: "
        "16 or 32, for 4 bits and fewer"
    )  # fmt: skip
    tokens: int = Field(4096, ge=2, description="gptq, awq, rank: tokens of calibration text that are read")
    skip: tuple[str, ...] = Field((), description="patterns of module names to leave as they are, like '*.down_proj'")
    kernel: Literal["auto", "reference", "packed"] = Field(
        "auto",
        description="4-bit product of up to 16 tokens on CPU: auto and packed use torch's bfloat16 kernel where it "
        "fits, reference always dequantizes",
    )


EIGHT = ("onnx", "ctranslate2")  # engines whose files hold 8 bits


class ExportConfig(Config):
    """Settings of `compression.export`."""

    engine: Literal["onnx-genai", "gguf", "openvino", "ctranslate2", "onnx"] = Field(
        "onnx-genai",
        description="the engine to export for: ONNX Runtime GenAI, one GGUF file for llama.cpp's family, OpenVINO, "
        "CTranslate2; onnx: encoders (BERT and its kind) for ONNX Runtime",
    )
    bits: Literal[4, 8] = Field(
        4, description="bits of a weight in the exported body; 8 with onnx and ctranslate2, their default; openvino: "
        "either"
    )  # fmt: skip
    group_size: Literal[16, 32, 64, 128] = Field(32, description="weights of a row that share a scale")
    embed: Literal["int8", "int4"] = Field(
        "int8", description="bits of the embedding and the head: int4 saves a little more and costs much more quality"
    )
    logits: Literal["all", "last"] = Field(
        "all", description="positions that give logits: all (scoring texts) or last (generation only, quicker prompts)"
    )
    activations: Literal["int8", "float32"] = Field(
        "int8", description="precision the engine rounds activations to inside a 4-bit product: int8 is the quick one"
    )
    mode: Literal["int8", "float"] = Field("int8", description="onnx: 8 bits, or the network in float, to compare with")
    smooth: float = Field(
        0.5, ge=0, le=1, description="onnx: SmoothQuant's alpha, how much of the inputs' outliers weights take over; "
        "0: none, and no text is read"
    )  # fmt: skip
    ranges: Literal["token", "batch"] = Field(
        "token", description="onnx: what shares a range of activations: a token, so that no text changes another's "
        "vector; or the batch, its tokens divided by their largest first: a little quicker and less exact"
    )  # fmt: skip
    weights: Literal["int8", "uint8", "int7"] = Field(
        "int8", description="onnx: how weights are stored; on x86 without VNNI sums of int8 products may "
        "overflow: uint8 or int7 (7 bits) there"
    )  # fmt: skip
    tokens: int = Field(4096, ge=2, description="onnx: tokens of calibration text that are read")

    @model_validator(mode="before")
    @classmethod
    def _own_bits(cls, given: Any) -> Any:
        eight = isinstance(given, dict) and given.get("engine") in EIGHT
        return {"bits": 8, **given} if eight else given


@technique(
    "compression.quantize",
    kind="change",
    family="quantization",
    source="Goel et al. 2020, arXiv 2003.11066, quantization; grids: Jacob et al. 2018, arXiv 1712.05877, §2.1; GPTQ: "
    "Frantar et al. 2023, arXiv 2210.17323; AWQ: Lin et al. 2024, arXiv 2306.00978; factors beside: Zhang et al. 2024, "
    "QERA, arXiv 2410.06040",
    needs="weights",
)
def quantize(model: Model, config: QuantizeConfig, *, calibration: list[Text] | None = None) -> Model:
    """Weight-only quantization to 8 bits or fewer, by rounding to the nearest grid point or by what a text shows.

    Every linear layer (`nn.Linear`, GPT-2's `Conv1D`) gets `bits`; the input embedding and the output head get 8 bits
    with one scale a row, once for both where they are tied. Left as they are: norms, biases, position tables,
    convolutions, and the three-dimensional expert tensors of mixture-of-experts networks with their routers (they are
    listed in `extras["compression.quantize"]["kept"]`, with a warning). A row that the group size does not divide gets
    the largest group that does, with a warning. The network is copied; what was given is not touched. The result saves
    as a Hugging Face folder that `transformers` loads once `intarsia.compression` is imported.

    In PyTorch the gain is the size; for speed on a CPU, `compression.export` it.

    - calibration: text that gptq, awq and rank look at; best of the domain the model is for. Default: Python's
      documentation.

    Raises `BadInput` for a model that is quantized already, and where nothing is left to quantize."""
    from intarsia.compression.quantization.rounding import quantize as run

    return run(model, config, calibration)


@technique(
    "compression.export",
    kind="change",
    family="export",
    source="ONNX Runtime GenAI model builder; MatMulNBits of ONNX Runtime; GGUF of the ggml project; encoders: Xiao et "
    "al. 2023, SmoothQuant, arXiv 2211.10438, §4",
    needs="weights",
    extra="export",
)
def export(model: Model, config: ExportConfig, *, calibration: list[Text] | None = None) -> Model:
    """The same model for a quick engine on CPUs, ready in `exports[engine]`.

    The network of the result is the quantized one whose numbers the exported file holds, bit for bit (but for the
    embedding and head with `embed: int4`): a model that `compression.quantize` brought to 4 bits with this group size
    is exported as it is, any other is quantized first. For ONNX Runtime GenAI every linear layer is stored in 4 bits,
    skipped ones too; in a GGUF file each has the type that holds its own bits; OpenVINO holds 4 and 8 bits, symmetric,
    in blocks of 32; CTranslate2 8 bits with a scale a row.
    `intarsia.models.runtime.open_runtime(path)` runs the folder. The folder is temporary until the model is saved.

    Encoders (`engine: onnx`): the network of the result is the one given, in float; the file holds it in 8 bits, a
    scale an output for weights, a row for tables, a token for activations, and gives the last hidden states without a
    head. `open_runtime(path).embed(texts)` makes sentence vectors; ONNX Runtime alone runs the file.

    - calibration: text whose activations `smooth` looks at. Default: Python's documentation.

    Raises `BadInput` for a network or a setting that the engine does not know, `MissingExtra`."""
    wanted = 8 if config.engine in EIGHT else 4
    if config.bits != wanted and config.engine != "openvino":
        raise BadInput(f"compression.export: engine {config.engine} has {wanted} bits, not {config.bits}")
    if config.engine == "onnx":
        from intarsia.compression.exporting.onnx_encoder import export as encode

        return encode(model, config, calibration)
    if config.mode == "float":
        raise BadInput(f"compression.export: mode float is of engine onnx; engine {config.engine} has 4 bits")
    if config.engine == "gguf":
        from intarsia.compression.exporting.gguf import export as run
    elif config.engine == "openvino":
        from intarsia.compression.exporting.openvino import export as run
    elif config.engine == "ctranslate2":
        from intarsia.compression.exporting.ctranslate2 import export as run
    else:
        from intarsia.compression.exporting.onnx_genai import export as run
    return run(model, config)


def dequantize(model: Model) -> Model:
    """A plain network (no modules of Intarsia) whose weights are the rounded ones, in the dtype the model computes in.

    Factors are multiplied out: the layer that had them is dense again. A model without either is copied as it is."""
    from intarsia.compression.quantization.rounding import dequantize as run

    return run(model)


def tune_kernels(model: Model, repeats: int = 3) -> Model:
    """A copy of a quantized model in which every 4-bit layer uses the kernel that was quicker here, at one token.

    It times each shape `repeats` times, so two machines (or two calls) may choose differently and give outputs that
    differ by rounding: never called unasked. The choice is noted in `extras["compression.quantize"]["kernels"]`."""
    from intarsia.compression.quantization.rounding import tune_kernels as run

    return run(model, repeats)


def quantized_cache(model: Model, bits: Literal[8, 4] = 8) -> Cache:
    """An empty cache for the keys and values of a language model, in 8 or 4 bits: a quarter or an eighth of float32's
    bytes. `model.network.generate(..., past_key_values=quantized_cache(model))`.

    Raises `BadInput` for models without a cache of full attention."""
    from intarsia.compression.quantization.caches import quantized_cache as run

    return run(model, bits)
