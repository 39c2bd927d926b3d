"""Texts as vectors: the mean over a network's last states, of length one.

Source: Reimers & Gurevych 2019, "Sentence-BERT", §3 (mean pooling)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from intarsia.errors import BadInput
from intarsia.progress import track

if TYPE_CHECKING:
    from intarsia.models.model import Model
    from intarsia.models.runtime.onnx_encoder import OnnxEncoder

TOKENS = 2048  # padded tokens in one forward
LONGEST = 256  # tokens of a text that are read, as all-MiniLM was trained


def embed(model: Model | OnnxEncoder, texts: Sequence[str], *, longest: int = LONGEST) -> np.ndarray:
    """[text, width] float32, each of length one.

    - model: or an encoder that was exported for ONNX Runtime (`open_runtime`).
    - longest: tokens of a text that are read, at most; the rest is left out.

    A text that stands there several times is run once. Raises `BadInput` for a model without a tokenizer."""
    if model.tokenizer is None:
        raise BadInput("embedding wants text: this model has no tokenizer (wrap(network, tokenizer))")
    states = _torch_states if hasattr(model, "network") else _engine_states
    different = list(dict.fromkeys(texts))
    limit = min(longest, model.context_length or longest)
    order = sorted(range(len(different)), key=lambda i: (len(different[i]), i))
    found: list[Any] = [None] * len(different)
    for numbers in track(_batches([len(different[i]) for i in order]), "embedding texts"):
        rows = [order[i] for i in numbers]
        batch = model.encode([different[i] or " " for i in rows], max_length=limit)
        for i, row in zip(rows, _pooled(*states(model, batch)), strict=True):
            found[i] = row
    place = {text: i for i, text in enumerate(different)}
    return np.stack([found[place[text]] for text in texts]) if len(texts) else np.zeros((0, _width(model)), np.float32)


def _pooled(states: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The mean over real tokens, of length one: [text, token, width] -> [text, width]."""
    real = mask[..., None].astype(np.float32)
    mean = (states * real).sum(1) / np.maximum(real.sum(1), 1)
    return mean / np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-12)


def _torch_states(model: Any, batch: Any) -> tuple[np.ndarray, np.ndarray]:
    import torch

    with torch.inference_mode():
        states = model.network(**_known(model, batch), output_hidden_states=True).hidden_states[-1].float()
    return states.cpu().numpy(), batch["attention_mask"].cpu().numpy()


def _engine_states(engine: Any, batch: Any) -> tuple[np.ndarray, np.ndarray]:
    mask = batch["attention_mask"]
    return engine.states(batch["input_ids"], mask, batch.get("token_type_ids")), mask


def _width(model: Any) -> int:
    return model.config.get_text_config().hidden_size if hasattr(model, "network") else model.width


def _known(model: Model, batch: Any) -> dict[str, Any]:
    import inspect

    names = inspect.signature(model.network.forward).parameters
    return {name: value for name, value in batch.items() if name in names}


def _batches(lengths: Sequence[int]) -> list[range]:
    """Runs of texts in order of length; four characters count as a token."""
    out, start = [], 0
    for end in range(1, len(lengths) + 1):
        if end == len(lengths) or (end + 1 - start) * (lengths[end] // 4 + 4) > TOKENS:
            out.append(range(start, end))
            start = end
    return out
