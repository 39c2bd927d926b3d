"""What was said of clips, kept on disk by what they hold, by the model and by the settings: a rerun costs nothing, and
a run that was killed goes on where it was.

    <cache>/descriptions/<model and settings>/<sha256 of a clip>.json"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from intarsia.models.cache import cache_dir, disk_errors
from intarsia.models.weights import weights_key

if TYPE_CHECKING:
    from intarsia.models import Model

VERSION = 1
"""Of how frames are chosen and texts are made; what another version kept is not used."""


@dataclass(frozen=True)
class Said:
    """What a model wrote of a clip, as it wrote it, and what it was shown."""

    text: str
    seconds: float
    scenes: int
    times: tuple[float, ...]
    sound: bool
    trouble: str


class Kept:
    """Descriptions of one model with one set of settings. `settings` are those that the text depends on."""

    def __init__(self, model: Model, settings: Mapping[str, Any]):
        marks = json.dumps([VERSION, identity(model), dict(settings)], sort_keys=True, ensure_ascii=False)
        self.folder = cache_dir() / "descriptions" / hashlib.sha256(marks.encode()).hexdigest()[:32]

    def path(self, clip: str, start: float | None, end: float | None) -> Path:
        """Where a clip of this sha256, or the stretch of it, is kept."""
        return self.folder / (clip + ("" if start is None and end is None else f"-{start}-{end}") + ".json")

    def get(self, path: Path) -> Said | None:
        """What is kept there; None for nothing, and for what was damaged."""
        try:
            row = json.loads(path.read_text("utf-8"))
            return Said(**{**row, "times": tuple(row["times"])})
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def put(self, path: Path, said: Said) -> None:
        """Keep it, whole or not at all."""
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                part.write_text(json.dumps(asdict(said), ensure_ascii=False), "utf-8")
                part.replace(path)
            finally:
                part.unlink(missing_ok=True)


def identity(model: Model) -> dict[str, Any]:
    """What decides what a model writes: its weights, what was done to it, and how pictures and texts reach it."""
    config = model.config.to_dict()
    settings = getattr(model.network, "generation_config", None)
    return {
        "class": type(model.network).__name__,
        "weights": weights_key(model),
        "config": _plain({k: v for k, v in config.items() if k not in ("_name_or_path", "transformers_version")}),
        "extras": _plain(model.extras),
        "generation": _plain(settings.to_diff_dict()) if settings is not None else None,
        "processor": _plain(_processing(model.processor)),
        "tokenizer": _tokens(model.tokenizer),
    }


def _processing(processor: Any) -> Any:
    if processor is None:
        return None
    known = processor.to_dict() if hasattr(processor, "to_dict") else {}
    image = getattr(processor, "image_processor", None)
    return [
        type(processor).__name__, known, image.to_dict() if hasattr(image, "to_dict") else None,
        getattr(processor, "chat_template", None),
    ]  # fmt: skip


def _tokens(tokenizer: Any) -> str:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    text = backend.to_str() if backend is not None else json.dumps(tokenizer.get_vocab(), sort_keys=True)
    return hashlib.sha256(f"{text} {getattr(tokenizer, 'chat_template', None)}".encode()).hexdigest()


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value, sort_keys=True, default=str))
