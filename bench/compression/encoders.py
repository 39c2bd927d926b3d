"""Encoders in 8 bits on a CPU: how near their sentence vectors stay to float32, and how long a text takes.

MiniLM (all-MiniLM-L6-v2) on 96 utterances of MELD's test set: cosine to the vectors of torch in float32, how many have
the same nearest neighbour among the others, milliseconds of CPU time for one text of 128 tokens with one thread, and
megabytes of the file. Ours is calibrated on Python's documentation (the default)."""

from __future__ import annotations

import argparse
import importlib.util
import logging
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import intarsia as ia
from bench.common import interleave, ratio, show
from intarsia.compression import export
from intarsia.data import load_data, shared_data
from intarsia.models import Model
from intarsia.models.embedding import embed
from intarsia.models.runtime.onnx_encoder import FILE, OnnxEncoder

MODEL = "minilm"
UTTERANCES, TOKENS = 96, 128
BASE, FLOAT = "torch float32", "ONNX Runtime float32"
OURS: dict[str, dict[str, Any]] = {
    "ours": {},
    "ours, no SmoothQuant": {"smooth": 0.0},
    "ours, ranges of the batch": {"ranges": "batch"},
    "ours, ranges of the batch, no SmoothQuant": {"ranges": "batch", "smooth": 0.0},
    "ours, weights in uint8": {"weights": "uint8"},
    "ours, weights in 7 bits": {"weights": "int7"},
}


@dataclass
class Contender:
    """- embed: texts -> vectors. once: runs one text of 128 tokens. bytes: of its weights on disk."""

    embed: Callable[[list[str]], np.ndarray]
    once: Callable[[], Any]
    bytes: int


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Measure, print, and give the figures."""
    torch.set_num_threads(1)
    model = ia.load(MODEL)
    texts = utterances()
    ids = np.random.default_rng(0).integers(1000, 20000, (1, TOKENS))
    with tempfile.TemporaryDirectory(prefix="bench-encoders-") as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found, missing = contenders(model, Path(scratch), ids)
        vectors = {name: one.embed(texts) for name, one in found.items()}
        if (off := float(np.abs(vectors[FLOAT] - vectors[BASE]).max())) > 1e-4:
            raise SystemExit(f"{FLOAT} gives other vectors than torch (off by {off:.2g})")
        rounds = 10 if options.quick else 40
        times = interleave({k: one.once for k, one in found.items()}, rounds, warmup=3, clock=time.process_time)
    rows = []
    cosines = {name: (v * vectors[BASE]).sum(1) for name, v in vectors.items()}
    for name, one in found.items():
        same = float((neighbours(vectors[name]) == neighbours(vectors[BASE])).mean())
        faster = 1 / ratio(times[name], times[FLOAT])
        rows.append([
            name, f"{cosines[name].mean():.4f}", f"{cosines[name].min():.4f}", f"{same:.3f}",
            f"{times[name].median * 1e3:.1f}", f"{faster:.2f}", f"{one.bytes / 1e6:.1f}",
        ])  # fmt: skip
    show(
        f"MiniLM: {len(texts)} utterances of MELD's test set; 1 x {TOKENS} tokens, one thread, {rounds} rounds",
        ["", "cosine", "lowest", "same neighbour", "CPU ms", "over ORT float32", "MB"], rows,
    )  # fmt: skip
    for name, why in missing.items():
        print(f"left out: {name} ({why})")
    return {
        "minilm_int8_cosine": float(cosines["ours"].mean()),
        "minilm_int8_cosine_min": float(cosines["ours"].min()),
        "minilm_int8_speedup": 1 / ratio(times["ours"], times[FLOAT]),
        "minilm_int8_mb": found["ours"].bytes / 1e6,
        "minilm_int8_batch_cosine": float(cosines["ours, ranges of the batch"].mean()),
        "minilm_int8_batch_speedup": 1 / ratio(times["ours, ranges of the batch"], times[FLOAT]),
    }


def utterances() -> list[str]:
    """The first different utterances of MELD's test set."""
    folder = shared_data("dialogue/meld")
    if folder is None:
        raise SystemExit("the data set dialogue/meld is not there (INTARSIA_DATA)")
    return list(dict.fromkeys(turn.text for turn in load_data(folder)["test"]))[:UTTERANCES]


def neighbours(vectors: np.ndarray) -> np.ndarray:
    """The nearest other of each."""
    alike = vectors @ vectors.T
    np.fill_diagonal(alike, -np.inf)
    return alike.argmax(1)


