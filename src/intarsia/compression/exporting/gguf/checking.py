"""Reading a file back: the tensors must be those that were meant, and texts give the same tokens."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from intarsia.compression.exporting.gguf.tensors import Part
from intarsia.errors import IntarsiaError, Note
from intarsia.models import Model, cache, load

SAMPLES = (
    "The quick brown fox jumps over 13 lazy dogs.",
    "def area(r):\n    return 3.14159 * r**2  # π\n",
    "Ça va? 漢字とかな, Привет! 🎉\t\t don't  WE'LL",
)


def check_file(path: Path, model: Model, parts: Sequence[Part], deviations: Mapping[str, float]) -> dict[str, Any]:
    """Load the file with transformers' own reader and compare every tensor with the network it was written from.

    deviations: the largest |stored - own| of each tensor, by its name in the file. Gives how many tensors were
    compared, the largest difference, and whether sample texts (and chats) give the same tokens. Raises
    `IntarsiaError` when a tensor comes back otherwise than it was meant; its file is removed by the caller."""
    known = (cache.cache_dir() / _entry(path)).is_dir()
    again = load(path)
    if not known:
        # The check is no reason to keep a copy of the model in the cache.
        cache.clear(_entry(path))
    state = again.network.state_dict()
    largest = 0.0
    for part in parts:
        key = f"{part.owner}.{part.leaf}"
        if key not in state or state[key].shape != part.value.shape:
            raise IntarsiaError(f"{path.name} was read back without {key}: transformers and gguf disagree; update them")
        difference = (state[key].double() - part.value.cpu().double()).abs().max().item()
        # Equal arithmetic on both sides; a hair for another order of it.
        if not difference <= deviations[part.name] * (1 + 1e-6):
            raise IntarsiaError(
                f"{path.name} was read back with another {key} (off by {difference:.2g}, "
                f"{deviations[part.name]:.2g} was meant): transformers and gguf disagree; update them"
            )
        largest = max(largest, difference)
    same = all(_ids(model, text) == _ids(again, text) for text in SAMPLES)
    if not same:
        warnings.warn("transformers reads the file's tokenizer otherwise than it was: texts differ", Note, stacklevel=4)
    return {"tensors": len(parts), "largest_difference": largest, "same_tokens": same}


def _entry(path: Path) -> str:
    return f"gguf/{cache.sha256_of(path)[:32]}"


def _ids(model: Model, text: str) -> list[int]:
    return list(model.tokenizer(text).input_ids)  # type: ignore[misc]
