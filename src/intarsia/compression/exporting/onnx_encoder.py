"""Encoders (BERT and its kind) as one ONNX file: torch's exporter writes it in float, `onnx_graph` makes it whole
numbers, and both are run beside the network before anything is given out.

The folder: `model.onnx`, `encoder.json` (what it takes and gives), `config.json`, and the tokenizer's files."""

from __future__ import annotations

import copy
import importlib.util
import inspect
import json
import shutil
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from intarsia.compression import ExportConfig
from intarsia.compression.calibration import calibration_windows
from intarsia.compression.checking import check_plain
from intarsia.compression.exporting.exported import NAME, exported
from intarsia.compression.exporting.onnx_graph import Rewritten, key_of, matrices, rewrite
from intarsia.compression.linears import linears
from intarsia.compression.statistics import collect
from intarsia.errors import BadInput, IntarsiaError, MissingExtra, Note, first_line
from intarsia.models import Model
from intarsia.models.folders import quiet
from intarsia.models.runtime.onnx_encoder import FILE, FORMAT, INPUTS, NOTE, STATES, OnnxEncoder
from intarsia.progress import tell

if TYPE_CHECKING:
    from intarsia.data import Text

ENGINE = "onnx"
OPSET = 17  # the newest that torch's exporter knows by tracing
MOST = 2**31 - 2**20  # bytes; what one ONNX file holds
SAME = 1e-3  # of the largest state: what the float graph may be off, at most
PROBE = (2, 7), (3, 11)  # texts and tokens that are traced, and that the graph is then tried on


def export(model: Model, config: ExportConfig, calibration: Sequence[Text] | None = None) -> Model:
    """See `intarsia.compression.export`."""
    check(model)
    smooth = config.smooth if config.mode == "int8" else 0.0
    if smooth and model.tokenizer is None:
        raise BadInput(f"{NAME}: engine onnx: no tokenizer to read calibration text with: smooth=0 does without")
    windows = calibration_windows(model, calibration, config.tokens) if smooth else []
    room = _room(model, model.network.base_model)
    windows = [window[:room] for window in windows]
    folder = Path(tempfile.mkdtemp(prefix="intarsia-export-"))
    facts = export_onnx_encoder(
        model, folder / ENGINE, mode=config.mode, smooth=smooth, windows=windows, ranges=config.ranges,
        weights=config.weights,
    )  # fmt: skip
    return exported(model, config, ENGINE, folder, facts)


