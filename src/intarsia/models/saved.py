"""`Saved`: tensors and plain data, and how they lie in a file. Written whole or not at all."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from intarsia.errors import BadInput, first_line


@dataclass(frozen=True)
class Saved:
    """- tensors: by name; note: what JSON holds."""

    tensors: dict[str, Tensor]
    note: dict[str, Any] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """As a safetensors file, the note in its header."""
        from safetensors.torch import save

        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.tensors.items()}
        return save(tensors, {"note": json.dumps(self.note)})

    @staticmethod
    def from_bytes(data: bytes) -> Saved:
        """The inverse. Raises `BadInput` for anything else."""
        from safetensors import SafetensorError
        from safetensors.torch import load

        try:
            size = int.from_bytes(data[:8], "little")
            note = json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["note"])
            return Saved(load(data), note)
        except (KeyError, ValueError, SafetensorError) as error:
            raise BadInput(f"what was saved of the training cannot be read: {first_line(error)}") from None

    def write(self, path: Path) -> None:
        """To a file, beside and renamed: an earlier one stays whole until this one is."""
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            with part.open("wb") as file:
                file.write(self.to_bytes())
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)

    @staticmethod
    def read(path: Path) -> Saved | None:
        """From a file; None where there is none."""
        return Saved.from_bytes(path.read_bytes()) if path.is_file() else None
