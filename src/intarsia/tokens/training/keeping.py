"""A training that goes on where it was stopped."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from intarsia.errors import BadInput
from intarsia.models import cache

EVERY = 45.0
"""Seconds between two writings."""
TENSORS, NOTE = "training.safetensors", "training.json"


class Keeping:
    """The state of one training in `folder` (None: nowhere).

    - key: of everything that decides how it goes. A folder with another key is refused."""

    def __init__(self, folder: Path | None, key: str):
        self.folder = None if folder is None else Path(folder).expanduser().absolute()
        self.key, self._last = key, time.monotonic()

    def due(self) -> bool:
        """Whether it is time to write."""
        return self.folder is not None and time.monotonic() - self._last > EVERY

    def save(self, named: Mapping[str, nn.Parameter], optimiser: torch.optim.Optimizer, note: dict[str, Any]) -> None:
        """Write weights, the optimiser's moments and `note` beside, then rename."""
        if self.folder is None:
            return
        from safetensors.torch import save_file

        tensors: dict[str, Tensor] = {f"value.{name}": p.detach().contiguous() for name, p in named.items()}
        for name, p in named.items():
            for what, value in optimiser.state.get(p, {}).items():
                tensors[f"{what}.{name}"] = torch.as_tensor(value).contiguous()
        with cache.beside(self.folder, replace=True) as part:
            save_file(tensors, part / TENSORS)
            (part / NOTE).write_text(json.dumps({"key": self.key, **note}), "utf-8")
            cache.share_modes(part)
        self._last = time.monotonic()

    def load(self, named: Mapping[str, nn.Parameter], optimiser: torch.optim.Optimizer) -> dict[str, Any] | None:
        """Put what was kept back; the note that was kept with it, or None when there is nothing.

        Raises `BadInput` for the state of another training, and for a folder that holds something else."""
        if self.folder is None or not self.folder.exists() or not any(self.folder.iterdir()):
            return None
        try:
            note = json.loads((self.folder / NOTE).read_text("utf-8"))
        except (OSError, ValueError):
            raise BadInput(f"{self.folder} holds no training: give an empty folder as checkpoint") from None
        if note.pop("key", None) != self.key:
            raise BadInput(
                f"{self.folder} holds another training (other settings, data, seed or weights): give another folder as "
                "checkpoint, or remove it"
            )
        from safetensors.torch import load_file

        tensors = load_file(self.folder / TENSORS)
        with torch.no_grad():
            for name, p in named.items():
                p.copy_(tensors.pop(f"value.{name}"))
        for key, tensor in tensors.items():
            what, _, name = key.partition(".")
            optimiser.state[named[name]][what] = tensor.to(named[name].device) if tensor.dim() else tensor
        return note


def key_of(named: Mapping[str, nn.Parameter], *facts: Any) -> str:
    """Hash of the weights that are going to be trained and of JSON-able facts."""
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode())
    for name, p in named.items():
        digest.update(name.encode())
        digest.update(p.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
