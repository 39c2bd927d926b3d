"""The rounded weights as a plain Hugging Face folder, as other packages' converters read it."""

from __future__ import annotations

import json
from pathlib import Path

from intarsia.compression import dequantize
from intarsia.models import Model
from intarsia.models.folders import quiet


def save_plain(model: Model, folder: Path) -> None:
    """Write weights in float32, config and tokenizer; codes and factors are multiplied out."""
    network = dequantize(model).network.float()
    network.hf_quantizer = None
    with quiet():
        network.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)  # type: ignore[union-attr]
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config.pop("quantization_config", None)
    rope = config.get("rope_parameters")
    if isinstance(rope, dict) and "rope_theta" in rope:
        # transformers 5 keeps theta among the rope parameters; converters look for it at the top as well.
        config["rope_theta"] = rope["rope_theta"]
    path.write_text(json.dumps(config, indent=2, sort_keys=True), encoding="utf-8")
