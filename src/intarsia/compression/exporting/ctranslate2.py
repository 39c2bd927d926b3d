"""The model for CTranslate2: 8 bits, a scale a row, which are the codes that the network has."""

from __future__ import annotations

import importlib.util
import tempfile
from pathlib import Path
from typing import Any

from intarsia.compression import ExportConfig, QuantizeConfig
from intarsia.compression.exporting.exported import describe, exported, without_factors
from intarsia.compression.exporting.plain import save_plain
from intarsia.compression.quantization.grids import ROW
from intarsia.compression.quantization.modules import Quantized, has_codes
from intarsia.compression.quantization.rounding import quantize
from intarsia.errors import BadInput, IntarsiaError, MissingExtra, first_line
from intarsia.models import Model
from intarsia.progress import tell

ENGINE = "ctranslate2"


def export(model: Model, config: ExportConfig) -> Model:
    """See `intarsia.compression.export`: `exports["ctranslate2"]`."""
    check(model)
    quantized = model = without_factors(model)
    if not has_codes(model.network):
        quantized = quantize(model, QuantizeConfig(bits=8, kernel="reference"))
    elif other := sorted({str(m.grid) for m in quantized.network.modules() if isinstance(m, Quantized)} - {str(ROW)}):
        raise BadInput(
            f"export to {ENGINE}: its file holds 8 bits with a scale a row, this network has {', '.join(other)}: "
            "quantize with bits 8, or export the network as it was"
        )
    folder = Path(tempfile.mkdtemp(prefix="intarsia-export-"))
    facts = export_ctranslate2(quantized, folder / ENGINE)
    return exported(quantized, config, ENGINE, folder, facts)


def check(model: Model) -> None:
    """`MissingExtra` without the package, `BadInput` for a model without a tokenizer."""
    if importlib.util.find_spec("ctranslate2") is None:
        raise MissingExtra(f"export to {ENGINE}", "ctranslate2")
    if model.tokenizer is None:
        raise BadInput(f"export to {ENGINE} wants a tokenizer: wrap(network, tokenizer)")


def export_ctranslate2(model: Model, folder: Path) -> dict[str, Any]:
    """Write a quantized model into the new folder `folder`; gives `bytes` of its weights.

    Raises `BadInput` where the folder exists or the converter does not know the network."""
    from ctranslate2.converters import TransformersConverter

    if folder.exists():
        raise BadInput(f"{folder} exists; give a new folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".intarsia-build-", dir=folder.parent) as scratch:
        source, out = Path(scratch) / "network", Path(scratch) / "out"
        tell(f"exporting to {ENGINE}", 0, 2)
        save_plain(model, source)
        tell(f"exporting to {ENGINE}", 1, 2)
        try:
            TransformersConverter(str(source)).convert(str(out), quantization="int8")
        except ValueError as error:
            raise BadInput(f"no export to {ENGINE} for {type(model.network).__name__}: {first_line(error)}") from None
        except (KeyError, AttributeError, RuntimeError) as error:
            raise IntarsiaError(f"CTranslate2's converter failed: {first_line(error)}") from None
        describe(model, out)
        out.rename(folder)
    tell(f"exporting to {ENGINE}", 2, 2, finished=True)
    return {"bytes": (folder / "model.bin").stat().st_size}
