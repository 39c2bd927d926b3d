"""Prompts of a patchscope as token ids, and positions in them by number or by the words that stand there.

The first token of a prompt serves a decoder as its attention sink: its state is unlike all others, and patching it
takes the sink away. So the first position is neither read nor patched. Source prompts begin with a start token, so
that all of their own tokens can be read; target prompts, whose first word is as good a sink, get one only where they
would be patched at their first token. A start token that a tokenizer does not put by itself can mean a lot to a tuned
model (the beginning of a chat), and its continuations suffer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import pydantic

from intarsia.errors import BadInput

if TYPE_CHECKING:
    from intarsia.models import Model

At = int | str


def _number(value: Any) -> Any:
    """`"-1"` from a command line is a number; a number that is meant as a word can be given with its neighbours."""
    text = value.strip() if isinstance(value, str) else ""
    return int(text) if text.lstrip("-").isdigit() and text.isascii() else value


Position = Annotated[int | str, pydantic.BeforeValidator(_number)]
"""A setting that is a position: a number of tokens, or words of the prompt."""


@dataclass(frozen=True)
class Encoded:
    """A prompt as it is run. `own`: how many tokens were put before those that the tokenizer gives (0 or 1).
    `ends[t]`: the character after the last one that token t stands for; 0 for tokens without text."""

    ids: tuple[int, ...]
    text: str | None
    own: int
    ends: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.ids)


def encode(
    model: Model, prompt: str | Sequence[int], what: str = "prompt", *, start: bool = True, cut: bool = False
) -> Encoded:
    """Token ids of a text, with `start` behind a start token: the tokenizer's own, else its begin (or end) token put
    before. Token ids are taken as they are.

    Raises `BadInput` for an empty prompt, for text without a tokenizer, and for more tokens than the network's context
    (with `cut` these are left off)."""
    if not isinstance(prompt, str):
        ids = tuple(int(i) for i in prompt)
        if not ids:
            raise BadInput(f"{what}: there are no token ids in it")
        return Encoded(ids, None, 0, (0,) * len(ids))
    tokenizer = model.tokenizer
    if tokenizer is None:
        raise BadInput(f"{what}: this model has no tokenizer: give token ids, or wrap(network, tokenizer)")
    if not prompt:
        raise BadInput(f"{what}: it is empty: wants a text")
    encoded = tokenizer(prompt, return_offsets_mapping=bool(tokenizer.is_fast), verbose=False)
    ids = list(encoded["input_ids"])
    ends = [end for _, end in encoded["offset_mapping"]] if tokenizer.is_fast else _ends(tokenizer, ids)
    special = set(tokenizer.all_special_ids)
    # Encoders end their texts with a token of their own (BERT's [SEP]); a decoder must go on after the last word.
    while len(ids) > 1 and ids[-1] in special and not ends[-1]:
        ids, ends = ids[:-1], ends[:-1]
    own = 0
    if start and (not ids or ids[0] not in special or ends[0]):
        ids, ends, own = [start_token(model), *ids], [0, *ends], 1
    limit = model.context_length
    if limit and len(ids) > limit and cut:
        ids, ends = ids[:limit], ends[:limit]
    elif limit and len(ids) > limit:
        raise BadInput(f"{what}: it has {len(ids)} tokens, and the network's context is {limit}: shorten it")
    return Encoded(tuple(ids), prompt, own, tuple(ends))


def encode_target(model: Model, prompt: str | Sequence[int] | Encoded, at: At) -> tuple[Encoded, int]:
    """A target prompt and the index of its position. A start token is put before it only when the position would
    otherwise be the first token."""
    what = "target prompt"
    if isinstance(prompt, Encoded):
        return prompt, place(prompt, at, what)
    plain = encode(model, prompt, what, start=False)
    try:
        return plain, place(plain, at, what)
    except FirstToken:
        if not isinstance(prompt, str):
            raise
    whole = encode(model, prompt, what)
    return whole, place(whole, at, what)


def start_token(model: Model) -> int:
    """The fixed first token of prompts: begin of text, or end of text where a tokenizer has no such token."""
    tokenizer = model.tokenizer
    known = [getattr(tokenizer, name, None) for name in ("bos_token_id", "cls_token_id", "eos_token_id")]
    return next((int(i) for i in known if i is not None), 0)


class FirstToken(BadInput):
    """The position is the first token of the prompt."""


def place(prompt: Encoded, at: At, what: str = "prompt") -> int:
    """Index into `prompt.ids` of a position: a number counts the tokenizer's tokens (-1 is the last one); words stand
    for the last token of their last occurrence.

    Raises `BadInput` for a position outside the prompt, words that are not in it, and the very first token."""
    count = len(prompt) - prompt.own
    if isinstance(at, str):
        if prompt.text is None:
            raise BadInput(f"{what}: position '{at}' is given by words, and the prompt by token ids: give a number")
        if not at.strip():
            raise BadInput(f"{what}: the words that say the position are empty")
        start = prompt.text.rfind(at)
        if start < 0:
            raise BadInput(f"{what}: '{at}' does not occur in it: {prompt.text!r}")
        return token_at(prompt, start + len(at.rstrip()), what)
    if not -count <= at < count:
        raise BadInput(f"{what}: position {at} is outside the prompt, which has {count} tokens (0 to {count - 1})")
    index = prompt.own + at % count
    if index == 0:
        raise FirstToken(f"{what}: position {at} is the first token, the attention sink: give 1 or later")
    return index


def token_at(prompt: Encoded, end: int, what: str = "prompt") -> int:
    """Index of the token that holds the character before `end`: the last token of the text up to there."""
    index = next((t for t, stop in enumerate(prompt.ends) if stop >= end), None)
    if index is None:
        raise BadInput(f"{what}: character {end} is outside the prompt: {prompt.text!r}")
    if index == 0:
        raise FirstToken(f"{what}: the position is the first token, the attention sink")
    while index + 1 < len(prompt) and prompt.ends[index + 1] == prompt.ends[index]:
        index += 1  # a character that is several tokens
    return index


def positions(prompt: Encoded, most: int | None = None) -> list[int]:
    """All positions that can be read: every token but the first (the last `most` of them)."""
    everything = list(range(1, len(prompt)))
    return everything if most is None else everything[-most:]


def same_vocabulary(a: Model, b: Model) -> bool:
    """Whether two models' tokenizers give every token the same number."""
    if a.tokenizer is None or b.tokenizer is None:
        return False
    return a.tokenizer is b.tokenizer or a.tokenizer.get_vocab() == b.tokenizer.get_vocab()


def _ends(tokenizer: Any, ids: list[int]) -> list[int]:
    """Ends of tokens by decoding longer and longer prefixes, for tokenizers that keep no offsets."""
    special = set(tokenizer.all_special_ids)
    return [
        0 if token in special else len(tokenizer.decode(ids[: t + 1], skip_special_tokens=True))
        for t, token in enumerate(ids)
    ]
