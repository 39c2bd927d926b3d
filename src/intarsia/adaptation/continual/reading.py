"""`Reader`: rows through a network with its skills: logits of the answers, losses, scores."""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from intarsia.adaptation.continual.routing.features import pooled_prompts
from intarsia.adaptation.continual.rows import Row
from intarsia.adaptation.continual.skills import Skills
from intarsia.adaptation.conversations import IGNORED
from intarsia.adaptation.trunk import Trunk
from intarsia.measure.generation import rouge_scorer
from intarsia.measure.likelihood import accepts, given, left_padded, length_batches, right_padded
from intarsia.progress import track

if TYPE_CHECKING:
    from intarsia.models import Model

TOKENS = 2048  # padded tokens in one forward while rows are judged
SHARED = 8  # common tokens from which running them once pays
Weigh = Callable[[Sequence[Row]], Tensor | None]


class Reader:
    """- model: with `skills` beside its network; trunk: stored states of the blocks below, if they are frozen."""

    def __init__(self, model: Model, skills: Skills, trunk: Trunk | None):
        self.model, self.skills, self.trunk = model, skills, trunk
        self.decoder_only = not getattr(model.config, "is_encoder_decoder", False)
        self._accepts = accepts(model.network)
        self._pad = getattr(model.tokenizer, "pad_token_id", None) or 0
        self._pooled: dict[tuple[int, ...], Tensor] = {}

    def prepare(self, rows: Sequence[Row]) -> None:
        """Compute once what does not depend on the skills: pooled prompts, and states below the first adapted block."""
        self.prepare_pooled(rows)
        if self.trunk is not None:
            with self.skills.given(None):  # below the adapters nothing is weighed
                self.trunk.fill([row.ids for row in rows])

    def prepare_pooled(self, rows: Sequence[Row]) -> None:
        """The pooled prompts alone."""
        new = list({row.prompt: None for row in rows if row.prompt not in self._pooled})
        if new:
            found = pooled_prompts(self.skills.embedding, new)
            self._pooled |= dict(zip(new, found, strict=True))

    def pooled(self, rows: Sequence[Row]) -> Tensor:
        """[row, 2, width] of the prompts of rows that were prepared."""
        return torch.stack([self._pooled[row.prompt] for row in rows])

    # ---- logits

    def answers(self, rows: Sequence[Row], weights: Tensor | None, *, grad: bool) -> tuple[Tensor, Tensor]:
        """Logits [row, position, vocabulary] where answers are predicted, and the right ids [row, position] (`IGNORED`
        where a row's answer is shorter)."""
        with torch.set_grad_enabled(grad):
            if not self.decoder_only:
                with self.skills.given(weights):
                    return self._encoded(rows)
            keep = max(len(row.answer) for row in rows)
            wanted = [[IGNORED] * (keep - len(row.answer)) + list(row.answer) for row in rows]
            ids = [row.ids for row in rows]
            after = None
            if self.trunk is not None and (count := self._shared(rows, weights)):
                with self.skills.given(None if weights is None else weights[:1]):
                    after = self.trunk.prefix(ids[0], count, grad=grad)
            with self.skills.given(weights):
                if self.trunk is not None:
                    logits = self.trunk.logits(ids, keep, grad=grad, after=after)
                else:
                    batch = self._batch(left_padded(ids, self._pad))
                    logits = self.model.network(**batch, logits_to_keep=keep, use_cache=False).logits
            return logits, torch.tensor(wanted, device=logits.device)

    def _shared(self, rows: Sequence[Row], weights: Tensor | None) -> int:
        """How many tokens all prompts begin with (a task's instruction), where running them once pays and gives the
        same: the rows weigh alike. 0: none."""
        if len(rows) < 2 or self.trunk is None or not self.trunk.shares:
            return 0
        if weights is not None and not torch.equal(weights.detach(), weights.detach()[:1].expand_as(weights)):
            return 0
        first, last = min(row.prompt for row in rows), max(row.prompt for row in rows)
        most = min(len(row.prompt) for row in rows) - 1  # at least one token of a prompt is left
        count = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), most)
        count = min(count, most)
        return count if count >= SHARED else 0

    def _encoded(self, rows: Sequence[Row]) -> tuple[Tensor, Tensor]:
        labels = right_padded([row.answer for row in rows], IGNORED)["input_ids"].to(self.model.device)
        batch = self._batch(right_padded([row.prompt for row in rows], self._pad))
        return self.model.network(**batch, labels=labels, use_cache=False).logits, labels

    def _batch(self, batch: dict[str, Tensor]) -> dict[str, Any]:
        return {name: value.to(self.model.device) for name, value in given(batch, self._accepts).items()}

    def loss(self, rows: Sequence[Row], weights: Tensor | None, *, grad: bool = True) -> Tensor:
        """Mean cross-entropy of the answers' tokens."""
        logits, wanted = self.answers(rows, weights, grad=grad)
        return cross_entropy(logits.flatten(0, 1).float(), wanted.flatten(), ignore_index=IGNORED)

    def mean_loss(self, rows: Sequence[Row], weigh: Weigh) -> float:
        """The same over many rows, in nats a token."""
        total, count = 0.0, 0
        for batch in self._batches(rows):
            some = [rows[i] for i in batch]
            tokens = sum(len(row.answer) for row in some)
            total += float(self.loss(some, weigh(some), grad=False)) * tokens
            count += tokens
        return total / max(1, count)

    # ---- scores

    def exact(self, rows: Sequence[Row], weigh: Weigh, task: str = "") -> list[float]:
        """[row] 1 where greedy decoding gives the answer, token by token: one pass with the answer given shows it."""
        out = [0.0] * len(rows)
        for batch in track(self._batches(rows), task or "judging"):
            some = [rows[i] for i in batch]
            logits, wanted = self.answers(some, weigh(some), grad=False)
            right = ((logits.argmax(-1) == wanted) | (wanted == IGNORED)).all(1)
            for i, ok in zip(batch, right.tolist(), strict=True):
                out[i] = float(ok)
        return out

    def written(self, rows: Sequence[Row], weigh: Weigh, most: int, task: str = "") -> list[str]:
        """[row] what the network writes, greedily, at most so many tokens."""
        out = [""] * len(rows)
        network, tokenizer = self.model.network, self.model.tokenizer
        pad = left_padded if self.decoder_only else right_padded
        for batch in track(self._batches(rows, 16), task or "writing answers"):
            some = [rows[i] for i in batch]
            inputs = self._batch(pad([row.prompt for row in some], self._pad))
            inputs.pop("position_ids", None)  # `generate` writes its own, from the mask
            with torch.inference_mode(), self.skills.given(weigh(some)):
                ids = network.generate(**inputs, do_sample=False, max_new_tokens=most, pad_token_id=self._pad)
            if self.decoder_only:
                ids = ids[:, inputs["input_ids"].shape[1] :]
            for i, text in zip(batch, tokenizer.batch_decode(ids, skip_special_tokens=True), strict=True):
                out[i] = text.strip()
        return out

    def sampled(self, asked: Sequence[int], count: int, most: int, **settings: Any) -> list[list[int]]:
        """Token ids that the network writes by chance after a prompt, so many times, each cut at its end token; those
        that do not end are left out."""
        network, end = self.model.network, self.model.tokenizer.eos_token_id  # type: ignore[union-attr]
        out: list[list[int]] = []
        for start in range(0, count, 16):
            ids = torch.tensor([list(asked)] * min(16, count - start), device=self.model.device)
            with torch.no_grad():
                found = network.generate(
                    input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=True, max_new_tokens=most,
                    pad_token_id=self._pad, **settings,
                )  # fmt: skip
            for row in found[:, ids.shape[1] if self.decoder_only else 1 :].tolist():
                if end in row and (ended := row[: row.index(end)]):
                    out.append(ended)
        return out

    def match(self, rows: Sequence[Row], weigh: Weigh, most: int, task: str = "") -> list[float]:
        """[row] 1 where what is written is one of the right answers, but for case, punctuation and white space."""
        texts = self.written(rows, weigh, most, task)
        return [float(any(same(text, t) for t in row.targets)) for row, text in zip(rows, texts, strict=True)]

    def rouge(self, rows: Sequence[Row], weigh: Weigh, most: int, task: str = "") -> list[float]:
        """[row] ROUGE-L, F1 with stems, of what is written against the best of the right answers."""
        scorer = rouge_scorer()
        texts = self.written(rows, weigh, most, task)
        return [
            max(scorer.score(target, text)["rougeL"].fmeasure for target in row.targets)
            for row, text in zip(rows, texts, strict=True)
        ]

    def _batches(self, rows: Sequence[Row], most: int = 32) -> list[list[int]]:
        return length_batches([len(row.prompt) + len(row.answer) for row in rows], TOKENS, most)


def by_row(rows: Sequence[Row], weights: Tensor | None) -> Weigh:
    """Weights [row, block] that are there already, for whichever of the rows are asked about."""
    place = {id(row): i for i, row in enumerate(rows)}
    return lambda some: None if weights is None else weights[[place[id(row)] for row in some]]


def same(text: str, target: str) -> bool:
    """Whether two answers are the same: lower case, without punctuation, white space squeezed (SAPT's exact match)."""
    return _plain(text) == _plain(target)


def _plain(text: str) -> str:
    return re.sub(r"\s+", " ", text.lower().translate(str.maketrans("", "", string.punctuation))).strip()
