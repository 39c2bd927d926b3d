"""Models: get one by known name, hub id, folder, GGUF file or wheel; cache it; save it as a plain folder."""

from intarsia.models.model import Identity, Model, wrap

__all__ = ["Identity", "Model", "wrap"]
