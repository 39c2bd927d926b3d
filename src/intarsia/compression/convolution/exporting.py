"""Networks of filters as ONNX files, with 8-bit weights and activations whose ranges were measured beforehand (static,
quantize-dequantize nodes around what ONNX Runtime then runs in whole numbers).

Dynamic quantization, which takes ranges while it runs, is there to compare: ONNX Runtime has no quick kernel for such
convolutions (ConvInteger), and they are several times slower than in float."""

from __future__ import annotations

import copy
import io
import logging
import shutil
import tempfile
import warnings
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from intarsia.compression.convolution.networks import Answering, all_answers, check_pixels
from intarsia.compression.convolution.pictures import pixels_and_labels
from intarsia.compression.convolution.quantizing import settle
from intarsia.errors import BadInput, MissingExtra, Note

if TYPE_CHECKING:
    from intarsia.compression.convolution.technique import ExportFiltersConfig
    from intarsia.models import Model

WHO = "compression.export_filters"
GIVEN, SAID = "pixels", "logits"
ENGINE, FILE = "onnx", "model.onnx"
BATCH = 32


def export_onnx(
    network: nn.Module, file: str | Path, pixels: Tensor, mode: str = "static", *, most: int = 300,
    reduce_range: bool = False,
) -> Path:  # fmt: skip
    """Write a network as one ONNX file: input `pixels` [picture, channel, height, width] float32, output `logits`.

    - pixels: static ranges are those of the first `most` of them; their shape is the file's, but for the number of
      pictures. mode: static, dynamic or float. reduce_range: 7-bit weights.

    Batch norms are folded into the filters first; coded filters go in with their rounded weights. Raises `BadInput`
    for a network that does not run on the pixels, `MissingExtra` without onnx and onnxruntime."""
    _libraries()
    if mode not in ("static", "dynamic", "float"):
        raise BadInput(f"{WHO}: mode is static, dynamic or float, given '{mode}'")
    check_pixels(network, pixels, WHO)
    if mode == "dynamic":
        warnings.warn(
            "dynamic 8 bits make convolutions slower than float in ONNX Runtime (ConvInteger): mode static is quick",
            Note, stacklevel=3,
        )  # fmt: skip
    file = Path(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    plain = copy.deepcopy(network).float().cpu().eval()
    settle(plain)
    given = pixels[:most].float().cpu()
    with tempfile.TemporaryDirectory() as scratch:
        whole = Path(scratch) / "float.onnx"
        whole.write_bytes(_traced(plain, given[:1]))
        if mode == "float":
            shutil.copy(whole, file)
        else:
            _quantized(whole, file, given, mode, reduce_range)
    return file


def _traced(network: nn.Module, sample: Tensor) -> bytes:
    out, whole = io.BytesIO(), Answering(network)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of tracing, and of checks on shapes that are constant here
        torch.onnx.export(
            whole, (sample,), out, dynamo=False, input_names=[GIVEN], output_names=[SAID], opset_version=17,
            dynamic_axes={GIVEN: {0: "pictures"}, SAID: {0: "pictures"}},
        )  # fmt: skip
    return out.getvalue()


def _quantized(source: Path, file: Path, pixels: Tensor, mode: str, reduce_range: bool) -> None:
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_dynamic, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader:
        """The pictures, in batches, as ONNX Runtime asks for them."""

        def __init__(self) -> None:
            self.parts = iter(pixels.split(BATCH))

        def get_next(self) -> dict[str, Any] | None:
            part = next(self.parts, None)
            return None if part is None else {GIVEN: part.numpy()}

    ready = source.with_name("ready.onnx")
    log = logging.getLogger()
    level = log.level
    log.setLevel(logging.ERROR)  # it advises on what was done already
    try:
        quant_pre_process(source, ready, skip_symbolic_shape=True)
        if mode == "dynamic":
            quantize_dynamic(ready, file, per_channel=True, weight_type=QuantType.QUInt8)
        else:
            quantize_static(
                ready, file, Reader(), quant_format=QuantFormat.QDQ, per_channel=True, reduce_range=reduce_range,
                activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
            )  # fmt: skip
    finally:
        log.setLevel(level)


def open_onnx(file: str | Path, threads: int = 1) -> Any:
    """An ONNX Runtime session on the CPU for a file or an exported folder."""
    _libraries()
    import onnxruntime

    path = Path(file)
    path = path / FILE if path.is_dir() else path
    if not path.is_file():
        raise BadInput(f"there is no file {path}: export_onnx writes it")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def onnx_answers(session: Any, pixels: Tensor, batch: int = 256) -> Tensor:
    """Logits of pixels [picture, channel, height, width], float32."""
    parts = [session.run(None, {GIVEN: part.numpy()})[0] for part in pixels.float().cpu().split(batch)]
    return torch.from_numpy(np.concatenate(parts))


def export(model: Model, config: ExportFiltersConfig, train: Sequence[Any]) -> Model:
    """See `intarsia.compression.export_filters`."""
    _libraries()
    pixels, _ = pixels_and_labels(model, train[: config.pictures], WHO)
    folder = Path(tempfile.mkdtemp(prefix="intarsia-onnx-"))
    changed = model.with_network(model.network, technique=WHO, config=config.model_dump(mode="json"))
    file = export_onnx(
        model.network, folder / ENGINE / FILE, pixels, config.mode, most=config.pictures,
        reduce_range=config.reduce_range,
    )  # fmt: skip
    ours = all_answers(model.network, pixels).float().cpu()
    theirs = onnx_answers(open_onnx(file), pixels)
    changed.exports[ENGINE] = folder / ENGINE
    changed.extras[WHO] = {
        "mode": config.mode,
        "bytes": file.stat().st_size,
        "same_first_choice": float((ours.argmax(-1) == theirs.argmax(-1)).float().mean()),
        "error": float((ours - theirs).norm() / ours.norm().clamp(min=1e-12)),
        "pictures": len(pixels),
    }
    weakref.finalize(changed.network, shutil.rmtree, folder, ignore_errors=True)
    return changed


def _libraries() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError:
        raise MissingExtra(WHO, "export") from None
