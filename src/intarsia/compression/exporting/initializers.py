"""Writing our codes into an ONNX file that the builder made: same shapes, same bytes of length, our numbers.

The builder names a quantized matrix `<module>.MatMul.weight_Q{bits}G{block}` (codes, uint8 [out, blocks, block * bits /
8]), `..._scale` (float32 [out, blocks]) and `..._zp` (uint8 [out, ceil(blocks * bits / 8)]). A row that the block does
not divide is padded; padded codes sit at the zero point."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from intarsia.compression.quantization.grids import Grid, pack4, round_to
from intarsia.compression.quantization.modules import Quantized, holder
from intarsia.errors import IntarsiaError

CODES = re.compile(r"(?P<module>.+)\.MatMul\.weight_Q(?P<bits>\d)G(?P<block>\d+)$")


@dataclass
class Blocks:
    """A matrix as the engine reads it: codes uint8 [out, padded in], scales float32 and zeros uint8 [out, blocks]."""

    codes: Tensor
    scales: Tensor
    zeros: Tensor

    def stored(self, bits: int, block: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The three arrays of the file."""
        codes = self.codes.view(len(self.codes), -1, block)
        zeros = self.zeros
        if bits == 4:
            # A padded half byte holds code 8, as the engine's own quantizer leaves it.
            if zeros.shape[-1] % 2:
                zeros = torch.nn.functional.pad(zeros, (0, 1), value=8)
            codes, zeros = pack4(codes), pack4(zeros)
        return codes.numpy(), self.scales.numpy(), zeros.numpy()


def blocks_of(module: nn.Module, bits: int, block: int, symmetric: bool = False) -> Blocks:
    """The blocks of one linear layer [out, in]; its own codes where its grid can be written so, else rounded anew, to 4
    bits with zero points unless `symmetric`."""
    table = holder(module)
    whole = isinstance(table, Quantized) and table.grid.values == "whole"
    if whole and table.grid.bits == bits and table.width % block == 0:
        codes, scales, zeros = table.unpacked()
        grid = table.grid
        if grid.group is None or grid.group % block == 0:
            repeat = table.width // block // scales.shape[1]
            if zeros is None:
                zeros = torch.full_like(scales, grid.middle, dtype=torch.uint8)
            return Blocks(
                codes, scales.float().repeat_interleave(repeat, 1), zeros.repeat_interleave(repeat, 1).contiguous()
            )
    weight = module.weight.detach().float()
    width = weight.shape[1]
    padded = torch.nn.functional.pad(weight, (0, -width % block))
    if bits == 8:
        # One scale a row, as the quantized network has it.
        codes, scales, _ = round_to(padded, Grid(8, None, True))
        scales = scales.repeat_interleave(padded.shape[1] // block, 1)
        return Blocks(codes, scales, torch.full_like(scales, 128, dtype=torch.uint8))
    codes, scales, zeros = round_to(padded, Grid(bits, block, symmetric))
    return Blocks(codes, scales.float(), torch.full_like(scales, 8, dtype=torch.uint8) if zeros is None else zeros)


def overwrite(folder: Path, module_of: Callable[[str], list[nn.Module]]) -> int:
    """Replace every quantized matrix of `folder/model.onnx`; gives how many.

    module_of: the file's name of a matrix -> the modules whose rows it stacks, in order."""
    import onnx

    model = onnx.load(folder / "model.onnx", load_external_data=False)
    tensors = {t.name: t for t in model.graph.initializer}
    done = 0
    with (folder / "model.onnx.data").open("r+b") as data:
        for name in tensors:
            if not (match := CODES.match(name)):
                continue
            bits, block = int(match["bits"]), int(match["block"])
            symmetric = f"{match['module']}.MatMul.weight_zp" not in tensors
            parts = [blocks_of(module, bits, block, symmetric) for module in module_of(match["module"])]
            whole = Blocks(*(torch.cat([getattr(p, key) for p in parts]) for key in ("codes", "scales", "zeros")))
            base = f"{match['module']}.MatMul.weight"
            codes, scales, zeros = whole.stored(bits, block)
            _write(data, tensors[name], np.ascontiguousarray(codes))
            _write(data, tensors[f"{base}_scale"], np.ascontiguousarray(scales))
            # Without zero points the engine takes the middle of the codes for one.
            if f"{base}_zp" in tensors:
                _write(data, tensors[f"{base}_zp"], np.ascontiguousarray(zeros))
            elif not bool((whole.zeros == 2 ** (bits - 1)).all()):
                raise IntarsiaError(f"{name}: the file has no room for the zero points that its codes have")
            done += 1
    # The builder appends the git revision of whatever directory it runs in; the same model must give the same bytes.
    model.producer_version = model.producer_version.partition("+")[0]
    (folder / "model.onnx").write_bytes(model.SerializeToString(deterministic=True))
    return done


def _write(data, tensor, array: np.ndarray) -> None:  # type: ignore[no-untyped-def]
    where = {entry.key: entry.value for entry in tensor.external_data}
    if "offset" not in where or int(where["length"]) != array.nbytes:
        raise IntarsiaError(
            f"the exported file holds {tensor.name} as {list(tensor.dims)}, not as {list(array.shape)}: this version "
            "of onnxruntime-genai writes another layout; install the version named in constraints.txt"
        )
    data.seek(int(where["offset"]))
    data.write(array.tobytes())
