"""`Checkpoint`: a model's folder, found but not loaded: ranks read from it what each of them holds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Checkpoint:
    """- folder: plain Hugging Face files with safetensors; name: what was asked for."""

    folder: Path
    name: str

    @staticmethod
    def open(given: str | Path) -> Checkpoint:
        """A folder, or a known name or hub id, which is fetched. Raises `BadInput` for anything else."""
        from intarsia.models.loading import located

        return Checkpoint(located(str(given)).resolve(), str(given))
