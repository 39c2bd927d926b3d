"""Kinds of networks whose rows were proved once to stand at different places, so that the next start need not prove it
again: it depends on code and shapes, not on weights."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from intarsia.errors import IntarsiaError
from intarsia.models import cache

if TYPE_CHECKING:
    from intarsia.models import Model

FILE = "proved.json"
MOST = 1000  # kinds that are remembered
OURS = ("network.py", "slots.py")  # what is proved together with the network


def kind_of(model: Model) -> str | None:
    """What the proof of a network that was just loaded depends on, as a sha256; None where modules are from elsewhere.

    That is: its classes, settings and shapes, its number type and device, the processor's instructions, and the
    versions of the libraries and of the code that runs it."""
    import torch
    import transformers

    network = model.network
    if not all(type(m).__module__.startswith(("transformers.", "torch.")) for m in network.modules()):
        return None
    settings = {key: value for key, value in network.config.to_dict().items() if key != "_name_or_path"}
    shapes = [f"{name} {list(tensor.shape)}" for name, tensor in network.state_dict().items()]
    here = Path(__file__).parent
    told = [
        transformers.__version__, torch.__version__, torch.backends.cpu.get_cpu_capability(), str(model.device.type),
        str(model.dtype), type(network).__qualname__, str(network.config._attn_implementation),
        json.dumps(settings, sort_keys=True, default=str), *shapes,
        *((here / name).read_text("utf-8") for name in OURS),
    ]  # fmt: skip
    return hashlib.sha256("\0".join(told).encode()).hexdigest()


def is_proved(kind: str | None) -> bool:
    """Whether a network of this kind was proved before."""
    return kind is not None and kind in _kinds()


def remember(kind: str | None) -> None:
    """A network of this kind is proved."""
    if kind is None:
        return
    file = cache.cache_dir() / FILE
    try:  # a memory that cannot be written only costs time
        with cache.lock("proved"):
            part = file.with_name(f".{FILE}.{os.getpid()}.part")
            part.write_text(json.dumps([*_kinds(), kind][-MOST:]) + "\n", "utf-8")
            part.replace(file)
    except (OSError, IntarsiaError):
        return


def _kinds() -> list[str]:
    try:
        found = json.loads((cache.cache_dir() / FILE).read_text("utf-8"))
    except (OSError, ValueError):
        return []
    return found if isinstance(found, list) else []
