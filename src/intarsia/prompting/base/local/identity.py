"""Which model it is: equal for equal weights, adapters and tokenizer, whatever they are called, wherever they lie."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from intarsia.models import Model


class Fingerprint:
    """Worked out when it is asked for: a network that lies in memory alone is read whole.

    - model: or file: of an engine's weights. adapters: folders by name."""

    def __init__(self, tokenizer: Any, *, model: Model | None = None, file: Path | None = None,
                 adapters: dict[str, Path] | None = None):  # fmt: skip
        self.tokenizer, self.model, self.file = tokenizer, model, file
        self.adapters = adapters or {}
        self._base: str | None = None

    def of(self, adapter: str | None = None) -> str:
        """sha256, in hex."""
        if self._base is None:
            self._base = weights_sha256(self.model) if self.model is not None else files_sha256(self.file)
        folder = self.adapters.get(adapter) if adapter is not None else None
        parts = [self._base, tokenizer_sha256(self.tokenizer), "" if folder is None else files_sha256(folder)]
        return hashlib.sha256("|".join(parts).encode()).hexdigest()


def weights_sha256(model: Model) -> str:
    """Of a model's weights. As its file's, where it is as the file has it; else its tensors are read."""
    identity = model.identity
    if identity.sha256 is not None and not identity.changes:
        return hashlib.sha256(f"{identity.sha256}|{model.dtype}".encode()).hexdigest()
    # What changed it may have depended on data that no settings name.
    return tensors_sha256(model)


def tensors_sha256(model: Model) -> str:
    """Of every tensor of the network, by name."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(model.network.state_dict().items()):
        if not isinstance(tensor, torch.Tensor):
            continue
        plain = tensor.detach().cpu().contiguous()
        digest.update(f"{name}|{plain.dtype}|{tuple(plain.shape)}|".encode())
        digest.update(plain.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def files_sha256(path: Path | None) -> str:
    """Of a file, or of all files of a folder by name."""
    from intarsia.models.cache import sha256_of

    if path is None:
        return ""
    if path.is_file():
        return sha256_of(path)
    digests = [f"{f.relative_to(path)}:{sha256_of(f)}" for f in sorted(path.rglob("*")) if f.is_file()]
    return hashlib.sha256("|".join(digests).encode()).hexdigest()


def tokenizer_sha256(tokenizer: Any) -> str:
    """Of a tokenizer and its chat template."""
    if tokenizer is None:
        return ""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    text = backend.to_str() if hasattr(backend, "to_str") else json.dumps(tokenizer.get_vocab(), sort_keys=True)
    template = json.dumps(getattr(tokenizer, "chat_template", None), sort_keys=True)
    return hashlib.sha256(f"{text}|{template}".encode()).hexdigest()