def check(model: Model) -> None:
    """`MissingExtra` without onnx and ONNX Runtime, `BadInput` for a network that is no plain encoder of text."""
    for package in ("onnx", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtra("export to ONNX", "export")
    check_plain(model, NAME, "export")
    kind = type(model.network).__name__
    wanted = "an encoder (BERT, RoBERTa, DistilBERT and their kind) is wanted"
    if getattr(model.config, "is_encoder_decoder", False):
        raise BadInput(f"{NAME}: engine onnx: {kind} is an encoder-decoder; {wanted}")
    if sum(p.numel() for p in model.network.parameters()) * 4 > MOST:
        raise BadInput(f"{NAME}: engine onnx: {kind} has more than 2 GB in float32, the most one ONNX file holds")
    network = model.network.base_model
    try:
        first, last = (_sample(model, 1, 6) for _ in range(2))
        last["input_ids"][0, -1] += 1
        with torch.no_grad():
            states = [_states(network, x)[0, 0] for x in (first, last)]
    except (ValueError, TypeError, AttributeError, RuntimeError, KeyError, IndexError) as error:
        raise BadInput(f"{NAME}: engine onnx: {kind} gives no states of a text ({first_line(error, 120)})") from error
    if torch.equal(*states):
        raise BadInput(f"{NAME}: engine onnx: {kind} is a decoder, its tokens do not see those after them; {wanted}")


@torch.no_grad()
def export_onnx_encoder(
    model: Model, folder: str | Path, *, mode: str = "int8", smooth: float = 0.5,
    windows: Sequence[Sequence[int]] = (), ranges: str = "token", weights: str = "int8",
) -> dict[str, Any]:  # fmt: skip
    """Write an encoder into the new folder `folder`, as `model.onnx` and what `OnnxEncoder` reads beside it.

    The file takes `input_ids` and `attention_mask`, and `token_type_ids` where the network has types of tokens (int64
    [text, token]), and gives `last_hidden_state` float32 [text, token, width]. A head, if there is one, is left out.

    - mode: int8 or float. smooth: SmoothQuant's alpha, 0 to 1 (0: off), for which `windows` of token ids are read.
      ranges: of activations, of each `token` or of the `batch`. weights: int8, uint8 or int7 (see `ExportConfig`).

    Gives facts: `bytes` of the file; how many `products` and `tables` are whole numbers, how many of the products are
    `smoothed`, and `skipped`, the constants that were left in float; `error`, by how much the states of made-up tokens
    differ, |y' - y| / |y|. Raises `BadInput` for what is no encoder and where the folder exists; `IntarsiaError` where
    torch's exporter fails, or writes a graph that gives other numbers."""
    check(model)
    folder = Path(folder)
    if folder.exists():
        raise BadInput(f"{folder} exists; give a new folder")
    import onnx

    network = copy.deepcopy(model.network.base_model).float().cpu().eval()
    _eager(network)
    facts: dict[str, Any] = {"mode": mode}
    tell("exporting to onnx", 0, 3)
    with tempfile.TemporaryDirectory(prefix="intarsia-onnx-") as scratch:
        part = Path(scratch) / "out"
        part.mkdir()
        _trace(model, network, part / FILE)
        _describe(model, network, part)
        if (off := _error(model, network, part)) > SAME:
            raise IntarsiaError(f"torch's ONNX exporter writes another {type(network).__name__} (off by {off:.2g})")
        tell("exporting to onnx", 1, 3)
        if mode == "int8":
            proto = onnx.load(part / FILE)
            largest = _largest(model, windows, matrices(proto)) if smooth else {}
            tell("exporting to onnx", 2, 3)
            done = rewrite(proto, largest, smooth, ranges=ranges, weights=weights)
            (part / FILE).write_bytes(proto.SerializeToString(deterministic=True))
            facts |= _told(done, smooth)
            off = _error(model, network, part)
        facts |= {"bytes": (part / FILE).stat().st_size, "error": off}
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(part, folder)
    tell("exporting to onnx", 3, 3, finished=True)
    return facts


def _told(done: Rewritten, smooth: float) -> dict[str, Any]:
    if not done.products:
        raise BadInput(f"{NAME}: engine onnx: nothing to round: the network has no product with a constant matrix")
    if smooth and done.smoothed < done.products:
        warnings.warn(
            f"export: no text reached {done.products - done.smoothed} of {done.products} products: their inputs are "
            "not scaled", Note, stacklevel=4,
        )  # fmt: skip
    return vars(done)


def _largest(model: Model, windows: Sequence[Sequence[int]], wanted: set[str]) -> dict[str, np.ndarray]:
    """The largest |x| of every input of the layers whose matrices are wanted, by `key_of` these."""
    keys = {layer: key_of(layer.weight.float().cpu().numpy().T) for layer in linears(model)}
    layers = [layer for layer, key in keys.items() if key in wanted]  # no poolers and heads
    stats = collect(model, layers, windows)
    found: dict[str, np.ndarray] = {}
    for layer in layers:
        if layer.name in stats and stats[layer.name].count:
            key, most = keys[layer], stats[layer.name].largest.cpu().numpy()
            found[key] = np.maximum(found[key], most) if key in found else most
    return found


class _Whole(nn.Module):
    """A network whose inputs have an order."""

    def __init__(self, network: nn.Module, names: Sequence[str]):
        super().__init__()
        self.network, self.names = network, names

    def forward(self, *given: Tensor) -> Tensor:
        return _states(self.network, dict(zip(self.names, given, strict=True)))


def _trace(model: Model, network: nn.Module, file: Path) -> None:
    sample = _sample(model, *PROBE[0])
    axes = {name: {0: "text", 1: "token"} for name in (*sample, STATES)}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of tracing, and of checks on shapes that are constant here
            torch.onnx.export(
                _Whole(network, list(sample)).eval(), tuple(sample.values()), str(file), dynamo=False,
                opset_version=OPSET, input_names=list(sample), output_names=[STATES], dynamic_axes=axes,
            )  # fmt: skip
    except Exception as error:
        kind = type(network).__name__
        raise IntarsiaError(f"torch's ONNX exporter does not know {kind}: {first_line(error)}") from error


def _describe(model: Model, network: Any, folder: Path) -> None:
    said = {
        "format": FORMAT,
        "inputs": list(_sample(model, 1, 2)),
        "width": network.config.get_text_config().hidden_size,
        "vocabulary": network.get_input_embeddings().weight.shape[0],
        "context_length": _room(model, network),
    }
    (folder / NOTE).write_text(json.dumps(said, indent=2, sort_keys=True) + "\n", "utf-8")
    with quiet():
        network.config.save_pretrained(folder)
        if model.tokenizer is not None:
            model.tokenizer.save_pretrained(folder)


def _room(model: Model, network: nn.Module) -> int | None:
    """The most tokens of a text. RoBERTa counts positions from behind the padding's own id."""
    room = model.context_length
    for name, module in network.named_modules():
        if name.endswith("position_embeddings") and (pad := getattr(module, "padding_idx", None)) is not None and room:
            room -= pad + 1
    return room


def _error(model: Model, network: nn.Module, folder: Path) -> float:
    """|y' - y| / |y| over the real tokens of made-up texts, with padding."""
    given = _sample(model, *PROBE[1])
    mask = given["attention_mask"].bool().numpy()
    wanted = _states(network, given).numpy()[mask]
    names = {"input_ids": "ids", "attention_mask": "mask", "token_type_ids": "types"}
    found = OnnxEncoder(folder, 1).states(**{names[k]: v.numpy() for k, v in given.items()})[mask]
    return float(np.linalg.norm(found - wanted) / max(np.linalg.norm(wanted), 1e-12))


def _sample(model: Model, texts: int, tokens: int) -> dict[str, Tensor]:
    """Made-up inputs, int64 [text, token]; the last of several texts is padded, or tracing would leave masks out."""
    config = model.config.get_text_config()
    ids = (
        torch.arange(texts * tokens).view(texts, tokens) * 31 % max(config.vocab_size // 2, 1) + config.vocab_size // 4
    )
    mask = torch.ones_like(ids)
    if texts > 1:
        mask[-1, -2:] = 0
        ids[-1, -2:] = config.pad_token_id or 0
    given = dict(zip(INPUTS, (ids, mask, torch.zeros_like(ids)), strict=True))
    known = inspect.signature(model.network.base_model.forward).parameters
    if getattr(config, "type_vocab_size", 0) < 2:
        del given["token_type_ids"]
    return {name: value for name, value in given.items() if name in known}


def _states(network: Any, given: Mapping[str, Tensor]) -> Tensor:
    device = next(network.parameters()).device
    return network(**{name: value.to(device) for name, value in given.items()}).last_hidden_state


def _eager(network: Any) -> None:
    """Attention written out: what torch's fused kernels become is slower in ONNX Runtime (masks of NaN)."""
    try:
        network.set_attn_implementation("eager")
    except (ValueError, AttributeError, NotImplementedError):
        return  # it knows one kind only
