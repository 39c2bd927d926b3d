"""Export to ONNX Runtime GenAI: its model builder makes the graph, our codes go into it."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import nn

from intarsia.compression import ExportConfig, QuantizeConfig, dequantize
from intarsia.compression.exporting import build, initializers
from intarsia.compression.exporting.exported import exported, without_factors
from intarsia.compression.exporting.plain import save_plain
from intarsia.compression.factorization.modules import has_factors
from intarsia.compression.quantization.modules import Quantized, QuantLinear, holder
from intarsia.compression.quantization.rounding import quantize
from intarsia.errors import BadInput, IntarsiaError, MissingExtra
from intarsia.models import Model
from intarsia.progress import tell

ENGINE = "onnx-genai"
# Classes whose exports were checked against the network's own logits; the builder knows more, unchecked here.
SUPPORTED = (
    "LlamaForCausalLM",
    "MistralForCausalLM",
    "Qwen2ForCausalLM",
    "Qwen3ForCausalLM",
    "GraniteForCausalLM",
)
SPECIAL_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


def export(model: Model, config: ExportConfig) -> Model:
    """See `intarsia.compression.export`."""
    check(model)
    model = without_factors(model)
    check_blocks(model, config.group_size)
    quantized = model if _fits(model, config) else _quantized(model, config)
    folder = Path(tempfile.mkdtemp(prefix="intarsia-export-"))
    export_onnx_genai(
        quantized,
        folder / ENGINE,
        group_size=config.group_size,
        embed="int4" if _in_four(quantized) else config.embed,
        logits=config.logits,
        activations=config.activations,
    )
    size = sum(f.stat().st_size for f in (folder / ENGINE).glob("model.onnx*"))
    return exported(quantized, config, ENGINE, folder, {"bytes": size, "logits": config.logits})


def check(model: Model) -> None:
    """`MissingExtra` without the builder, `BadInput` for a network it cannot build."""
    for package in ("onnxruntime_genai", "onnx", "onnx_ir", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtra("export to ONNX Runtime GenAI", "export")
    kind = type(model.network).__name__
    if kind not in SUPPORTED:
        raise BadInput(f"no export to {ENGINE} for {kind}; supported: {', '.join(SUPPORTED)}")
    if model.tokenizer is None:
        raise BadInput(f"export to {ENGINE} wants a tokenizer: wrap(network, tokenizer)")


def check_blocks(model: Model, group_size: int) -> None:
    """`BadInput` when some row has an odd number of blocks: the builder packs zero points in pairs and fails."""
    widths = {m.weight.shape[1] for _, m in _layers(model.network)}
    for width in sorted(widths):
        if -(-width // group_size) % 2:
            fits = [g for g in (128, 64, 32, 16) if all(-(-w // g) % 2 == 0 for w in widths)]
            hint = f"take {' or '.join(map(str, fits))}" if fits else "this network cannot be exported"
            raise BadInput(f"group_size {group_size} cuts rows of {width} into an odd number of blocks; {hint}")


def _layers(network: Any) -> Iterator[tuple[str, nn.Module]]:
    head = network.get_output_embeddings()
    for name, module in network.named_modules():
        if isinstance(module, QuantLinear | nn.Linear) or module is head:
            yield name, module


def _fits(model: Model, config: ExportConfig) -> bool:
    """Whether the model is on 4-bit grids whose groups the file's blocks can hold."""
    grids = [m.grid for m in model.network.modules() if isinstance(m, Quantized)]
    body = [grid for grid in grids if grid.bits == config.bits and grid.values == "whole"]
    return bool(body) and all(grid.group and grid.group % config.group_size == 0 for grid in body)


def _quantized(model: Model, config: ExportConfig) -> Model:
    settings = QuantizeConfig(bits=config.bits, group_size=config.group_size, kernel="reference")
    return quantize(dequantize(model), settings)


