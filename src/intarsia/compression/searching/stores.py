"""The files a model may end in, one for each engine: which grids they hold, and how many bytes each matrix takes.

    gguf         blocks of 32 weights: Q4_0 4.5, Q4_1 5, Q5_0 5.5, Q8_0 8.5 bits a weight; norms in single precision
    onnx-genai   4 bits, with a scale in single precision and a zero point a block; the vocabulary in 8 bits
    torch        safetensors as `compression.quantize` packs them: 3 to 8 bits without gaps, scales in half precision

What is counted here is what is written, to the byte for the data; of headers what their writers say or leave."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from intarsia.compression import ExportConfig
from intarsia.compression.exporting.gguf.blocks import BLOCK, BLOCKS, loose_type, readable
from intarsia.compression.quantization.grids import ROW, Grid, legal_group, packed_size
from intarsia.compression.searching.anatomy import Anatomy, Matrix
from intarsia.errors import BadInput, IntarsiaError, first_line

if TYPE_CHECKING:
    from intarsia.models import Model

Grids = Mapping[str, Grid]
GROUP = 32  # weights that share a scale: the finest that all files hold without loss
SMALLEST = 8  # a group below this costs more than it saves
FLOAT = 4  # bytes of what stays as it is


class Store:
    """One kind of file.

    - name: of the engine, as in `model.exports`; `torch` is the network itself."""

    name = ""
    table_symmetric = False
    """Whether the vocabulary's 4-bit grid has zero in its middle."""

    def refuses(self, model: Model) -> str | None:
        """Why a model cannot end in this file here, in one line; None where it can."""
        raise NotImplementedError

    def grids(self, matrix: Matrix) -> list[Grid]:
        """The grids that a matrix may have, from the smallest file on; none where it stays as it is."""
        raise NotImplementedError

    def matrix(self, matrix: Matrix, grid: Grid | None) -> int:
        """Bytes of a matrix on a grid."""
        raise NotImplementedError

    def table(self, shape: Anatomy) -> int:
        """Bytes of the vocabulary: embedding and head in 8 bits, a scale a row (or a block), or in blocks of 4."""
        raise NotImplementedError

    def rest(self, shape: Anatomy) -> int:
        """Bytes of what stays as it is, and of the file's own words."""
        raise NotImplementedError

    def fixed(self, shape: Anatomy) -> int:
        """All that no choice of bits changes."""
        return self.table(shape) + self.rest(shape)

    def bytes(self, shape: Anatomy, grids: Grids) -> int:
        """Of the whole file."""
        return self.fixed(shape) + sum(self.matrix(m, grids.get(m.name)) for m in shape.matrices)

    def smallest(self, shape: Anatomy) -> int:
        """Of the whole file, each matrix in its fewest bits."""
        return self.fixed(shape) + sum(min(self.costs(m)) for m in shape.matrices)

    def costs(self, matrix: Matrix) -> list[int]:
        """Bytes of a matrix, for each of its grids (one entry where it stays as it is)."""
        return [self.matrix(matrix, grid) for grid in self.grids(matrix)] or [self.matrix(matrix, None)]

    def holds(self, grids: Grids, shape: Anatomy) -> bool:
        """Whether the codes of these grids go into the file as they are."""
        return all(self._holds(m, grids[m.name]) for m in shape.matrices if m.name in grids)

    def _holds(self, matrix: Matrix, grid: Grid) -> bool:
        raise NotImplementedError

    def export(self, model: Model) -> Model:
        """The model with `exports[name]`, where that is another file than its own."""
        return model


class Torch(Store):
    """`compression.quantize`'s own file, in PyTorch."""

    name = "torch"

    def refuses(self, model: Model) -> str | None:
        return None

    def grids(self, matrix: Matrix) -> list[Grid]:
        group = legal_group(matrix.width, GROUP)
        if group < SMALLEST:
            return [ROW]
        return [*(Grid(bits, group, False) for bits in (3, 4, 5, 6)), ROW]

    def matrix(self, matrix: Matrix, grid: Grid | None) -> int:
        if grid is None:
            return FLOAT * matrix.weights
        groups = grid.groups(matrix.width)
        row = packed_size(matrix.width, grid.bits) + groups * (4 if grid.group is None else 2)
        return matrix.rows * (row + (0 if grid.symmetric else packed_size(groups, grid.bits)))

    def table(self, shape: Anatomy) -> int:
        return shape.tables * self.matrix(
            shape.table, ROW if shape.table_bits == 8 else Grid(4, GROUP, self.table_symmetric)
        )

    def rest(self, shape: Anatomy) -> int:
        stays = [*shape.vectors, *shape.others]
        # The header has a line of some 80 bytes and its name for each tensor: codes, scales and zeros of a matrix.
        names = [m.name for m in shape.matrices for _ in range(3)] + [name for name, _ in stays]
        return FLOAT * sum(count for _, count in stays) + sum(80 + len(name) for name in names)

    def _holds(self, matrix: Matrix, grid: Grid) -> bool:
        return True


