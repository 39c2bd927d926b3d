"""What a request asks for, checked and made to tokens before any work starts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from intarsia.errors import BadInput
from intarsia.prompting.base.messages import Input, Message, ToolSpec
from intarsia.prompting.base.replies import Sampling


def prompt_ids(
    tokenizer: Any, prompt: Input, tools: Sequence[ToolSpec] = (), *, vocabulary: int, name: str,
    describe: bool = False,
) -> list[int]:  # fmt: skip
    """The tokens of a prompt.

    A text is read as the tokenizer reads it, special tokens and what it puts before a text included: whoever puts
    others' words into a prompt gives messages. Raises `BadInput` for an empty prompt or ids outside the vocabulary."""
    if not isinstance(prompt, str) and len(prompt) and isinstance(prompt[0], Message):
        if tokenizer is None:
            raise BadInput(f"{name} has no tokenizer: give token ids")
        from intarsia.prompting.base.chat import chat

        return list(chat(tokenizer, prompt, tools, describe=describe).ids)
    if tools:
        raise BadInput("tools want a conversation: give messages")
    if isinstance(prompt, str):
        if tokenizer is None:
            raise BadInput(f"{name} has no tokenizer: give token ids")
        ids = list(tokenizer(prompt, verbose=False)["input_ids"])
        if not ids:
            raise BadInput("the prompt is empty: give a text, token ids or messages")
        return ids
    ids = [int(i) for i in prompt]  # type: ignore[arg-type]
    if not ids:
        raise BadInput("the prompt is empty: give a text, token ids or messages")
    if bad := [i for i in ids if not 0 <= i < vocabulary]:
        raise BadInput(f"token id {bad[0]} is outside the vocabulary of {vocabulary}")
    return ids


def choice_ids(tokenizer: Any, prompt: Input, ids: Sequence[int], choices: Sequence[str]) -> list[list[int]]:
    """The tokens of each choice, as they are after the prompt.

    After a text, what prompt and choice have together is taken, where that begins with the prompt's tokens; else, and
    after messages, the choice by itself. Special tokens in a choice are characters. Raises `BadInput` for an empty
    choice."""
    if tokenizer is None:
        raise BadInput("choices are text: this model has no tokenizer")
    out = []
    for choice in choices:
        alone = tokenizer(choice, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        if not alone:
            raise BadInput("an empty choice has no probability: give a text")
        if isinstance(prompt, str):
            both = tokenizer(prompt + choice, verbose=False)["input_ids"]
            plain = tokenizer(choice, add_special_tokens=False)["input_ids"]
            if both[: len(ids)] == list(ids) and len(both) > len(ids) and plain == alone:
                alone = both[len(ids) :]
        out.append(list(alone))
    return out


def check_sampling(sampling: Sampling, tokenizer: Any) -> None:
    """Raise `BadInput` for settings that mean nothing."""
    for wrong, what in (
        (sampling.max_tokens < 1, f"max_tokens: {sampling.max_tokens} given, 1 or more wanted"),
        (not 0 <= sampling.temperature < float("inf"), f"temperature: {sampling.temperature} given, 0 or more wanted"),
        (not 0 < sampling.top_p <= 1, f"top_p: {sampling.top_p} given, above 0 and at most 1 wanted"),
        (sampling.top_k < 0, f"top_k: {sampling.top_k} given, 0 (all) or more wanted"),
        ((sampling.logprobs or 0) < 0, f"logprobs: {sampling.logprobs} given, 0 or more wanted"),
        (bool(sampling.stop) and tokenizer is None, "stop texts want a tokenizer, and this model has none"),
    ):
        if wrong:
            raise BadInput(what)
