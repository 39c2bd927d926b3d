"""SAPT (DAPT in its first version): one attention over the blocks, shared by learning and selection, held in place by
reflection on pseudo-samples of old tasks.

Source: Zhao et al. 2024, arXiv 2401.08295, sections 3.2 and 3.3, and released code. What that code does otherwise than
it should is not copied: padding has no part in the query, targets are of held-out inputs and not of the test set,
gradients through frozen blocks are exact, the weight of the reflection does not grow with gradient accumulation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import kl_div

from intarsia.adaptation.continual.methods.base import Groups, Lesson
from intarsia.adaptation.continual.methods.blocks import Blocks
from intarsia.adaptation.continual.methods.shared import kept
from intarsia.adaptation.continual.routing.attention import Attention
from intarsia.adaptation.continual.routing.router import Router
from intarsia.adaptation.continual.rows import Row


class Sapt(Blocks):
    """- state: for each old task i, `target.i` [i + 1 block] (or [layer, block]), its mean attention once it was
    learned, and `pseudo.i` [input, 2, width], its pseudo-inputs as the router sees them."""

    name, source = "sapt", "Zhao et al. 2024 (SAPT)"
    summary = "a block a task, mixed by attention from the prompt, with reflection (the paper)"
    frozen = False  # the attention of old prompts moves while new tasks are learned

    def router(self) -> Router:
        width = self.skills.embedding.weight.shape[1]
        layers = (
            1 + max(stack.layer for stack in self.skills.stacks) if self.config.per_layer and not self.prompts else 0
        )
        return Attention(width, layers).to(self.reader.model.device)

    @property
    def attention(self) -> Attention:
        router = self.skills.router
        assert isinstance(router, Attention)
        return router

    def begin(self, lesson: Lesson) -> Groups:
        groups = super().begin(lesson)
        return [*groups, (self.attention.open(), self.config.router_rate)]

    def weights(self, rows: Sequence[Row]) -> Tensor | None:
        return self.attention(self.reader.pooled(rows))

    def penalty(self, rows: Sequence[Row], lesson: Lesson) -> Tensor | None:
        """lambda * sum over old tasks of KL(their mean attention || attention of their pseudo-inputs now)."""
        total = None
        for i in range(self.attention.count - 1):
            pseudo, target = self.state[f"pseudo.{i}"], self.state[f"target.{i}"]
            picked = lesson.random.choices(range(len(pseudo)), k=self.config.batch_size)
            found = self.attention.log_weights(pseudo[picked].to(self.reader.model.device))
            total = reflection(target.to(found), found) + (0 if total is None else total)
        return None if total is None else self.config.reflection * total

    def end(self, lesson: Lesson) -> None:
        with torch.no_grad():
            seen = self.attention(self.reader.pooled(lesson.dev or lesson.train))
        number = self.attention.count - 1
        self.state[f"target.{number}"] = seen.mean(0).cpu()
        self.attention.close()
        super().end(lesson)
        self.state[f"pseudo.{number}"] = self._pseudo(lesson).cpu()
        self.facts = {"own weight": round(float(seen[..., -1].mean()), 4)}

    def _pseudo(self, lesson: Lesson) -> Tensor:
        """[input, 2, width] of what stands for the task from now on."""
        rows = kept(lesson, self.config.pseudo_share)
        if self.config.pseudo == "generated":
            from intarsia.adaptation.continual.methods.generator import pseudo_prompts

            prompts = pseudo_prompts(self.reader.model, lesson, len(rows), self.config)
            rows = [Row(lesson.name, tuple(prompt), (0,), ()) for prompt in prompts] or rows
            self.reader.prepare_pooled(rows)
        return self.reader.pooled(rows)


class SaptPrompt(Sapt):
    """The same with soft prompts for blocks: their weighted sum stands before the input."""

    name, source = "sapt-prompt", "Zhao et al. 2024 (SAPT-Prompt)"
    summary = "a soft prompt a task, mixed by attention from the input, with reflection (the paper)"
    prompts = True


def reflection(target: Tensor, found: Tensor) -> Tensor:
    """Mean over inputs of KL(target || attention): target [old block] (or [layer, old block]) with nothing for blocks
    that came later; found: logarithms [input, block] (or [input, layer, block])."""
    more = found.shape[-1] - target.shape[-1]
    padded = torch.cat([target, target.new_zeros(*target.shape[:-1], more)], -1)
    total = kl_div(found, padded.expand_as(found), reduction="sum")
    return total / (found.shape[0] * (found.shape[1] if found.dim() == 3 else 1))
