"""A tokenizer with fewer tokens: its own file, with the others taken out and the ids renumbered."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from intarsia.compression.bpe import by_bytes, merges_of, tokenizer_file
from intarsia.errors import BadInput, IntarsiaError
from intarsia.models import folders

# Files of slower forms of the same tokenizer, which would still hold the old vocabulary.
OLD_FORMS = ("vocab.json", "merges.txt")


def read(tokenizer: PreTrainedTokenizerBase | None) -> dict[str, Any]:
    """The tokenizer's own file, as a tree; `BadInput` for one that is no byte-level BPE."""
    said = tokenizer_file(tokenizer, "trimming a vocabulary")
    bpe = said["model"]
    if bpe["type"] != "BPE":
        raise BadInput(f"the tokenizer is of type {bpe['type']}, which has no merges to follow; only byte-level BPE is")
    if not by_bytes(said):
        raise BadInput("the tokenizer's BPE works on characters; only byte-level BPE can be trimmed without loss")
    if bpe.get("continuing_subword_prefix") or bpe.get("end_of_word_suffix") or bpe.get("dropout"):
        raise BadInput("the tokenizer marks parts of words, or drops merges at random: this BPE cannot be trimmed")
    return said


def rewrite(tokenizer: PreTrainedTokenizerBase, ids: Mapping[int, int]) -> PreTrainedTokenizerBase:
    """`tokenizer` with only the tokens of `ids` (old id -> new id), of its own class and with its own settings."""
    wanted = {token: ids[i] for token, i in tokenizer.get_vocab().items() if i in ids}
    with tempfile.TemporaryDirectory(prefix="intarsia-tokenizer-") as scratch:
        folder = Path(scratch)
        with folders.quiet():
            tokenizer.save_pretrained(folder)
        for name in OLD_FORMS:
            (folder / name).unlink(missing_ok=True)
        _edit(folder / "tokenizer.json", lambda said: _renumbered(said, ids))
        _edit(folder / "tokenizer_config.json", lambda said: _settings(said, ids))
        again = folders.load_tokenizer(folder)
    if again is None or again.get_vocab() != wanted:
        raise IntarsiaError(
            f"a {type(tokenizer).__name__} does not take a smaller vocabulary: what it loads is not what was written"
        )
    again.name_or_path = tokenizer.name_or_path
    again.init_kwargs["name_or_path"] = tokenizer.name_or_path
    return again


def _edit(file: Path, change: Any) -> None:
    said = change(json.loads(file.read_text("utf-8")))
    file.write_text(json.dumps(said, ensure_ascii=False), "utf-8")


def _renumbered(said: dict[str, Any], ids: Mapping[int, int]) -> dict[str, Any]:
    """A tokenizer's file with the tokens of `ids` only."""
    bpe = said["model"]
    vocab = {token: ids[i] for token, i in bpe["vocab"].items() if i in ids}
    merges = [
        pair
        for pair, (a, b) in zip(bpe["merges"], merges_of(said), strict=True)
        if a in vocab and b in vocab and a + b in vocab
    ]
    bpe |= {"vocab": vocab, "merges": merges}
    said["added_tokens"] = [{**token, "id": ids[token["id"]]} for token in said["added_tokens"]]
    if said.get("padding"):
        said["padding"]["pad_id"] = ids[said["padding"]["pad_id"]]
    _renumber_processor(said.get("post_processor"), ids)
    return said


def _renumber_processor(step: dict[str, Any] | None, ids: Mapping[int, int]) -> None:
    """New ids for what a post-processor puts around a text, in place."""
    match (step or {}).get("type"):
        case None | "ByteLevel":
            return
        case "Sequence":
            for inner in step["processors"]:  # type: ignore[index]
                _renumber_processor(inner, ids)
        case "TemplateProcessing":
            for special in step["special_tokens"].values():  # type: ignore[index]
                special["ids"] = [ids[i] for i in special["ids"]]
        case "RobertaProcessing" | "BertProcessing":
            for key in ("sep", "cls"):
                token, i = step[key]  # type: ignore[index]
                step[key] = [token, ids[i]]  # type: ignore[index]
        case kind:
            raise BadInput(f"the tokenizer ends with a step '{kind}', whose ids are not known here; remove it first")


def _settings(said: dict[str, Any], ids: Mapping[int, int]) -> dict[str, Any]:
    if "added_tokens_decoder" in said:
        said["added_tokens_decoder"] = {
            str(ids[int(i)]): token for i, token in said["added_tokens_decoder"].items() if int(i) in ids
        }
    return said
