"""Rewriting a float ONNX graph in 8 bits: products with constant matrices, and tables.

A product of x [..., token, in] with a constant W [in, out]:

    x'   = x / s                                   SmoothQuant's s [in], one for all products that read x
    q    = round((x' - lo) / d)                    uint8, lo and d = (hi - lo) / 255 of each token
    y    = d (q Wq) sw + lo (1 Wq) sw              Wq = round(s W / sw), sw a scale for each output

q Wq is a product of whole numbers; the second term is a row known beforehand. A token's numbers are its own: they do
not change with what else is in the batch. `ranges: batch` is the quicker form that divides each token by its largest
|x'| first and leaves the range to ONNX Runtime, one for the batch (DynamicQuantizeLinear).

Only operators of ONNX itself are used. Sources: SmoothQuant: Xiao et al. 2023, arXiv 2211.10438, eq. 4; ranges of
tokens and scales of outputs: ibid., section 2 (per-token, per-channel)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from intarsia.compression.quantization.grids import ROW, Grid, round_to
from intarsia.compression.quantization.scaling import SMALLEST

TINY = 1e-12  # in place of a range of zero
SMALL_TABLE = 16  # rows; a table of two token types is not worth three more operators


@dataclass
class Rewritten:
    """- products: constant matrices that are whole numbers now. smoothed: those of them whose inputs are scaled.
    - tables: tables that are. skipped: names of constant matrices that stayed as they were."""

    products: int = 0
    smoothed: int = 0
    tables: int = 0
    skipped: list[str] = field(default_factory=list)


def key_of(matrix: np.ndarray) -> str:
    """What tells a matrix [in, out] from others: its bytes. Exporters rename and transpose; the numbers stay."""
    return hashlib.sha256(np.ascontiguousarray(matrix, np.float32).tobytes()).hexdigest()


def matrices(proto: Any) -> set[str]:
    """By `key_of` the constants of a graph that may be matrices, [in, out] and as they are."""
    from onnx import numpy_helper

    arrays = (numpy_helper.to_array(t) for t in proto.graph.initializer if len(t.dims) == 2)
    return {key_of(way) for array in arrays for way in (array, array.T)}


def rewrite(
    proto: Any, largest: Mapping[str, np.ndarray], alpha: float, *, ranges: str = "token", weights: str = "int8"
) -> Rewritten:
    """Rewrite an `onnx.ModelProto` in place.

    - largest: by `key_of` the matrix, the largest |x| of each input over a text [in]. alpha: SmoothQuant's; 0: off.
      ranges: `token` or `batch`. weights: int8; uint8; int7, which holds 7 bits."""
    return _Rewriting(proto, largest, alpha, ranges, weights).run()


def smoothing(largest: np.ndarray, matrices: Sequence[np.ndarray], alpha: float) -> np.ndarray:
    """SmoothQuant's scale [in] for matrices [in, out] that read one input; 1 for inputs that are never but zero."""
    weight = np.stack([np.abs(m).max(1) for m in matrices]).max(0)
    scale = np.maximum(largest, SMALLEST) ** alpha / np.maximum(weight, SMALLEST) ** (1 - alpha)
    return np.where((largest > 0) & (weight > 0), np.maximum(scale, SMALLEST), 1.0).astype(np.float32)


