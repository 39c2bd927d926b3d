"""Prompts as token ids: where the subject ends in them, and which tokens are the target's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from intarsia.errors import BadInput

if TYPE_CHECKING:
    from intarsia.data import FactEdit
    from intarsia.models import Model

BEGINNINGS = ("The", "In", "It", "When", "A")  # what the model goes on with to write a prefix
LENGTHS = (10, 5)  # tokens that it writes, by turns
ESSENCE = "{} is a"  # whose next token says what the subject is (ROME, eq. 4)


@dataclass(frozen=True)
class Row:
    """A prompt as the model reads it.

    - ids: its tokens, and those of a target but the last.
    - first, subject: indices of the first and the last token of the subject; -1 where it has none.
    - target: the target's tokens: the last `len(target)` positions predict them. Empty without a target."""

    ids: tuple[int, ...]
    first: int = -1
    subject: int = -1
    target: tuple[int, ...] = ()

    def to_subject(self) -> tuple[int, ...]:
        """The tokens up to the subject's last: what comes after does not change what is there."""
        return self.ids[: self.subject + 1]


def row(model: Model, prompt: str, subject: str = "", target: str = "", prefix: str = "") -> Row:
    """`prefix` and `prompt`, with the place of the subject (where it last stands in the prompt), and the target.

    A space is put before the target unless one of the two has it. Raises `BadInput` for a prompt without its subject,
    or one that the network's context does not hold."""
    start = len(prefix)
    end = start + len(prompt)
    text = prefix + prompt + (joined(prompt, target) if target else "")
    encoded = model.tokenizer(text, return_offsets_mapping=True, verbose=False)  # type: ignore[misc]
    ids, spans = list(encoded["input_ids"]), encoded["offset_mapping"]
    while ids and spans[len(ids) - 1][0] == spans[len(ids) - 1][1]:
        ids.pop()  # a token that the tokenizer puts at every text's end
    if (limit := model.context_length) and len(ids) > limit:
        raise BadInput(f"the prompt '{_short(prompt)}' has {len(ids)} tokens, and the network's context is {limit}")
    begin = last = -1
    if subject:
        found = prompt.rfind(subject)
        if found < 0:
            raise BadInput(f"the prompt '{_short(prompt)}' does not hold its subject '{subject}'")
        from_, to = start + found, start + found + len(subject)
        inside = [i for i, (a, b) in enumerate(spans[: len(ids)]) if a < to and b > from_]
        begin, last = inside[0], inside[-1]
    if not target:
        return Row(tuple(ids), begin, last)
    first = next(i for i, (_, b) in enumerate(spans) if b > end)
    if first == 0:
        raise BadInput(f"the prompt '{_short(prompt)}' has no token of its own before the target '{target}'")
    # Where the prompt's last letters share a token with the target's first ones, the subject may end there too.
    return Row(tuple(ids[:-1]), begin, min(last, first - 1), tuple(ids[first:]))


def joined(prompt: str, target: str) -> str:
    """The target as it stands after the prompt."""
    return target if target[:1].isspace() or prompt[-1:].isspace() else f" {target}"


def prefixes(model: Model, count: int, seed: int) -> list[str]:
    """The empty prefix, and `count` that the model writes: the same edit has to work in the middle of a text."""
    from intarsia.sites import generate

    if not count:
        return [""]
    starts = [BEGINNINGS[i % len(BEGINNINGS)] for i in range(count)]
    most = max(LENGTHS)
    new = generate(
        model, starts, max_new_tokens=most, min_new_tokens=most, do_sample=True, top_k=50, top_p=1.0, temperature=1.0,
        seed=seed,
    ).ids  # fmt: skip
    written = model.tokenizer.batch_decode(  # type: ignore[union-attr]
        [ids[: LENGTHS[i % len(LENGTHS)]] for i, ids in enumerate(new)], skip_special_tokens=True
    )
    texts = (" ".join(f"{start}{text}".split()) for start, text in zip(starts, written, strict=True))
    return ["", *(f"{text}. " for text in texts)]


def essence(model: Model, edit: FactEdit) -> Row:
    """The subject with nothing asked of it."""
    return row(model, ESSENCE.replace("{}", edit.subject), edit.subject)


def rows_of(model: Model, edit: FactEdit, before: Sequence[str], target: bool = True) -> list[Row]:
    """The edit's prompt after each prefix."""
    return [row(model, edit.prompt, edit.subject, edit.target if target else "", prefix) for prefix in before]


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:59]}…"
