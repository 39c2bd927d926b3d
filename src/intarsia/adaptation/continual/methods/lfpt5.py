"""LFPT5: one soft prompt that solves the tasks and writes examples of them; before a new task it writes some of the
old.

Source: Qin and Joty 2022: L = L_task + 0.25 L_write on the new examples, and on the written ones the loss and a KL to
what the model said of them before."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div

from intarsia.adaptation.continual.methods.base import Groups, Lesson, Method
from intarsia.adaptation.continual.methods.shared import LEAST
from intarsia.adaptation.continual.rows import Row, Writer
from intarsia.adaptation.conversations import IGNORED

ASK = "__gen__ "
WRITING, KEEPING = 0.25, 0.1
TOP_K, ROUNDS, LONGEST = 20, 3, 256


class LFPT5(Method):
    """The written examples are kept as rows; what the model said of them is computed as a task begins."""

    name, source = "lfpt5", "Qin and Joty 2022 (LFPT5)"
    summary = "one soft prompt, which also writes examples of old tasks to go on learning them"
    prompts = True

    def __init__(self, *given) -> None:
        super().__init__(*given)
        self.written: list[Row] = []
        self.said: list[Tensor] = []
        tokenizer = self.reader.model.tokenizer
        assert tokenizer is not None
        self.ask = tuple(tokenizer(ASK, verbose=False)["input_ids"])

    def begin(self, lesson: Lesson) -> Groups:
        if self.skills.names:
            self._write(lesson)
        return super().begin(lesson)

    def penalty(self, rows: Sequence[Row], lesson: Lesson) -> Tensor | None:
        """The loss of writing the batch's examples, and of the old ones that were written."""
        samples = [Row(row.task, self.ask, (*row.prompt, *row.answer), ()) for row in rows]
        total = WRITING * self.reader.loss(samples, self.ones(samples))
        if not self.written:
            return total
        picked = lesson.random.sample(range(len(self.written)), min(len(rows), len(self.written)))
        some = [self.written[i] for i in picked]
        logits, wanted = self.reader.answers(some, self.ones(some), grad=True)
        total = total + cross_entropy(logits.flatten(0, 1).float(), wanted.flatten(), ignore_index=IGNORED)
        now = logits[wanted != IGNORED].log_softmax(-1)
        before = torch.cat([self.said[i] for i in picked])
        return total + KEEPING * kl_div(now, before.to(now), reduction="batchmean", log_target=True)

    def _write(self, lesson: Lesson) -> None:
        """Some examples of earlier tasks, as the prompt writes them, and what the model says of each."""
        reader, tokenizer = self.reader, self.reader.model.tokenizer
        assert tokenizer is not None
        writer = Writer(reader.model, self.config.template, self.config.max_tokens, self.config.max_answer)
        count = max(LEAST, round(self.config.pseudo_share * len(lesson.train))) * max(1, lesson.number)
        cue = self.config.template.rpartition("{input}")[2].strip()
        longest = min(LONGEST, max(len(row.prompt) + len(row.answer) for row in lesson.train) + 8)
        found: dict[tuple[int, ...], Row] = {}
        for _ in range(ROUNDS):
            if len(found) >= count or not cue:
                break
            with torch.no_grad(), reader.skills.given(torch.ones(1, 1, device=reader.model.device)):
                samples = reader.sampled(self.ask, count, longest, top_k=TOP_K)
            for text in tokenizer.batch_decode(samples, skip_special_tokens=True):
                prompt, there, answer = text.rpartition(cue)
                if there and prompt.strip() and answer.strip():
                    asked = tuple(tokenizer(f"{prompt}{cue}".strip(), verbose=False)["input_ids"])
                    found[asked] = Row("", asked, tuple(writer.answer(answer)), (answer.strip(),))
        self.written = list(found.values())[:count]
        reader.prepare(self.written)
        self.said = []
        for row in self.written:
            logits, wanted = reader.answers([row], self.ones([row]), grad=False)
            self.said.append(logits[wanted != IGNORED].log_softmax(-1).detach())
        self.facts = {"written": len(self.written)}
