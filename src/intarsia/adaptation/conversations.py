"""Conversations as token ids, with the answers marked.

The chat template is the tokenizer's own. Where an answer begins and ends is found by rendering the conversation up to
it, which needs no knowledge of the template."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from intarsia.data import Chat, TextPair
from intarsia.errors import BadInput

IGNORED = -100
"""The label of a token that bears no loss (PyTorch's own)."""


@dataclass(frozen=True)
class Marked:
    """Token ids of a conversation, and labels: the id where a token belongs to an answer, `IGNORED` elsewhere."""

    ids: list[int]
    labels: list[int]

    @property
    def answers(self) -> int:
        """How many tokens bear loss."""
        return sum(label != IGNORED for label in self.labels)


def mark(tokenizer: Any, record: Chat | TextPair) -> list[Marked]:
    """A conversation as one marked sequence.

    Each answer's end token (`<|im_end|>`, say) is part of it; where the template writes none, the end-of-text token
    follows the last answer. A template that writes earlier turns differently once later ones are there (it drops their
    reasoning, say) gives one sequence per answer instead, each as the model would have seen it.

    Raises `BadInput` for a tokenizer without a chat template, a conversation it refuses, or one without an answer."""
    messages = _messages(record)
    turns = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    if not turns:
        raise BadInput("a conversation has no assistant message: there is nothing to learn from it")
    pieces = [_turn(tokenizer, messages, i) for i in turns]
    whole = _render(tokenizer, messages, False)
    if all(whole.startswith(before + answer) for before, answer in pieces):
        spans = [(len(before), len(before) + len(answer)) for before, answer in pieces]
        return [_tokenise(tokenizer, whole[: spans[-1][1]], spans)]
    return [_tokenise(tokenizer, b + a, [(len(b), len(b) + len(a))]) for b, a in pieces]


def _messages(record: Chat | TextPair) -> list[dict[str, str]]:
    if isinstance(record, TextPair):
        return [{"role": "user", "content": record.prompt}, {"role": "assistant", "content": record.target}]
    return [dict(message) for message in record.messages]


def _render(tokenizer: Any, messages: Sequence[dict[str, str]], answer_next: bool) -> str:
    if not getattr(tokenizer, "chat_template", None):
        raise BadInput("this tokenizer has no chat template: use an instruct model, or set tokenizer.chat_template")
    try:
        return tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=answer_next)
    except Exception as error:  # templates raise what they like: jinja's own errors, TypeError, ...
        raise BadInput(f"the chat template refuses a conversation: {error}") from None


def _turn(tokenizer: Any, messages: Sequence[dict[str, str]], i: int) -> tuple[str, str]:
    """What stands before answer `i`, and the answer with its end token."""
    before = _render(tokenizer, messages[:i], True)
    until = _render(tokenizer, messages[: i + 1], False)
    content = messages[i]["content"]
    if not until.startswith(before):
        # The generation prompt differs from what the template writes before an answer: look for the answer itself.
        at = until.rfind(content.strip())
        if at < 0:
            raise BadInput(
                f"the chat template does not write the answer {content[:40]!r} as it is: it cannot be marked"
            )
        before = until[:at]
    rest = until[len(before) :]
    said = rest.rfind(content.strip()) + len(content.strip())
    return before, rest[:said] + _end(tokenizer, rest[said:])


def _end(tokenizer: Any, tail: str) -> str:
    """The special token that ends a turn, with the white space before it; or nothing."""
    special = {str(t) for t in tokenizer.all_special_tokens} | {str(t) for t in tokenizer.added_tokens_decoder.values()}
    gap = len(tail) - len(tail.lstrip())
    ends = [token for token in special if token and tail.startswith(token, gap)]
    return tail[: gap + len(max(ends, key=len))] if ends else ""


def _tokenise(tokenizer: Any, text: str, spans: Sequence[tuple[int, int]]) -> Marked:
    """Ids of the whole text; where a token would lie across the edge of an answer, the parts are tokenised by
    themselves, which is what happens when the model answers a prompt."""
    out = _jointly(tokenizer, text, spans) if tokenizer.is_fast else None
    if out is None:
        ids: list[int] = []
        labels: list[int] = []
        for begin, end, answer in _parts(spans):
            new = tokenizer(text[begin:end], add_special_tokens=False, verbose=False)["input_ids"]
            ids += new
            labels += new if answer else [IGNORED] * len(new)
        out = Marked(ids, labels)
    end = tokenizer.eos_token_id
    specials = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    if end is not None and out.ids[-1] not in specials:
        out = Marked([*out.ids, end], [*out.labels, end])
    return out


def _jointly(tokenizer: Any, text: str, spans: Sequence[tuple[int, int]]) -> Marked | None:
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    labels = []
    for token, (begin, end) in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True):
        inside = any(a <= begin and end <= b and begin < end for a, b in spans)
        if not inside and any(begin < b and end > a for a, b in spans):
            return None
        labels.append(token if inside else IGNORED)
    return Marked(list(encoded["input_ids"]), labels)


def _parts(spans: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int, bool]]:
    at = 0
    for begin, end in spans:
        yield at, begin, False
        yield begin, end, True
        at = end