def contenders(model: Model, scratch: Path, ids: np.ndarray) -> tuple[dict[str, Contender], dict[str, str]]:
    """All that run here, by name; and those that do not, with the reason."""
    plain = Path(export(model, engine="onnx", mode="float").save(scratch / "float")) / "export" / "onnx"
    found = {BASE: in_torch(model, ids), FLOAT: in_onnx(plain, ids)}
    missing: dict[str, str] = {}
    peers: dict[str, Callable[[], Contender]] = {
        "ONNX Runtime dynamic": lambda: in_onnx(dynamic(plain, scratch / "dynamic"), ids),
        "ONNX Runtime dynamic, per channel": lambda: in_onnx(dynamic(plain, scratch / "channel", True), ids),
        "ONNX Runtime MatMulNBits, 8 bits": lambda: in_onnx(blocks(plain, scratch / "blocks"), ids),
        "torch.ao dynamic": lambda: in_torch(torch_dynamic(model, False), ids),
        "torch.ao dynamic, per channel": lambda: in_torch(torch_dynamic(model, True), ids),
        "OpenVINO, weights in 8 bits": lambda: in_openvino(plain, model, scratch / "openvino", ids),
    }
    for name, make in peers.items():
        try:
            found[name] = make()
        except Exception as error:
            missing[name] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    for name, settings in OURS.items():
        ready = export(model, engine="onnx", **settings)
        folder = scratch / name.replace(" ", "-")
        shutil.copytree(ready.exports["onnx"], folder)
        found[name] = in_onnx(folder, ids)
    return found, missing


def in_torch(model: Model, ids: np.ndarray) -> Contender:
    given = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.ones(ids.shape, dtype=torch.int64)}

    @torch.inference_mode()
    def once() -> Any:
        return model.network(**given).last_hidden_state

    with tempfile.NamedTemporaryFile() as file:
        torch.save(model.network.state_dict(), file.name)
        size = Path(file.name).stat().st_size
    return Contender(lambda texts: embed(model, texts), once, size)


def in_onnx(folder: Path, ids: np.ndarray) -> Contender:
    engine = OnnxEncoder(folder, 1)
    return Contender(engine.embed, lambda: engine.states(ids), engine.bytes)


def dynamic(plain: Path, folder: Path, per_channel: bool = False) -> Path:
    """ONNX Runtime's own dynamic quantization."""
    from onnxruntime.quantization import quantize_dynamic

    shutil.copytree(plain, folder)
    log = logging.getLogger()
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        quantize_dynamic(plain / FILE, folder / FILE, per_channel=per_channel)
    finally:
        log.setLevel(level)
    return folder


def blocks(plain: Path, folder: Path) -> Path:
    """ONNX Runtime's weights in blocks of 32, 8 bits, activations in 8 bits too; tables stay in float."""
    import onnx
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    shutil.copytree(plain, folder)
    made = MatMulNBitsQuantizer(onnx.load(plain / FILE), bits=8, block_size=32, is_symmetric=True, accuracy_level=4)
    log = logging.getLogger("onnxruntime.quantization.matmul_nbits_quantizer")
    log.setLevel(logging.ERROR)
    made.process()
    made.model.save_model_to_file(str(folder / FILE))
    return folder


def torch_dynamic(model: Model, per_channel: bool) -> Model:
    """PyTorch's own dynamic quantization, of a copy."""
    from torch.ao.quantization import per_channel_dynamic_qconfig, quantize_dynamic

    spec: Any = {nn.Linear: per_channel_dynamic_qconfig} if per_channel else {nn.Linear}
    return model.with_network(quantize_dynamic(model.copy().network, spec))


def in_openvino(plain: Path, model: Model, folder: Path, ids: np.ndarray) -> Contender:
    """OpenVINO with weights that NNCF wrote in 8 bits."""
    for package in ("openvino", "nncf"):
        if importlib.util.find_spec(package) is None:
            raise ImportError(f"{package} is not installed")
    import nncf
    import openvino

    core = openvino.Core()
    core.set_property("CPU", {"INFERENCE_NUM_THREADS": 1})
    small = nncf.compress_weights(core.read_model(plain / FILE), mode=nncf.CompressWeightsMode.INT8_ASYM)
    folder.mkdir()
    openvino.save_model(small, folder / "model.xml")
    run = core.compile_model(small, "CPU")
    engine = OnnxEncoder(plain, 1)

    def states(ids: Any, mask: Any = None, types: Any = None) -> np.ndarray:
        default = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        given = default | {k: v for k, v in (("attention_mask", mask), ("token_type_ids", types)) if v is not None}
        return run({name: given[name] for name in engine.inputs})[0]

    engine.states = states  # type: ignore[method-assign]
    return Contender(engine.embed, lambda: states(ids), (folder / "model.bin").stat().st_size)
