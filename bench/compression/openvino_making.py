"""OpenVINO's own way from a GGUF file to a compressed graph: `python openvino_making.py GGUF OUT MODE OPTIONS WINDOWS`.

Its GenAI package reads the file into a graph with a cache, nncf compresses the weights. A program of its own: nncf
patches torch when it is imported. MODE: of nncf; OPTIONS: nncf's, as JSON; WINDOWS: a JSON file of token
ids for those options that look at data."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from intarsia.compression.exporting.openvino_build import graph

SAMPLES = 8  # windows of calibration text: 4,096 tokens, what ours read


def main(source: str, out: str, mode: str, options: str, windows: str) -> None:
    with graph(Path(source), Path(out)) as found:
        import openvino

        model = openvino.Core().read_model(found)
        import nncf

        settings: dict[str, Any] = json.loads(options)
        if settings.get("awq") or settings.get("scale_estimation"):
            names = {name for port in model.inputs for name in port.get_names()}
            texts = json.loads(Path(windows).read_text())[:SAMPLES]
            settings["dataset"] = nncf.Dataset(texts, lambda ids: _inputs(ids, names))
        small = nncf.compress_weights(model, mode=nncf.CompressWeightsMode[mode], **settings)
        openvino.save_model(small, Path(out) / "openvino_model.xml", compress_to_fp16=False)


def _inputs(ids: list[int], names: set[str]) -> dict[str, Any]:
    import numpy as np

    given = {
        "input_ids": np.asarray([ids], dtype=np.int64),
        "attention_mask": np.ones((1, len(ids)), dtype=np.int64),
        "position_ids": np.arange(len(ids), dtype=np.int64)[None],
        "beam_idx": np.zeros(1, dtype=np.int32),
    }
    return {key: value for key, value in given.items() if key in names}


if __name__ == "__main__":
    main(*sys.argv[1:])
