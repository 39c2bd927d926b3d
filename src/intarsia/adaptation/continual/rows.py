"""Examples as token ids: prompt, answer, and what is compared with them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from intarsia.errors import BadInput, Note

if TYPE_CHECKING:
    from intarsia.data import TaskPair
    from intarsia.models import Model

FIELDS = ("instruction", "input")


@dataclass(frozen=True)
class Row:
    """One example.

    - prompt, answer: token ids; the answer ends with the end token. targets: every right answer as text."""

    task: str
    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    targets: tuple[str, ...]

    @property
    def ids(self) -> list[int]:
        """Prompt and answer as a decoder reads them: the last token is only predicted."""
        return [*self.prompt, *self.answer[:-1]]


class Writer:
    """Writes examples as rows: one template for learning, judging and answering.

    - reserved: positions of the context that something else takes.
    - template: with {instruction} and {input}; a blank and the answer follow. max_tokens: longest prompt; inputs are
      cut at their end where it is longer. max_answer: longest answer, in tokens."""

    def __init__(self, model: Model, template: str, max_tokens: int | None, max_answer: int, reserved: int = 0):
        if model.tokenizer is None:
            raise BadInput("tasks are text: this model has no tokenizer (wrap(network, tokenizer))")
        try:
            template.format(instruction="", input="")
        except (KeyError, IndexError, ValueError) as error:
            raise BadInput(f"template: {error!r}; it may hold {{instruction}} and {{input}} only") from None
        if "{input}" not in template:
            raise BadInput("template: without {input} every prompt of a task would be the same")
        self.tokenizer, self.template, self.max_answer = model.tokenizer, template, max_answer
        context = model.context_length
        room = context - max_answer - reserved if context else None
        if room is not None and room < 1:
            beside = f" beside {reserved} positions of soft prompts" if reserved else ""
            raise BadInput(
                f"max_answer is {max_answer}, and the network's context only {context}{beside}: lower max_answer"
            )
        limits = [n for n in (max_tokens, room) if n is not None]
        self.limit = min(limits) if limits else None
        self.decoder_only = not getattr(model.config, "is_encoder_decoder", False)

    def rows(self, examples: Sequence[TaskPair]) -> list[Row]:
        """The examples as rows; the warning says how many inputs were cut."""
        out, cut = [], 0
        for example in examples:
            apart = bool(example.instruction or example.input)  # else instruction and input are joined in the prompt
            prompt, short = self.prompt(example.instruction, example.input if apart else example.prompt)
            cut += short
            targets = example.targets or (example.target,)
            out.append(Row(example.task, tuple(prompt), tuple(self.answer(example.target)), targets))
        if cut:
            warnings.warn(f"{cut} of {len(out)} inputs were cut to {self.limit} tokens", Note, stacklevel=3)
        return out

    def prompt(self, instruction: str, given: str) -> tuple[list[int], bool]:
        """Token ids of a prompt, and whether its input was cut."""
        ids = self._ids(instruction, given)
        if not ids:
            raise BadInput("a prompt is empty: an example has neither instruction nor input")
        if self.limit is None or len(ids) <= self.limit:
            return ids, False
        ends = self._ends(given)
        keep = len(ends)
        while len(ids) > self.limit and keep:
            keep = max(0, keep - max(1, len(ids) - self.limit))
            ids = self._ids(instruction, given[: ends[keep - 1]].rstrip() if keep else "")
        if len(ids) > self.limit:
            raise BadInput(f"the instruction alone takes {len(ids)} tokens, and {self.limit} fit: raise max_tokens")
        return ids, True

    def _ids(self, instruction: str, given: str) -> list[int]:
        text = self.template.format(instruction=instruction, input=given).strip()
        return list(self.tokenizer(text, verbose=False)["input_ids"])

    def _ends(self, text: str) -> list[int]:
        """Where each token of a text ends."""
        if not self.tokenizer.is_fast:
            return list(range(1, len(text) + 1))
        found: Any = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        return [end for _, end in found["offset_mapping"]]

    def answer(self, text: str) -> list[int]:
        """Token ids of an answer, the end token included."""
        text = f" {text.strip()}" if self.decoder_only else text.strip()
        ids = list(self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])[: self.max_answer]
        return [*ids, self.end]

    @property
    def end(self) -> int:
        """The token that ends an answer."""
        if self.tokenizer.eos_token_id is None:
            raise BadInput("this tokenizer has no end token: nothing would end an answer")
        return self.tokenizer.eos_token_id
