"""The arithmetic of bytes is that of the files which are written."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from intarsia import compression
from intarsia.compression.exporting.gguf.blocks import own_type
from intarsia.compression.quantization.grids import ROW, Grid
from intarsia.compression.quantization.modules import QuantLinear
from intarsia.compression.searching.anatomy import Matrix, anatomy
from intarsia.compression.searching.stores import STORES, stores_for
from tests.failing import fails
from tests.test_compression_gguf import small
from tests.tiny import tiny


def test_parameters_by_role():
    model = small(tied=True)
    shape = anatomy(model)
    assert shape.parameters == sum(p.numel() for p in model.network.parameters())
    assert shape.vocabulary == 300 * 64 and shape.norms == 5 * 64 and shape.tables == 1 and shape.blocks == 2
    assert shape.body == 2 * (64 * 64 * 2 + 32 * 64 * 2 + 3 * 96 * 64)
    apart = anatomy(small())
    assert apart.vocabulary == 2 * 300 * 64 and apart.parameters == shape.parameters + 300 * 64
    less = shape.without_blocks([1])
    assert less.body == shape.body // 2 and less.norms == 3 * 64 and less.blocks == 1
    assert shape.with_rows(100).vocabulary == 6400
    for family in ("gpt2", "mixtral", "gemma3"):
        model = tiny(family)
        assert anatomy(model).parameters == sum(p.numel() for p in model.network.parameters())


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(("bits", "settings"), [(8, {}), (6, {}), (5, {}), (4, {}), (3, {"group_size": 16})])
def test_bytes_of_packed_safetensors(bits, settings, tied, tmp_path):
    model = small(tied=tied)
    made = compression.quantize(model, bits=bits, **settings)
    file = made.save(tmp_path / "m") / "model.safetensors"
    header = int.from_bytes(file.read_bytes()[:8], "little")
    store, shape = STORES["torch"], anatomy(model)
    grid = ROW if bits == 8 else Grid(bits, settings.get("group_size", 32), False)
    data = store.table(shape) + 4 * shape.norms + sum(store.matrix(m, grid) for m in shape.matrices)
    assert data == file.stat().st_size - 8 - header
    whole = store.bytes(shape, {m.name: grid for m in shape.matrices})
    assert abs(whole - file.stat().st_size) < 60 * len(json.loads(file.read_bytes()[8 : 8 + header]))


@pytest.mark.parametrize("width", [64, 128])
@pytest.mark.parametrize("scheme", ["symmetric", "asymmetric"])
@pytest.mark.parametrize("bits", [3, 4, 5, 8])
def test_bytes_of_gguf(bits, scheme, width, tmp_path, monkeypatch):
    gguf = pytest.importorskip("gguf")
    from intarsia.compression.exporting.gguf import export_gguf

    if bits == 8 and scheme == "asymmetric":
        pytest.skip("no type has room for it")
    model = small(hidden_size=width, intermediate_size=2 * width, num_hidden_layers=1)
    made = compression.quantize(model, bits=bits, scheme=scheme, group_size=32)
    export_gguf(made, tmp_path / "m.gguf", check_again=False)
    store, shape = STORES["gguf"], anatomy(model)
    grids = {m.name: Grid(bits, 32, scheme == "symmetric") for m in shape.matrices}
    reader = gguf.GGUFReader(tmp_path / "m.gguf")
    begins = reader.tensors[0].data_offset
    data = store.bytes(shape, grids) - store.header(shape)
    assert data == (tmp_path / "m.gguf").stat().st_size - begins
    # On real vocabularies the rough header is a little above what is written; here most of it is the chat template.
    assert begins < 2 * store.header(shape)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([2, 3, 4, 5]), st.booleans(), st.sampled_from([32, 64, 96, 128, 160, 256]))
def test_a_type_has_room_for_all_codes_of_a_grid(bits, symmetric, width):
    grid = Grid(bits, 32, symmetric)
    layer = QuantLinear(width, 2, grid)
    codes = torch.zeros(2, width, dtype=torch.uint8)
    codes[:, 1::2] = 2**bits - 1  # both ends of the grid, with the zero point at both ends
    zeros = None if symmetric else torch.tensor([[0], [2**bits - 1]], dtype=torch.uint8).expand(2, width // 32)
    layer.put(codes, torch.ones(2, width // 32, dtype=torch.float16), zeros)
    assert STORES["gguf"].type_of(Matrix("m", 0, "q", 2, width), grid) == own_type(layer)


@pytest.mark.parametrize(
    ("name", "tied"), [("torch", True), ("torch", False), ("gguf", True), ("gguf", False), ("onnx-genai", True)]
)
def test_a_vocabulary_in_four_bits_takes_what_arithmetic_says(name, tied, tmp_path):
    pytest.importorskip({"torch": "torch", "gguf": "gguf"}.get(name, "onnxruntime_genai"))
    sizes = {"hidden_size": 128, "intermediate_size": 192} if name == "onnx-genai" else {}
    model = small(tied=tied, **sizes)
    model.network.config.eos_token_id = 2
    store, shape = STORES[name], anatomy(model)
    scheme = "symmetric" if store.table_symmetric else "asymmetric"

    def size(embed: str) -> int:
        made = compression.quantize(model, bits=4, group_size=32, scheme=scheme, embed=embed)
        if name == "torch":
            return (made.save(tmp_path / embed) / "model.safetensors").stat().st_size
        folder = store.export(made).exports[name]
        return sum(f.stat().st_size for f in folder.glob("model.*") if f.suffix != ".onnx")

    told = store.table(shape) - store.table(replace(shape, table_bits=4))
    assert told > 0.3 * store.table(shape)
    # Headers of packed tensors have a line more: the zero points of the table.
    assert abs((size("int8") - size("int4")) - told) <= (400 if name == "torch" else 64)


def test_bytes_of_onnx():
    for package in ("onnxruntime_genai", "onnx", "onnx_ir"):
        pytest.importorskip(package, reason="the extra 'export' is not installed")
    wide = small(tied=True, hidden_size=128, intermediate_size=192)
    wide.network.config.eos_token_id = 2
    made = compression.export(wide, group_size=32)
    folder = made.exports["onnx-genai"]
    store, shape = STORES["onnx-genai"], anatomy(wide)
    data = store.bytes(shape, {}) - 10_600 * shape.blocks
    assert data == (folder / "model.onnx.data").stat().st_size
    assert abs((folder / "model.onnx").stat().st_size / (10_600 * shape.blocks) - 1) < 0.1


def test_stores_that_a_model_cannot_end_in():
    model = tiny("llama")
    found, refused = stores_for(model, ("gguf", "onnx-genai", "torch"))
    assert [store.name for store in found] == ["torch"] and "merges" in refused["gguf"]
    fails(lambda: stores_for(model, ("gguf",)), "gguf: the tokenizer has no merges")
    fails(lambda: stores_for(model, ()), "engines is empty")
