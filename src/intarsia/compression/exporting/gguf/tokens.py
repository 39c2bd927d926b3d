"""The tokenizer as llama.cpp reads it from a file: byte-level byte-pair encoding."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from intarsia.compression.bpe import by_bytes, merges_of, tokenizer_file
from intarsia.errors import BadInput, Note
from intarsia.models import Model

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5
# What llama.cpp calls the patterns that cut a text before the merges.
SPLITS = {
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+": "llama-bpe",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+": "qwen2",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+": "tekken",
}
# Splits with which llama.cpp takes a whole word that is a token before it tries any merge.
WHOLE_WORDS_FIRST = ("llama-bpe", "tekken")


def read_tokenizer(model: Model) -> dict[str, Any]:
    """The parts of a model's fast tokenizer by name (`model`, `pre_tokenizer`, ...), as its file has them.

    Raises `BadInput` for one that GGUF's byte-level kind cannot hold."""
    said = tokenizer_file(model.tokenizer, "export to GGUF")
    bpe = said["model"]
    if bpe["type"] != "BPE" or not by_bytes(said):
        raise BadInput(f"the tokenizer is no byte-level BPE (model {bpe['type']}); only these are exported to GGUF")
    if not bpe["merges"]:
        raise BadInput("the tokenizer has no merges: llama.cpp does not load a vocabulary without any")
    normalizer = (said["normalizer"] or {}).get("type")
    if normalizer not in (None, "NFC"):
        raise BadInput(f"the tokenizer changes texts before it cuts them ({normalizer}); llama.cpp does not")
    if normalizer == "NFC":
        warnings.warn("llama.cpp does not compose characters (NFC) as this tokenizer does", Note, stacklevel=4)
    if any(token["lstrip"] or token["rstrip"] or token["single_word"] for token in said["added_tokens"]):
        warnings.warn("some added tokens swallow spaces or want word borders; GGUF cannot say so", Note, stacklevel=4)
    split = name_of_split(said["pre_tokenizer"])
    if bpe.get("ignore_merges") and split not in WHOLE_WORDS_FIRST:
        raise BadInput(f"the tokenizer takes whole words before merges, which llama.cpp does not do with '{split}'")
    return said


def name_of_split(pre_tokenizer: dict[str, Any]) -> str:
    """What llama.cpp calls a `pre_tokenizer` of a tokenizer file; `BadInput` for one it is not known to have."""
    steps = pre_tokenizer.get("pretokenizers", [pre_tokenizer])
    *before, last = steps
    if last["type"] == "ByteLevel" and not last["add_prefix_space"]:
        if last["use_regex"] and not before:
            return "gpt-2"
        if last["use_regex"] and [s["type"] for s in before] == ["Digits"] and before[0]["individual_digits"]:
            return "smollm"
        if not last["use_regex"] and [s["type"] for s in before] == ["Split"]:
            (split,) = before
            pattern = split["pattern"].get("Regex")
            if pattern in SPLITS and split["behavior"] == "Isolated" and not split["invert"]:
                return SPLITS[pattern]
    known = ", ".join(["gpt-2", "smollm", *SPLITS.values()])
    raise BadInput(f"the tokenizer cuts texts in a way that is none of llama.cpp's known here: {known}")


def add_tokenizer(out: Any, model: Model) -> None:
    """Write the tokenizer of `model` into the `GGUFWriter` `out`: tokens, types, merges, special ids, chat template."""
    tokenizer: Any = model.tokenizer
    said = read_tokenizer(model)
    size = model.config.vocab_size
    tokens = [f"[PAD{i}]" for i in range(size)]
    types = [UNUSED] * size
    for token, i in tokenizer.get_vocab().items():
        if i >= size:
            raise BadInput(f"token {i} ('{token}') has no row in the embedding ({size} rows); mend the tokenizer")
        tokens[i], types[i] = token, NORMAL
    for token in said["added_tokens"]:
        types[token["id"]] = CONTROL if token["special"] else USER_DEFINED
    out.add_tokenizer_model("gpt2")
    out.add_tokenizer_pre(name_of_split(said["pre_tokenizer"]))
    out.add_token_list(tokens)
    out.add_token_types(types)
    out.add_token_merges([" ".join(pair) for pair in merges_of(said)])
    _add_special_ids(out, model)
    begins, ends = _added(tokenizer)
    out.add_add_bos_token(begins)
    out.add_add_eos_token(ends)
    template = tokenizer.chat_template
    if isinstance(template, dict):
        template = [{"name": name, "template": text} for name, text in template.items()]
    if template:
        out.add_chat_template(template)


def _add_special_ids(out: Any, model: Model) -> None:
    tokenizer: Any = model.tokenizer
    for name in ("bos", "eos", "pad", "unk"):
        token = getattr(tokenizer, f"{name}_token_id", None)
        if token is None:
            token = getattr(model.config, f"{name}_token_id", None)
        if isinstance(token, list):
            token = token[0]
        if token is not None:
            getattr(out, f"add_{name}_token_id")(token)
    ends = getattr(getattr(model.network, "generation_config", None), "eos_token_id", None)
    if isinstance(ends, list) and (others := [i for i in ends if i != tokenizer.eos_token_id]):
        out.add_eot_token_id(others[0])


def _added(tokenizer: PreTrainedTokenizerBase) -> tuple[bool, bool]:
    """Whether the tokenizer puts the beginning token before a text, and the end token after it."""
    ids = list(tokenizer("").input_ids)
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    for begins, ends in ((False, False), (True, False), (False, True), (True, True)):
        if ids == [bos] * begins + [eos] * ends:
            return begins, ends
    raise BadInput(f"the tokenizer adds {tokenizer.convert_ids_to_tokens(ids)} to every text; GGUF knows bos and eos")
