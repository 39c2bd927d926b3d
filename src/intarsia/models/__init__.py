"""Models: get one by known name, hub id, folder, GGUF file or wheel; cache it; save it as a plain folder."""

from intarsia.models.loading import load
from intarsia.models.model import Identity, Model, wrap
from intarsia.models.names import KnownModel, known_models

__all__ = ["Identity", "KnownModel", "Model", "known_models", "load", "wrap"]