def export_onnx_genai(
    model: Model,
    folder: str | Path,
    *,
    group_size: int = 32,
    embed: str = "int8",
    logits: str = "all",
    activations: str = "int8",
) -> Path:
    """Write `model` for ONNX Runtime GenAI into the new folder `folder`; gives the folder.

    Every linear layer is stored in blocks of `group_size` 4-bit codes. A layer of a quantized network whose groups are
    multiples of the block goes in with its own codes; others are rounded here. Embedding and head: `embed`, int8 with
    one scale a row or int4 in blocks. logits: `all` positions or only the `last` of a prompt. activations: `int8`
    rounds them inside a product (quick), `float32` does not. Two exports of one model give the same bytes.

    Raises `BadInput` when the folder exists or the architecture is not supported, `MissingExtra`, or `IntarsiaError`
    with the builder's last words when it fails."""
    check(model)
    if has_factors(model.network):
        raise BadInput(f"export to {ENGINE}: layers of this network are factored; `dequantize` it first")
    check_blocks(model, group_size)
    folder = Path(folder)
    if folder.exists():
        raise BadInput(f"{folder} exists; give a new folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    options = {
        "block_size": str(group_size),
        "algo_config": "rtn",
        "is_symmetric": "true" if _symmetric(model) else "false",
        "op_types_to_quantize": "MatMul/Gather",
        "accuracy_level": {"int8": "4", "float32": "1"}[activations],
        "hf_token": "false",
    }
    if embed == "int8":
        options["matmul_mixed_precision"] = "last_matmul:int8"
    if model.config.tie_word_embeddings:
        options["shared_embeddings"] = "true"
    if logits == "last":
        options["prune_lm_head"] = "true"
    with tempfile.TemporaryDirectory(prefix="intarsia-build-", dir=folder.parent) as scratch:
        source, out = Path(scratch) / "network", Path(scratch) / "out"
        tell(f"exporting to {ENGINE}", 0, 3)
        save_plain(model, source)
        tell(f"exporting to {ENGINE}", 1, 3)
        _build(source, out, options)
        tell(f"exporting to {ENGINE}", 2, 3)
        initializers.overwrite(out, lambda name: _modules(model.network, name))
        _keep_ids(model, out)
        shutil.rmtree(out / "cache", ignore_errors=True)
        out.rename(folder)
    tell(f"exporting to {ENGINE}", 3, 3, finished=True)
    return folder


def _in_four(model: Model) -> bool:
    """Whether the output head's table is held in 4 bits already."""
    table = holder(model.network.get_output_embeddings())
    return isinstance(table, Quantized) and table.grid.bits == 4


def _symmetric(model: Model) -> bool:
    """Whether no layer's codes need a zero point: the file then holds none."""
    body = [module for module in model.network.modules() if isinstance(module, QuantLinear)]
    return bool(body) and all(module.grid.symmetric for module in body)


def _build(source: Path, out: Path, options: dict[str, str]) -> None:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TQDM_DISABLE": "1"}
    command = [sys.executable, str(Path(build.__file__)), str(source), str(out), json.dumps(options)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        words = [line for line in done.stderr.strip().splitlines() if line.strip()]
        raise IntarsiaError(f"ONNX Runtime GenAI's builder failed: {words[-1] if words else 'no message'}")


def _modules(network: Any, name: str) -> list[nn.Module]:
    """The linear layers whose rows the file stacks under `name` (`model.layers.3.attn.qkv_proj`, `lm_head`, ...)."""
    if name == "lm_head":
        return [network.get_output_embeddings()]
    _, _, number, part, leaf = name.split(".")
    layer = network.get_submodule("model").layers[int(number)]
    owner = {"attn": "self_attn", "mlp": "mlp"}[part]
    leaves = ["q_proj", "k_proj", "v_proj"] if leaf == "qkv_proj" else [leaf]
    return [layer.get_submodule(f"{owner}.{leaf}") for leaf in leaves]


def _keep_ids(model: Model, folder: Path) -> None:
    """Special token ids as the model has them: the builder adds ids from the tokenizer on its own."""
    path = folder / "genai_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    for key in SPECIAL_IDS:
        value = getattr(model.config, key, None)
        if value is not None:
            config["model"][key] = value
    path.write_text(json.dumps(config, indent=4), encoding="utf-8")
