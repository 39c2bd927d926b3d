"""A bare `tokenizer.json`: the file says how text is cut, the network's config which ids are special."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def bare_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder that has a `tokenizer.json` and no `tokenizer_config.json`.

    transformers would give it the special tokens of the model family's published vocabulary, which this one need not
    have. They are taken from the ids in the config instead. A vision-language network pools its text at the end token,
    so where the file adds no special tokens itself, texts get the first and the last one."""
    import transformers as tf
    from tokenizers import Tokenizer
    from tokenizers.processors import TemplateProcessing

    backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
    config = _config(folder)
    text = config.get("text_config") or config
    tokens: dict[str, str] = {}
    for role in ("pad", "bos", "eos"):
        number = text.get(f"{role}_token_id")
        if isinstance(number, int) and (token := backend.id_to_token(number)) is not None:
            tokens[f"{role}_token"] = token
    if (unknown := getattr(backend.model, "unk_token", None)) is not None:
        tokens["unk_token"] = unknown
    first, last = tokens.get("bos_token"), tokens.get("eos_token")
    if backend.post_processor is None and "vision_config" in config and first and last:
        ids = [(token, backend.token_to_id(token)) for token in (first, last)]
        backend.post_processor = TemplateProcessing(single=f"{first} $A {last}", special_tokens=ids)
    length = text.get("max_position_embeddings")
    limit = {"model_max_length": length} if isinstance(length, int) else {}
    return tf.PreTrainedTokenizerFast(tokenizer_object=backend, **tokens, **limit)


def _config(folder: Path) -> dict[str, Any]:
    file = folder / "config.json"
    try:
        found = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