def whole(matrix: np.ndarray, bits: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Codes int8 [in, out] and scales float32 [out] of a matrix [in, out]: symmetric, one scale an output."""
    grid = ROW if bits == 8 else Grid(bits, None, True)
    codes, scales, _ = round_to(torch.from_numpy(matrix.T.copy()), grid)
    return np.ascontiguousarray((codes.to(torch.int16) - grid.middle).to(torch.int8).numpy().T), scales[:, 0].numpy()


@dataclass
class _Product:
    """A MatMul or Gemm: its input, the name of its constant, the constant as [in, out], and Gemm's bias."""

    node: Any
    given: str
    constant: str
    matrix: np.ndarray
    bias: str | None


class _Rewriting:
    def __init__(self, proto: Any, largest: Mapping[str, np.ndarray], alpha: float, ranges: str, weights: str):
        import onnx

        self.onnx, self.proto, self.graph = onnx, proto, proto.graph
        self.largest, self.alpha, self.weights = largest, alpha, weights
        self.quantized = {"token": self._by_token, "batch": self._by_batch}[ranges]
        self.constants = {t.name: t for t in self.graph.initializer}
        self._follow()
        self.new: dict[str, np.ndarray] = {}
        self.nodes: list[Any] = []
        self.facts = Rewritten()

    def run(self) -> Rewritten:
        products = {p.node.output[0]: p for node in self.graph.node if (p := self._product(node)) is not None}
        groups: dict[str, list[_Product]] = {}
        for product in products.values():
            groups.setdefault(product.given, []).append(product)
        read: dict[str, Callable[[_Product, str], None]] = {}
        for node in self.graph.node:
            if (product := products.get(node.output[0])) is not None:
                if product.given not in read:
                    read[product.given] = self._reader(groups[product.given])
                read[product.given](product, node.output[0])
            elif not self._table(node):
                self.nodes.append(node)
        self._settle()
        return self.facts

    def _follow(self) -> None:
        """Read constants themselves where torch's exporter reads copies: those of a layer that is used again."""
        self.copies: dict[str, str] = {}
        for node in self.graph.node:
            for i, name in enumerate(node.input):
                node.input[i] = self.copies.get(name, name)
            if node.op_type == "Identity" and node.input[0] in self.constants:
                self.copies[node.output[0]] = node.input[0]

    def _reader(self, group: Sequence[_Product]) -> Callable[[_Product, str], None]:
        """Quantize what a group of products reads, once; gives what writes one of them."""
        given, prefix = group[0].given, f"int8/{group[0].node.name.strip('/')}"
        # A layer that the network uses several times has one set of whole numbers.
        shared = "int8/" + "+".join(sorted({p.constant for p in group}))
        scale = self._scale(group)
        if scale is not None:
            given = self._add("Mul", [given, self._put(f"{shared}/one_over_s", 1 / scale)], f"{prefix}/smooth")
        multiply = self.quantized(given, prefix)

        def write(product: _Product, out: str) -> None:
            base = f"{shared}/{product.constant}"
            if f"{base}/codes" not in self.new:
                matrix = product.matrix if scale is None else product.matrix * scale[:, None]
                codes, steps = whole(matrix, 7 if self.weights == "int7" else 8)
                self._put(f"{base}/sums", codes.sum(0, dtype=np.int64) * steps.astype(np.float64))
                if self.weights == "uint8":
                    self._put("int8/middle", np.array(128, np.uint8))
                    codes = (codes.astype(np.int16) + 128).astype(np.uint8)
                self._put(f"{base}/codes", codes)
                self._put(f"{base}/scale", steps)
            here = f"int8/{product.node.name.strip('/')}"
            multiply(base, here, out if product.bias is None else f"{here}/product")
            if product.bias is not None:
                self._add("Add", [f"{here}/product", product.bias], f"{here}/bias", out)
            self.facts.products += 1
            self.facts.smoothed += scale is not None

        return write

    def _by_token(self, given: str, prefix: str) -> Callable[[str, str, str], None]:
        """Quantize with each token's own range."""
        high = self._add("ReduceMax", [given], f"{prefix}/high", axes=[-1], keepdims=1)
        low = self._add("ReduceMin", [given], f"{prefix}/low", axes=[-1], keepdims=1)
        size = self._add("Sub", [high, low], f"{prefix}/size")
        step = self._add("Mul", [size, self._put("int8/1_over_255", 1 / 255)], f"{prefix}/step")
        step = self._add("Max", [step, self._put("int8/tiny", TINY)], f"{prefix}/range")
        above = self._add("Sub", [given, low], f"{prefix}/above")
        steps = self._add("Div", [above, step], f"{prefix}/steps")
        zero = self._put("int8/zero", np.array(0, np.uint8))
        codes = self._add("QuantizeLinear", [steps, self._put("int8/one", 1.0), zero], f"{prefix}/codes")

        def multiply(base: str, here: str, out: str) -> None:
            product = self._integer(codes, zero, base, here)
            scaled = self._add("Mul", [product, f"{base}/scale"], f"{here}/by_output")
            scaled = self._add("Mul", [scaled, step], f"{here}/by_token")
            ground = self._add("Mul", [low, f"{base}/sums"], f"{here}/ground")
            self._add("Add", [scaled, ground], f"{here}/sum", out)

        return multiply

    def _by_batch(self, given: str, prefix: str) -> Callable[[str, str, str], None]:
        """Divide each token by its largest; then one range for all."""
        size = self._add("Abs", [given], f"{prefix}/abs")
        most = self._add("ReduceMax", [size], f"{prefix}/most", axes=[-1], keepdims=1)
        most = self._add("Max", [most, self._put("int8/tiny", TINY)], f"{prefix}/range")
        even = self._add("Div", [given, most], f"{prefix}/even")
        codes, step, zero = (f"{prefix}/{what}" for what in ("codes", "step", "zero"))
        self._node("DynamicQuantizeLinear", [even], [codes, step, zero], f"{prefix}/quantize")

        def multiply(base: str, here: str, out: str) -> None:
            # In this form and order ONNX Runtime makes one kernel of the first four.
            product = self._integer(codes, zero, base, here)
            scale = self._add("Mul", [step, f"{base}/scale"], f"{here}/scale")
            scaled = self._add("Mul", [product, scale], f"{here}/by_output")
            self._add("Mul", [scaled, most], f"{here}/by_token", out)

        return multiply

    def _integer(self, codes: str, zero: str, base: str, here: str) -> str:
        middle = ["int8/middle"] if self.weights == "uint8" else []
        product = self._add("MatMulInteger", [codes, f"{base}/codes", zero, *middle], f"{here}/integer")
        return self._add("Cast", [product], f"{here}/float", to=self.onnx.TensorProto.FLOAT)

    def _scale(self, group: Sequence[_Product]) -> np.ndarray | None:
        """SmoothQuant's scale of what a group reads; None where no text reached one of its layers."""
        found = [self.largest.get(key_of(product.matrix)) for product in group]
        if not self.alpha or any(one is None for one in found):
            return None
        return smoothing(np.stack(found).max(0), [p.matrix for p in group], self.alpha)  # type: ignore[arg-type]

    def _product(self, node: Any) -> _Product | None:
        """What a node is, if it is a product with a constant matrix on the right."""
        if node.op_type not in ("MatMul", "Gemm") or node.input[1] not in self.constants:
            return None
        matrix = self._array(node.input[1])
        settings = {a.name: self.onnx.helper.get_attribute_value(a) for a in node.attribute}
        plain = settings.get("alpha", 1.0) == settings.get("beta", 1.0) == 1.0 and not settings.get("transA", 0)
        if matrix.ndim != 2 or matrix.dtype != np.float32 or not plain:
            self.facts.skipped.append(node.input[1])
            return None
        matrix = matrix.T if settings.get("transB", 0) else matrix
        bias = node.input[2] if node.op_type == "Gemm" and len(node.input) > 2 else None
        return _Product(node, node.input[0], node.input[1], matrix, bias or None)

    def _table(self, node: Any) -> bool:
        """Write a Gather from a constant table in 8 bits, one scale a row; whether it was one."""
        if node.op_type != "Gather" or node.input[0] not in self.constants:
            return False
        table = self._array(node.input[0])
        by_rows = all(a.name != "axis" or a.i == 0 for a in node.attribute)
        if table.ndim != 2 or table.dtype != np.float32 or len(table) < SMALL_TABLE or not by_rows:
            return False
        base, here = f"int8/{node.input[0]}", f"int8/{node.name.strip('/')}"
        if f"{base}/rows" not in self.new:
            codes, scales = whole(table.T)
            self._put(f"{base}/rows", np.ascontiguousarray(codes.T))
            self._put(f"{base}/scale", scales[:, None])
        rows = self._add("Gather", [f"{base}/rows", node.input[1]], f"{here}/rows")
        rows = self._add("Cast", [rows], f"{here}/float", to=self.onnx.TensorProto.FLOAT)
        scale = self._add("Gather", [f"{base}/scale", node.input[1]], f"{here}/scale")
        self._add("Mul", [rows, scale], f"{here}/row", node.output[0])
        self.facts.tables += 1
        return True

    def _settle(self) -> None:
        """Put the new nodes and constants in place, without the constants that nothing reads any more."""
        used = self._read(self.nodes)
        self.nodes = [node for node in self.nodes if node.output[0] in used or node.output[0] not in self.copies]
        used = self._read(self.nodes)
        kept = [t for t in self.graph.initializer if t.name in used]
        made = [self.onnx.numpy_helper.from_array(array, name) for name, array in self.new.items() if name in used]
        del self.graph.initializer[:], self.graph.node[:], self.graph.value_info[:]
        self.graph.initializer.extend([*kept, *made])
        self.graph.node.extend(self.nodes)

    def _read(self, nodes: Sequence[Any]) -> set[str]:
        """The names that nodes read, and the graphs inside of them."""
        inner = [a.g for node in nodes for a in node.attribute if a.HasField("g")]
        names = {name for node in nodes for name in node.input} | {out.name for out in self.graph.output}
        return names.union(*(self._read(graph.node) | {out.name for out in graph.output} for graph in inner))

    def _array(self, name: str) -> np.ndarray:
        return self.onnx.numpy_helper.to_array(self.constants[name])

    def _put(self, name: str, value: Any) -> str:
        array = np.asarray(value)
        self.new[name] = array.astype(np.float32) if array.dtype.kind == "f" else array
        return name

    def _add(self, kind: str, inputs: Sequence[str], name: str, out: str | None = None, **settings: Any) -> str:
        out = out or f"{name}:0"
        self._node(kind, inputs, [out], name, **settings)
        return out

    def _node(self, kind: str, inputs: Sequence[str], outputs: Sequence[str], name: str, **settings: Any) -> None:
        self.nodes.append(self.onnx.helper.make_node(kind, list(inputs), list(outputs), name=name, **settings))
