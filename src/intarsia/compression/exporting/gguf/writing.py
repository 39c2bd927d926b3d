"""Export to GGUF: the types of the tensors, and the file."""

from __future__ import annotations

import importlib.util
import tempfile
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch

from intarsia.compression import ExportConfig, QuantizeConfig
from intarsia.compression.exporting.exported import exported, without_factors
from intarsia.compression.exporting.gguf.blocks import (
    BLOCK,
    BLOCKS,
    TYPES,
    Stored,
    loose_type,
    nearest_type,
    own_type,
    store,
    wants,
)
from intarsia.compression.exporting.gguf.checking import check_file
from intarsia.compression.exporting.gguf.metadata import add_hyperparameters, check_config, rope_factors
from intarsia.compression.exporting.gguf.tensors import ARCHITECTURES, Part, paired_rows, parts, shares_table
from intarsia.compression.exporting.gguf.tokens import add_tokenizer, read_tokenizer
from intarsia.compression.quantization.modules import Quantized, has_codes, holder
from intarsia.compression.quantization.rounding import quantize
from intarsia.errors import BadInput, MissingExtra, Note, did_you_mean
from intarsia.models import Model
from intarsia.progress import track

ENGINE = "gguf"
FLOATS = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}


def export(model: Model, config: ExportConfig) -> Model:
    """See `intarsia.compression.export`: `exports["gguf"]` is a folder that holds `model.gguf`."""
    check(model)
    if config.group_size % BLOCK:
        raise BadInput(f"group_size {config.group_size}: GGUF's blocks are {BLOCK} weights; take a multiple of {BLOCK}")
    quantized = model = without_factors(model)
    if not has_codes(model.network):
        quantized = quantize(model, QuantizeConfig(bits=config.bits, group_size=config.group_size, kernel="reference"))
    types = {}
    if config.embed == "int4":
        tables = ["model.embed_tokens"] if shares_table(quantized.network) else ["model.embed_tokens", "lm_head"]
        width = quantized.network.get_input_embeddings().weight.shape[1]
        types = dict.fromkeys(tables, nearest_type(4, width))
    folder = Path(tempfile.mkdtemp(prefix="intarsia-export-"))
    (folder / ENGINE).mkdir()
    facts = export_gguf(quantized, folder / ENGINE / "model.gguf", types)
    return exported(quantized, config, ENGINE, folder, facts)


def check(model: Model) -> None:
    """`MissingExtra` without the writer, `BadInput` for a model that the format cannot hold."""
    if importlib.util.find_spec("gguf") is None:
        raise MissingExtra("export to GGUF", "gguf")
    kind = type(model.network).__name__
    if kind not in ARCHITECTURES:
        raise BadInput(f"no export to GGUF for {kind}; supported: {', '.join(ARCHITECTURES)}")
    if model.tokenizer is None:
        raise BadInput("export to GGUF wants a tokenizer: wrap(network, tokenizer)")
    check_config(model)


def export_gguf(
    model: Model, path: str | Path, types: Mapping[str, str] | None = None, *, check_again: bool = True
) -> dict[str, Any]:
    """Write `model` as the new file `path` (`*.gguf`) for llama.cpp; gives facts about it.

    types: pattern of module names (`*.down_proj`) -> Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, F16, BF16 or F32; the first pattern
    that matches counts. A matrix that none matches keeps what it is: a quantized one gets the smallest type that holds
    its codes (4 bits symmetric: Q4_0; 4 bits: Q4_1; 8 bits: Q8_0), another one the float type of its weights. Whenever
    the type holds the model's codes they are written bit for bit, else the weights are rounded to nearest. A matrix
    whose rows 32 does not divide becomes F16 (F32 where 4 does not divide them, which ik_llama.cpp misreads), with a
    warning. Vectors are F32, as llama.cpp wants them. A table that embedding and head share is written once.

    A scale a row (single precision) and the minima of Q4_1 and Q5_1 are rounded to the half precision of the format,
    which moves weights by at most 2^-11 of the scale's, or the minimum's, share of them: `deviation` says by how much.

    Facts: `bytes`; `types` and for each the number of `tensors`, how many have the model's `own_codes`, how many are
    `exact`, and the largest `deviation` |w' - w|; `check`: what reading the file back with transformers gave
    (`check_again`: whether to do so). Two exports of one model give the same bytes.

    Raises `BadInput` when the file exists, a pattern matches nothing, or for an architecture, a layer or a tokenizer
    that the format (or llama.cpp's reader of it) cannot hold; `MissingExtra` without the package `gguf`."""
    check(model)
    path = Path(path)
    if path.suffix != ".gguf":
        raise BadInput(f"{path}: give a name that ends in .gguf")
    if path.exists():
        raise BadInput(f"{path} exists; give a new file")
    read_tokenizer(model)
    found = parts(model)
    chosen = _chosen(found, dict(types or {}))
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".intarsia-gguf-", dir=path.parent) as scratch:
        part = Path(scratch) / path.name
        stored = _write(model, part, found, chosen)
        facts = {"bytes": part.stat().st_size, "types": _summary(stored)}
        if model.config.rope_parameters["rope_type"] != "default":
            facts["rope"] = "scaled: llama.cpp reads the scaling from the file, transformers does not"
        if check_again:
            facts["check"] = check_file(part, model, found, {name: s.deviation for name, s in stored.items()})
        part.rename(path)
    return facts


