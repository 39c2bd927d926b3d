"""A causal language model that explains a neuron from its texts, and simulates it from an explanation.

Both prompts are completions with solved cases in front, so that base models can do them; where the context is short,
the solved cases are left out first.

Source: Bills et al. 2023. Differences: firing tokens stand in brackets in place of token-and-number lists, which small
models follow better; activations run from 0 to 9, so that each is one token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from intarsia.errors import BadInput
from intarsia.interpretation.wording import one_line
from intarsia.sites import generate, run

if TYPE_CHECKING:
    from intarsia.models import Model

SOLVED_EXPLANATIONS = """A neuron fires on the words in brackets.
- My [[dog]] ran after the [[cat]].
- A [[horse]] eats grass.
It fires on: animals

A neuron fires on the words in brackets.
- She [[walked]] home and [[slept]].
- They [[laughed]] at me.
It fires on: verbs in the past tense

"""
SOLVED_SIMULATIONS = (
    ("animals", (("My", 0), (" dog", 9), (" ran", 1), (" after", 0), (" the", 0), (" cat", 9), (".", 0))),
    ("verbs in the past tense", (("She", 0), (" walked", 9), (" home", 0), (" and", 0), (" slept", 9), (".", 0))),
)
NUMBERS = "0123456789"


class Simulator:
    """Raises `BadInput` for a tokenizer that does not write each digit as one token."""

    def __init__(self, model: Model, what: str):
        self.model, self._what = model, what
        if model.tokenizer is None:
            raise BadInput(f"{what}: the explainer has no tokenizer: wrap(network, tokenizer)")
        begin = getattr(model.tokenizer, "bos_token_id", None)
        plain = list(model.tokenizer("a", verbose=False)["input_ids"])
        self._begin = [begin] if begin is not None and plain[:1] == [begin] else []
        # The digit's token as it is after the tab that stands before it.
        tab = self._ids("\t")
        self._digits = []
        for digit in NUMBERS:
            joint = self._ids("\t" + digit)
            if joint[: len(tab)] != tab or len(joint) != len(tab) + 1:
                raise BadInput(
                    f"{what}: the explainer's tokenizer does not write '{digit}' as a token of its own: take "
                    "another model"
                )
            self._digits.append(joint[-1])

    def _ids(self, text: str) -> list[int]:
        return list(self.model.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])  # type: ignore[misc]

    def _fits(self, length: int) -> bool:
        return not (limit := self.model.context_length) or length <= limit

    def explain(self, lines: Sequence[str], new_tokens: int) -> str:
        """What lines of text with [[firing tokens]] have in common, as the model completes it: one line."""
        for solved, count in [(SOLVED_EXPLANATIONS, len(lines)), *(("", n) for n in range(len(lines), 0, -1))]:
            asked = "A neuron fires on the words in brackets.\n" + "".join(f"- {line}\n" for line in lines[:count])
            ids = [*self._begin, *self._ids(f"{solved}{asked}It fires on:")]
            if self._fits(len(ids) + new_tokens):
                break
        else:
            raise BadInput(
                f"{self._what}: the explainer's context of {self.model.context_length} tokens is too short for "
                "one example: lower context or max_new_tokens"
            )
        text = generate(self.model, [ids], max_new_tokens=new_tokens).texts[0]  # type: ignore[index]
        line = next((part.strip() for part in text.split("\n") if part.strip()), "")
        return one_line(line) or "(the explainer wrote nothing)"

    @torch.no_grad()
    def simulate(self, explanation: str, tokens: Sequence[str]) -> list[float]:
        """The expected activation (0 to 9) of each token under the explanation, all in one forward pass."""
        for solved in (SOLVED_SIMULATIONS, SOLVED_SIMULATIONS[:1], ()):
            ids = list(self._begin)
            for words, rated in solved:
                ids += self._ids(f"Fires on: {words}\n")
                for token, value in rated:
                    ids += self._ids(f"{one_line(token)}\t{value}\n")
                ids += self._ids("\n")
            ids += self._ids(f"Fires on: {explanation}\n")
            places = []
            for token in tokens:
                ids += self._ids(f"{one_line(token)}\t")
                places.append(len(ids) - 1)
                ids += self._ids("?\n")
            if self._fits(len(ids)):
                break
        else:
            raise BadInput(
                f"{self._what}: the explainer's context of {self.model.context_length} tokens is too short for a "
                f"stretch of {len(tokens)} tokens: lower context, or shorten the explanation"
            )
        logits = run(self.model, [ids]).logits[0, places]
        p = logits[:, self._digits].double().softmax(-1)
        return (p @ torch.arange(10, dtype=torch.float64, device=p.device)).tolist()
