"""How a question about a text is put to a model, with and without a chat template, as token ids."""

from __future__ import annotations

from typing import TYPE_CHECKING

from intarsia.errors import BadInput
from intarsia.measure import LabelTask

if TYPE_CHECKING:
    from intarsia.models import Model


class Dialogue:
    """The prompts of one question: for the answer, for the reason after it, for the reason before it.

    - task: the label task whose prompt ends where the answer begins."""

    def __init__(self, model: Model, question: str | None, labels: list[str], ask: str):
        if model.tokenizer is None or not model.network.can_generate():
            raise BadInput(
                "interpretation.self_explanation: wants a model that writes text: a causal language model with its "
                "tokenizer"
            )
        if (question is None) != (not labels):
            raise BadInput(
                "interpretation.self_explanation: give question and labels together ('Is it good?', yes, no), or "
                "neither for the model's own label task"
            )
        self.model, self.ask, self.question = model, ask, question
        self.chat = question is not None and bool(model.tokenizer.chat_template)
        own = LabelTask.of(model)
        if question is not None:
            self.task = LabelTask(
                template=self._render([("user", self._put("{text}"))])
                if self.chat
                else self._put("{text}") + "\nAnswer:",
                labels=labels,
                # A chat template ends with a line of its own: no space before the answer.
                verbalisers={name: name if self.chat else f" {name}" for name in labels},
                calibration="none",
            )
        elif own is not None:
            self.task = own
        else:
            raise BadInput(
                "interpretation.self_explanation: the model has no label task: give a question and its labels "
                "(question='Is it good?', labels=['yes', 'no'])"
            )

    def answering(self, text: str) -> list[int]:
        """Ends where the answer begins."""
        return self._ids(self.task.render(text))

    def after(self, text: str, answer: str) -> list[int]:
        """Ends where the reason for a given answer begins."""
        said = self.task.verbalisers[answer]
        if self.chat:
            turns = [("user", self._put(text)), ("assistant", said), ("user", self.ask)]
            return self._ids(self._render(turns))
        return self._ids(f"{self.task.render(text)}{said}\n{self.ask}\n")

    def before(self, text: str) -> list[int]:
        """Ends where a reason begins that comes before the answer."""
        if self.chat:
            return self._ids(self._render([("user", f"{self._put(text)}\n{self.ask} Then answer.")]))
        put = self._put(text) if self.question is not None else text
        return self._ids(f"{put}\n{self.ask}\n")

    def then(self, prompt: list[int], reason: str) -> list[int]:
        """Ends where the answer begins, after a reason that was given first."""
        cue = "\nAnswer:\n" if self.chat else self.task.template.partition("{text}")[2]
        more = self.model.tokenizer(reason.strip() + cue, add_special_tokens=False)  # type: ignore[misc]
        return [*prompt, *more["input_ids"]]

    def _put(self, text: str) -> str:
        return f"{text}\n{self.question}"

    def _render(self, turns: list[tuple[str, str]]) -> str:
        tokenizer = self.model.tokenizer
        messages = [{"role": role, "content": content} for role, content in turns]
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)  # type: ignore[union-attr]
        bos = tokenizer.bos_token  # type: ignore[union-attr]
        # Reading the prompt adds it, where the tokenizer does so at all.
        adds = bool(bos) and tokenizer("")["input_ids"][:1] == [tokenizer.bos_token_id]  # type: ignore[misc,union-attr]
        return str(text).removeprefix(bos) if adds else str(text)

    def _ids(self, text: str) -> list[int]:
        return list(self.model.tokenizer(text, verbose=False)["input_ids"])  # type: ignore[misc]