def _chosen(found: Sequence[Part], types: dict[str, str]) -> dict[str, str]:
    """The type of every tensor, by its name in the file."""
    for name in types.values():
        if name not in TYPES:
            raise BadInput(f"no type '{name}'{did_you_mean(str(name), TYPES)}; known: {', '.join(TYPES)}")
    matrices = [p for p in found if p.width is not None]
    for pattern in types:
        if not any(fnmatchcase(p.owner, pattern) for p in matrices):
            hint = did_you_mean(pattern, [p.owner for p in matrices])
            raise BadInput(f"no matrix is called '{pattern}'{hint}; a shared head goes by the embedding's name")
    chosen, odd, misread = {}, [], []
    for p in found:
        if p.width is None:
            chosen[p.name] = "F32"
            continue
        wanted = next((t for pattern, t in types.items() if fnmatchcase(p.owner, pattern)), None) or _kept(p)
        if wanted in BLOCKS and p.width % BLOCK:
            wanted = loose_type(p.width)
            odd.append((p.owner, p.width, wanted))
        if wants(wanted, p.width):
            misread.append((p.owner, p.width, wanted))
        chosen[p.name] = wanted
    if odd:
        owner, width, kind = odd[0]
        warnings.warn(
            f"{len(odd)} matrices become {kind}: {BLOCK} does not divide their rows (first: {owner}, {width})",
            Note,
            stacklevel=4,
        )
    if misread:
        owner, width, kind = misread[0]
        warnings.warn(
            f"{len(misread)} matrices are {kind} with rows that {wants(kind, width)} does not divide (first: {owner}, "
            f"{width}): ik_llama.cpp 0.1.5 reads these wrongly; take {'Q5_0 or Q8_0' if kind in BLOCKS else 'F32'}",
            Note,
            stacklevel=4,
        )
    return chosen


def _kept(part: Part) -> str:
    """The type nearest to what a matrix is in the network."""
    table = holder(part.module)
    if isinstance(table, Quantized):
        return own_type(table) or nearest_type(table.grid.bits, table.width)
    if table.weight.dtype not in FLOATS:
        raise BadInput(f"{part.owner} holds {table.weight.dtype}; GGUF takes {', '.join(map(str, FLOATS))}")
    name = FLOATS[table.weight.dtype]
    return "F32" if wants(name, table.weight.shape[1]) else name


def _write(model: Model, path: Path, found: Sequence[Part], chosen: Mapping[str, str]) -> dict[str, Stored]:
    """Write the file; gives what was stored, by name, without the data."""
    import gguf

    stored: dict[str, Stored] = {}
    weights: Counter[str] = Counter()
    out = gguf.GGUFWriter(path, ARCHITECTURES[type(model.network).__name__][0])
    add_hyperparameters(out, model)
    add_tokenizer(out, model)
    if (factors := rope_factors(model)) is not None:
        out.add_tensor("rope_freqs.weight", factors.numpy())
    for part in track(found, "exporting to GGUF"):
        value, kind = part.value, chosen[part.name]
        matrix = store(part.module, value if value.dim() == 2 else value[None], kind)
        data = matrix.data if value.dim() == 2 else matrix.data[0]
        if part.heads is not None:
            # Whole rows change places, so their bytes do.
            data = paired_rows(data, part.heads)
        if value.dim() == 2:
            weights[kind] += value.numel()
        out.add_tensor(part.name, data, raw_dtype=gguf.GGMLQuantizationType[kind])
        stored[part.name] = Stored(kind, data[:0], matrix.own, matrix.deviation)
    most = weights.most_common(1)[0][0]
    out.add_file_type(gguf.LlamaFileType["ALL_F32" if most == "F32" else f"MOSTLY_{most}"])
    out.add_quantization_version(gguf.GGML_QUANT_VERSION)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    return stored


def _summary(stored: Mapping[str, Stored]) -> dict[str, dict[str, Any]]:
    """What the tensors of each type came to."""
    said = {}
    for kind in TYPES:
        of = [s for s in stored.values() if s.type == kind]
        if of:
            said[kind] = {
                "tensors": len(of),
                "own_codes": sum(s.own for s in of),
                "exact": sum(s.deviation == 0 for s in of),
                "deviation": max(s.deviation for s in of),
            }
    return said