class Gguf(Store):
    """One GGUF file for llama.cpp's family."""

    name = "gguf"
    table_symmetric = True

    def refuses(self, model: Model) -> str | None:
        from intarsia.compression.exporting.gguf.tokens import read_tokenizer
        from intarsia.compression.exporting.gguf.writing import check
        from intarsia.models.runtime.llama_cpp import check as check_engine

        try:
            check(model)
            read_tokenizer(model)
            check_engine()
        except IntarsiaError as error:
            return first_line(error)
        return None

    def grids(self, matrix: Matrix) -> list[Grid]:
        if matrix.width % BLOCK:
            return []
        found = [Grid(4, GROUP, True), Grid(4, GROUP, False), Grid(5, GROUP, True), Grid(8, GROUP, True)]
        return [g for g in found if g.symmetric or "Q4_1" in readable(matrix.width)]

    def type_of(self, matrix: Matrix, grid: Grid) -> str:
        """The smallest type that has room for every code of a grid."""
        # An asymmetric code less its zero point is between -top and top.
        reach = (-grid.middle, grid.middle - 1) if grid.symmetric else (1 - 2**grid.bits, 2**grid.bits - 1)
        for name in readable(matrix.width):
            kind = BLOCKS[name]
            low, high = (0, 2**grid.bits - 1) if kind.minimum and not grid.symmetric else reach
            if kind.low <= low and high < kind.low + 2**kind.bits:
                return name
        return "Q8_0"

    def matrix(self, matrix: Matrix, grid: Grid | None) -> int:
        if grid is None or matrix.width % BLOCK:
            return _padded((2 if loose_type(matrix.width) == "F16" else FLOAT) * matrix.weights)
        return _padded(matrix.weights // BLOCK * _block_bytes(self.type_of(matrix, grid)))

    def table(self, shape: Anatomy) -> int:
        return shape.tables * self.matrix(shape.table, Grid(shape.table_bits, GROUP, True))

    def rest(self, shape: Anatomy) -> int:
        return sum(_padded(FLOAT * count) for _, count in (*shape.vectors, *shape.others)) + self.header(shape)

    def header(self, shape: Anatomy) -> int:
        """About: the tokenizer's tokens, types and merges, and a line a tensor. `export_gguf` says exactly."""
        tensors = len(shape.matrices) + len(shape.vectors) + shape.tables
        return 4096 + 36 * shape.rows + 80 * tensors

    def _holds(self, matrix: Matrix, grid: Grid) -> bool:
        return matrix.width % BLOCK == 0 and (grid.group is None or grid.group % BLOCK == 0)

    def export(self, model: Model) -> Model:
        from intarsia.compression.exporting.exported import exported
        from intarsia.compression.exporting.gguf.writing import export_gguf

        folder = Path(tempfile.mkdtemp(prefix="intarsia-export-"))
        # Not read back with transformers: the engine's own answers are held against the network's afterwards.
        facts = export_gguf(model, folder / self.name / "model.gguf", check_again=False)
        return exported(model, ExportConfig(engine="gguf", group_size=GROUP), self.name, folder, facts)


class OnnxGenAI(Store):
    """ONNX Runtime GenAI's folder."""

    name = "onnx-genai"

    def refuses(self, model: Model) -> str | None:
        from intarsia.compression.exporting.onnx_genai import check, check_blocks

        try:
            check(model)
            check_blocks(model, GROUP)
        except IntarsiaError as error:
            return first_line(error)
        return None

    def grids(self, matrix: Matrix) -> list[Grid]:
        return [Grid(4, GROUP, False)] if matrix.width % GROUP == 0 else []

    def matrix(self, matrix: Matrix, grid: Grid | None) -> int:
        # Every linear layer is stored in 4 bits, whatever it was.
        return _blocks(matrix.rows, matrix.width, 4)

    def table(self, shape: Anatomy) -> int:
        head = _blocks(shape.rows, shape.width, shape.table_bits)
        return head if shape.tables == 1 else head + _blocks(shape.rows, shape.width, 4)

    def rest(self, shape: Anatomy) -> int:
        stays = FLOAT * (shape.norms + sum(count for _, count in shape.others))
        caches = 2 * FLOAT * shape.context * (shape.head // 2)  # cosines and sines of every position
        return stays + caches + 10_600 * shape.blocks

    def _holds(self, matrix: Matrix, grid: Grid) -> bool:
        return grid.bits == 4 and grid.group is not None and grid.group % GROUP == 0

    def export(self, model: Model) -> Model:
        from intarsia.compression.exporting.onnx_genai import export

        return export(model, ExportConfig(group_size=GROUP))


STORES = {store.name: store for store in (Gguf(), OnnxGenAI(), Torch())}
"""By engine, the quickest on CPUs first."""


def stores_for(model: Model, wanted: tuple[str, ...]) -> tuple[list[Store], dict[str, str]]:
    """The stores among `wanted` that a model can end in here, and why the others cannot.

    Raises `BadInput` where there is none."""
    refused = {name: why for name in wanted if (why := STORES[name].refuses(model)) is not None}
    found = [store for name, store in STORES.items() if name in wanted and name not in refused]
    if not found:
        raise BadInput("; ".join(f"{name}: {why}" for name, why in refused.items()) or "engines is empty: name one")
    return found, refused


def _padded(count: int) -> int:
    """GGUF's data begins at multiples of 32 bytes."""
    return -(-count // 32) * 32


def _blocks(rows: int, width: int, bits: int) -> int:
    """Codes, scales and zero points of a matrix in ONNX Runtime's blocks."""
    count = -(-width // GROUP)
    return rows * (count * GROUP * bits // 8 + count * 4 + (count * bits + 7) // 8)


@cache
def _block_bytes(name: str) -> int:
    """Bytes of 32 weights."""
    kind = BLOCKS[name]
    return 2 + 2 * kind.minimum + kind.bits * BLOCK // 8
