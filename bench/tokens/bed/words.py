"""The test bed's tokenizer: a word, a token."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from bench.tokens.bed.concepts import COUNTS, NAMES, PLACES, SIDES

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PAD, UNKNOWN, BOS, EOS, IMAGE = range(5)
SPECIAL = ("<pad>", "<unk>", "<bos>", "<eos>", "<image>")
GRAMMAR = (
    "how", "many", "are", "there", "?", "what", "is", "at", "the", "where", "only", "largest", "thing", "a", "here",
    "yes", "no", ",",
)  # fmt: skip
WORDS = (*SPECIAL, *GRAMMAR, *COUNTS, *SIDES, *PLACES, *NAMES)
IDS = {word: number for number, word in enumerate(WORDS)}
QUESTION = 6
"""Words of every question."""
CAPTION = 20
"""Tokens of a caption with its two ends, at most: six things, three tokens each."""


def ids(text: str) -> list[int]:
    """Token ids of a text, without ends."""
    return [IDS[word] for word in text.split()]


@functools.cache
def tokenizer() -> PreTrainedTokenizerFast:
    """The same as a transformers tokenizer; it sets no ends by itself."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.WordLevel(IDS, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", unk_token="<unk>", bos_token="<bos>", eos_token="<eos>",
        additional_special_tokens=["<image>"],
    )  # fmt: skip
