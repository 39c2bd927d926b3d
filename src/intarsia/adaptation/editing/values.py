"""New values: what has to be added at the subject's last token for the model to say the target (ROME, eq. 4).

For each edit the change d of the stream behind the edited layer minimises

    mean over prefixes of -log P(target | prefix, prompt; d), a token
    + kl * KL(P(. | "SUBJECT is a") || P(. | "SUBJECT is a"; d))
    + weight_decay * |d|^2 / |v|^2

by Adam, inside the ball |d| <= largest |v|, |v| being the size of what stands there today. The MLP's output is added to
the stream, so a change of the one is a change of the other.

Nothing below the edited layer and nothing before the subject depends on d: the blocks above are run alone, from the
subject on, with the keys and values of what comes before kept."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from intarsia.adaptation.editing.exact import exact
from intarsia.adaptation.editing.wording import Row
from intarsia.adaptation.trunk import shares_prefixes
from intarsia.errors import IntarsiaError
from intarsia.measure.likelihood import accepts, given, left_padded
from intarsia.progress import track
from intarsia.sites import read, resume, upper_cache

if TYPE_CHECKING:
    from intarsia.adaptation.editing.technique import EditConfig
    from intarsia.models import Model

TOKENS = 512  # padded tokens that are run in a step


@dataclass(frozen=True)
class Wish:
    """One edit to find a value for.

    - rows: its prompt with target after each prefix; essence: what must still be said of the subject.
    - size: the norm of what stands there today; sizes count in it."""

    rows: Sequence[Row]
    essence: Row
    size: float


@dataclass(frozen=True)
class Value:
    """- change: [width] float64. steps: of Adam that made it. probability: the target's with it, a token, in the mean
    over prefixes."""

    change: Tensor
    steps: int
    probability: float


def search(
    model: Model, layer: int, stream: str, wishes: Sequence[Wish], config: EditConfig, most: float
) -> list[Value]:
    """A change of the stream behind `layer` for each edit.

    - most: the largest change, in sizes. Edits are searched for together, as many as fit; each has its own
      loss, so that what is found is the same one by one.

    Raises `IntarsiaError` when a loss is no longer a number."""
    tails = [max(len(row.ids) - row.subject for row in (*wish.rows, wish.essence)) for wish in wishes]
    order = sorted(range(len(wishes)), key=lambda i: tails[i])
    batches: list[list[int]] = []
    for i in order:
        rows = len(wishes[i].rows) + 1
        if batches and (len(batches[-1]) + 1) * rows * tails[i] <= TOKENS:
            batches[-1].append(i)
        else:
            batches.append([i])
    found: dict[int, Value] = {}
    for numbers in track(batches, "searching for values"):
        batch = _Batch(model, layer, stream, [wishes[i] for i in numbers])
        found |= dict(zip(numbers, _descend(batch, config, most), strict=True))
    return [found[i] for i in range(len(wishes))]


def _descend(batch: _Batch, config: EditConfig, most: float) -> list[Value]:
    norms = torch.tensor([wish.size for wish in batch.wishes], device=batch.device)
    size = norms[:, None] / batch.width**0.5
    # In root mean squares of the old value, so that one rate suits all networks. What has no gradient any more is left
    # alone by Adam.
    scaled = [torch.zeros(batch.width, device=batch.device, requires_grad=True) for _ in batch.wishes]
    adam = torch.optim.Adam(scaled, lr=config.rate)
    found: dict[int, Value] = {}
    active = list(range(len(scaled)))
    for step in range(config.steps + 1):
        changes = torch.stack([scaled[i] for i in active]) * size[active]
        nll, kl = batch.losses(changes, active)
        loss = nll + config.kl * kl + config.weight_decay * (changes.norm(dim=1) / norms[active]) ** 2
        if not torch.isfinite(loss).all():
            raise IntarsiaError(
                f"adaptation.edit: the loss is no number at step {step}: lower rate (now {config.rate})"
            )
        for i, change, probability in zip(active, changes.detach(), (-nll.detach()).exp().tolist(), strict=True):
            found[i] = Value(exact(change), step, probability)
        going = [i for i in active if found[i].probability < config.stop_at]
        if not going or step == config.steps:
            break
        slopes = torch.autograd.grad(loss.sum(), [scaled[i] for i in active])
        for i, slope in zip(active, slopes, strict=True):
            scaled[i].grad = slope if i in going else None
        adam.step()
        with torch.no_grad():
            for i in going:
                scaled[i].mul_((most * norms[i] / (scaled[i] * size[i]).norm().clamp_min(1e-30)).clamp_max(1.0))
        active = going
    return [found[i] for i in range(len(scaled))]


class _Batch:
    """Rows of several edits, ends aligned, with the states that enter the blocks above the edited layer."""

    def __init__(self, model: Model, layer: int, stream: str, wishes: Sequence[Wish]):
        self.wishes = wishes
        self._model, self._layer = model, layer
        rows = [row for wish in wishes for row in (*wish.rows, wish.essence)]
        self._of = torch.tensor([i for i, wish in enumerate(wishes) for _ in range(len(wish.rows) + 1)])
        self._essence = torch.tensor([row is wish.essence for wish in wishes for row in (*wish.rows, wish.essence)])
        self._takes = accepts(model.network)
        padded = left_padded([row.ids for row in rows], getattr(model.tokenizer, "pad_token_id", None) or 0)
        inputs = {name: value.to(model.device) for name, value in given(padded, self._takes).items()}
        width = padded["input_ids"].shape[1]
        self._keep = max(1, *(len(row.target) for row in rows))
        self._column = torch.tensor([width - len(row.ids) + row.subject for row in rows])
        self._targets = torch.full((len(rows), self._keep), -1)
        for i, row in enumerate(rows):
            if row.target:
                self._targets[i, self._keep - len(row.target) :] = torch.tensor(row.target)
        self._targets = self._targets.to(model.device)
        with torch.no_grad():
            states = read(model, inputs, stream)[stream]
        first = int(self._column.min()) if shares_prefixes(model) and layer + 1 < len(model.sites.blocks) else 0
        self.width, self.device = states.shape[-1], states.device
        self._cache: Any = None
        if first:
            self._cache = upper_cache(layer)
            before = {name: value[:, :first] for name, value in inputs.items()}
            resume(model, before, layer, state=states[:, :first], past_key_values=self._cache, use_cache=True)
        self._inputs = {name: value[:, first:] for name, value in inputs.items()} | {
            "attention_mask": inputs["attention_mask"]
        }
        self._states, self._column = states[:, first:], self._column - first
        with torch.no_grad():
            nothing = torch.zeros(len(wishes), self.width, device=self.device)
            log_p = self._log_probs(nothing, list(range(len(wishes))))
        self._today = log_p[self._essence, -1]

    def losses(self, changes: Tensor, active: Sequence[int]) -> tuple[Tensor, Tensor]:
        """NLL a token and KL of the essence, [active edit] each, under changes [active edit, width]."""
        log_p = self._log_probs(changes, active)
        here = torch.isin(self._of, torch.tensor(active))
        targets, essence = self._targets[here], self._essence[here].to(log_p.device)
        real = targets >= 0
        each = log_p.gather(-1, targets.clamp_min(0)[..., None])[..., 0]
        each = (each * real).sum(1) / real.sum(1).clamp_min(1)
        rank = {edit: place for place, edit in enumerate(active)}
        of = torch.tensor([rank[int(i)] for i in self._of[here]], device=log_p.device)
        nll = log_p.new_zeros(len(active)).index_add(0, of[~essence], -each[~essence])
        nll = nll / torch.bincount(of[~essence], minlength=len(active))
        today = self._today[list(active)]
        kl = (today.exp() * (today - log_p[essence, -1])).sum(-1)
        return nll, kl

    def _log_probs(self, changes: Tensor, active: Sequence[int]) -> Tensor:
        """[row of the active edits, last `keep` positions, vocabulary] float32."""
        here = torch.isin(self._of, torch.tensor(active)).nonzero()[:, 0]
        rank = {edit: place for place, edit in enumerate(active)}
        of = torch.tensor([rank[int(i)] for i in self._of[here]])
        states = self._states[here].clone()
        put = changes[of].to(states.dtype)
        states = states.index_put((torch.arange(len(here)), self._column[here]), put, accumulate=True)
        more: dict[str, Any] = {}
        if self._cache is not None:
            cache = copy.deepcopy(self._cache)  # a forward writes into it
            cache.batch_select_indices(here.to(states.device))
            more = {"past_key_values": cache, "use_cache": True}
        inputs = {name: value[here] for name, value in self._inputs.items()}
        if self._takes("logits_to_keep"):
            more["logits_to_keep"] = self._keep
        logits = resume(self._model, inputs, self._layer, state=states, grad=torch.is_grad_enabled(), **more).logits
        return logits[:, -self._keep :].float().log_softmax(-1)
