"""The model for OpenVINO, by way of a GGUF file, whose 4 and 8 bits it reads as they are."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from intarsia.compression import ExportConfig, QuantizeConfig
from intarsia.compression.exporting import openvino_build
from intarsia.compression.exporting.exported import describe, exported, without_factors
from intarsia.compression.exporting.gguf.writing import check as check_gguf
from intarsia.compression.exporting.gguf.writing import export_gguf
from intarsia.compression.quantization.modules import has_codes
from intarsia.compression.quantization.rounding import quantize
from intarsia.errors import BadInput, IntarsiaError, MissingExtra, first_line
from intarsia.models import Model
from intarsia.progress import tell

ENGINE = "openvino"
READ = ("Q4_0", "Q8_0", "F16", "F32")
"""Types of a GGUF file that OpenVINO 2026.4 reads (Q4_1 and Q5 it does not)."""


def export(model: Model, config: ExportConfig) -> Model:
    """See `intarsia.compression.export`: `exports["openvino"]`."""
    check(model)
    quantized = model = without_factors(model)
    if not has_codes(model.network):
        settings = QuantizeConfig(
            bits=config.bits, group_size=32, scheme="symmetric", embed=config.embed, kernel="reference"
        )
        quantized = quantize(model, settings)
    folder = Path(tempfile.mkdtemp(prefix="intarsia-export-"))
    facts = export_openvino(quantized, folder / ENGINE)
    return exported(quantized, config, ENGINE, folder, facts)


def check(model: Model) -> None:
    """`MissingExtra` without the packages, `BadInput` for a model that a GGUF file cannot hold."""
    for package in ("openvino", "openvino_genai"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtra(f"export to {ENGINE}", "openvino")
    check_gguf(model)


def export_openvino(model: Model, folder: Path, types: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Write a model into the new folder `folder`; gives `bytes` of graph and weights, and the `types` of its matrices.

    - types: of matrices, by patterns of names, as `export_gguf` takes them.

    Raises `BadInput` where the folder exists or a matrix is on a grid that OpenVINO does not read, `IntarsiaError` with
    its last words where it fails."""
    if folder.exists():
        raise BadInput(f"{folder} exists; give a new folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".intarsia-build-", dir=folder.parent) as scratch:
        source, out = Path(scratch) / "model.gguf", Path(scratch) / "out"
        out.mkdir()
        tell(f"exporting to {ENGINE}", 0, 2)
        found = export_gguf(model, source, types, check_again=False)["types"]
        if other := sorted(set(found) - set(READ)):
            raise BadInput(
                f"export to {ENGINE}: it does not read {', '.join(other)}: quantize with bits 4 or 8, scheme symmetric "
                "and group_size 32"
            )
        tell(f"exporting to {ENGINE}", 1, 2)
        _build(source, out)
        describe(model, out)
        out.rename(folder)
    tell(f"exporting to {ENGINE}", 2, 2, finished=True)
    return {"bytes": sum(f.stat().st_size for f in folder.glob("openvino_model.*")), "types": found}


def _build(source: Path, out: Path) -> None:
    environment = {**os.environ, "OPENVINO_TELEMETRY_OPT_OUT": "1"}
    # -P: the folder of the program holds modules that are called like the packages it imports.
    command = [sys.executable, "-P", str(Path(openvino_build.__file__)), str(source), str(out)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise IntarsiaError(f"OpenVINO does not read the file: {first_line(RuntimeError(_last(done.stderr)))}")


def _last(said: str) -> str:
    lines = [line for line in said.strip().splitlines() if line.strip()]
    return next((line for line in reversed(lines) if "Error" in line), lines[-1] if lines else "no message")
