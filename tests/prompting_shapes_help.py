"""Tokenizers of every kind, tiny, for tests of forms."""

from __future__ import annotations

import string

import transformers as tf
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from tests.tiny import tokenizer as one_a_byte

TEXT = ["the cat sat on the mat", '{"name": "the hat", "n": [1, 2, 3]}', "in the beginning there was nothing, then"]


def byte_level() -> tf.PreTrainedTokenizerFast:
    """Byte-level BPE with merges, so that a text has many spellings."""
    from tokenizers import trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<pad>", "<s>", "<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT * 4, trainer)
    return tf.PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<|end|>")


def sentencepiece() -> tf.PreTrainedTokenizerFast:
    """As Llama's first: `▁` for spaces, `<0x0A>` for bytes that have no token."""
    names = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    names += ["▁", *string.ascii_letters, *string.digits, *'{}[]:,".', "▁t", "he", "▁the"]
    tokenizer = Tokenizer(
        models.BPE(
            vocab={name: i for i, name in enumerate(names)},
            merges=[("▁", "t"), ("h", "e"), ("▁t", "he")],
            unk_token="<unk>",
            byte_fallback=True,
            fuse_unk=True,
        )
    )
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return tf.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )


def unigram() -> tf.PreTrainedTokenizerFast:
    """As T5's: pieces with weights, no bytes; llguidance does not read it."""
    pieces = [("<unk>", 0.0), ("</s>", 0.0), ("▁", -2.0), ("▁the", -3.0), ("at", -3.5)]
    pieces += [(letter, -4.0) for letter in string.ascii_lowercase + string.digits + '{}[]:,".']
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return tf.PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="</s>")


def wordpiece() -> tf.PreTrainedTokenizerFast:
    """As BERT's: no token that ends a text but `[SEP]`; llguidance does not read it."""
    letters = string.ascii_lowercase + string.digits
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *'{}[]:,".', *("##" + c for c in letters)]
    names += ["the", "##ing"]
    tokenizer = Tokenizer(models.WordPiece(vocab={name: i for i, name in enumerate(names)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.decoder = decoders.WordPiece()
    return tf.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )


KINDS = {
    "one-a-byte": one_a_byte,
    "byte-level": byte_level,
    "sentencepiece": sentencepiece,
    "unigram": unigram,
    "wordpiece": wordpiece,
    "python": tf.ByT5Tokenizer,
}
WHOLE = ["one-a-byte", "byte-level", "sentencepiece", "python"]
"""Those that can spell every text."""


class Drawn:
    """A backend whose model likes every token alike: draws from what a form allows. Not for text without a form."""

    name, fingerprint, context_length = "drawn", "drawn", None

    def __init__(self, tokenizer, seed: int = 0, most: int = 600):
        import numpy as np

        self.tokenizer, self.most, self.random, self.asked = tokenizer, most, np.random.default_rng(seed), []

    async def generate(self, prompt, sampling=None, *, constraint=None, tools=()):
        import numpy as np

        from intarsia.prompting.base import Reply, Usage
        from intarsia.prompting.base.calling import call_format, read_calls
        from intarsia.prompting.base.masking import Matcher

        self.asked.append((prompt, constraint, tuple(tools)))
        matcher, ids = Matcher(self.tokenizer, constraint), []
        while not matcher.done and len(ids) < self.most:
            some = matcher.forced() or [int(self.random.choice(np.flatnonzero(matcher.allowed())))]
            matcher.accept_many(some)
            ids += [i for i in some if i not in matcher.end]
        text = self.tokenizer.decode(ids)
        found = read_calls(text, call_format(self.tokenizer), salt=str(len(self.asked))) if tools else None
        finish = "stop" if matcher.done else "length"
        usage = Usage(completion=len(ids))
        if found is None:
            return Reply(text, finish, usage=usage)
        return Reply(found.text, "tool_calls" if found.calls else finish, calls=found.calls, usage=usage)

    async def close(self) -> None:
        pass
