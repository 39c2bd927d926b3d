"""The loss of a step: what both networks make of the same rows, held against one another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from intarsia.compression.distillation.chunks import chunked, distance, logits_of
from intarsia.compression.distillation.fitting import Kind, Places, choices_of
from intarsia.compression.distillation.lessons import Row, wanted
from intarsia.compression.distillation.losses import Kept, LogitLoss, forward_kl, log_probabilities
from intarsia.compression.distillation.relations import relation_heads, relation_kl, score_mse
from intarsia.compression.distillation.states import Projection, hidden_cosine, hidden_mse
from intarsia.compression.statistics import uncached
from intarsia.errors import BadInput
from intarsia.measure.likelihood import length_batches
from intarsia.sites import batch_of, read
from intarsia.sites.tape import recording

if TYPE_CHECKING:
    from intarsia.compression.distillation.keeping import Answers
    from intarsia.compression.distillation.technique import DistilConfig
    from intarsia.models import Model

TOKENS = 2048  # in one forward


class Objective:
    """Losses of a student (`mine` are its sites) against its teacher (`other`).

    - kept: the teacher's answers from disk; it is then not run."""

    def __init__(
        self, student: Model, teacher: Model, config: DistilConfig, kind: Kind, mine: Places, other: Places
    ) -> None:
        self.student, self.teacher, self.config, self.kind = student, teacher, config, kind
        self.mine, self.other = mine, other
        self.loss = LogitLoss.of(config) if config.loss != "none" else None
        self.choices = choices_of(student, teacher) if kind == "causal" else 0
        self.kept: Answers | None = None
        self.projection: Projection | None = None
        self.heads = 0
        blocks = student.sites.blocks
        self._causal = any(getattr(module, "is_causal", False) for module in blocks[0].modules())

    def begin(self, rows: Sequence[Row]) -> None:
        """Look at a few rows once: a projection between widths is fitted, and what cannot be compared is refused.

        Raises `BadInput` for scores of other numbers of heads, and for relation heads that do not fit."""
        if not self.mine.states:
            return
        some = [rows[i] for i in length_batches([len(row.ids) for row in rows], TOKENS)[-1]]
        mask, mine, _ = _look(self.student, some, self.mine.states)
        _, other, _ = _look(self.teacher, some, self.other.states)
        if self.mine.hidden:
            pairs = [(mine[a][mask], other[b].to(mask.device)[mask]) for a, b in self._pairs("hidden")]
            if (width := pairs[0][0].shape[-1]) != (wide := pairs[0][1].shape[-1]):
                self.projection = Projection(width, wide).to(mask.device)
                self.projection.begin(torch.cat([a for a, _ in pairs]), torch.cat([b for _, b in pairs]))
        for a, b in self._pairs("scores"):
            if mine[a].shape[2] != other[b].shape[2]:
                raise BadInput(
                    f"attention: scores wants equal heads, and the student has {mine[a].shape[2]} at {a}, its teacher "
                    f"{other[b].shape[2]} at {b}; give attention: relations"
                )
        if self.mine.relations:
            widths = [x[site].flatten(2).shape[-1] for x, sites in ((mine, self.mine), (other, self.other))
                      for site in sites.relations]  # fmt: skip
            most = mine[self.mine.relations[0]].shape[2]
            self.heads = relation_heads(widths, self.config.relation_heads, most)

    def losses(self, rows: Sequence[Row], grad: bool = True) -> Iterator[Tensor]:
        """Scalars that add up to the loss of a step on `rows`: the mean over the places learned from, and over tokens
        where states are compared. Each has to be differentiated before the next is asked for."""
        places = len(rows) if self.kind == "classifier" else sum(row.places for row in rows)
        tokens = sum(len(row.ids) for row in rows)
        for numbers in length_batches([len(row.ids) for row in rows], TOKENS):
            some = [rows[i] for i in numbers]
            yield from self._part(some, places, sum(len(row.ids) for row in some) / tokens, grad)

    def _part(self, rows: list[Row], places: int, share: float, grad: bool) -> Iterator[Tensor]:
        causal = self.kind == "causal" and self.loss is not None
        labels = self.kind == "classifier" and self.loss is not None
        names = [*self.mine.states, *([self.mine.final] if causal else [])]
        mask, mine, logits = _look(self.student, rows, names, logits=labels, grad=grad)
        other: Mapping[str, Tensor] = {}
        taught: Tensor | None = None
        if self.kept is None:
            names = [*self.other.states, *([self.other.final] if causal else [])]
            _, other, taught = _look(self.teacher, rows, names, logits=labels)
        states = self._states(mine, other, mask) * share if self.mine.states else None
        if labels:
            assert self.loss is not None and logits is not None and taught is not None
            targets = torch.tensor([row.label for row in rows], device=logits.device)
            loss = self.loss(taught.to(logits.device), logits, targets).sum() / places
            yield loss if states is None else loss + states
        elif causal:
            yield from self._predicted(rows, mine[self.mine.final], other, places, states)
        elif states is not None:
            yield states

    def _predicted(
        self, rows: list[Row], final: Tensor, other: Mapping[str, Tensor], places: int, states: Tensor | None
    ) -> Iterator[Tensor]:
        assert self.loss is not None
        here, following = wanted(rows, final.device)
        if rows[0].own:
            following = torch.full_like(following, -100)  # nobody says that what the student wrote is right
        taught = self._taught(rows, here, other)
        yield from chunked(self.student, final[here], taught, following, self.loss, self.choices, places, states)

    def _taught(self, rows: list[Row], here: Tensor, other: Mapping[str, Tensor]):
        if self.kept is not None:
            kept = self.kept.at(rows)
            return lambda some: Kept(*(x[some].to(here.device) for x in (kept.ids, kept.top, kept.rest)))
        states = other[self.other.final]
        states = states[here.to(states.device)]
        return lambda some: logits_of(self.teacher, states[some], self.choices).to(here.device)

    def _pairs(self, what: str) -> list[tuple[str, str]]:
        return list(zip(getattr(self.mine, what), getattr(self.other, what), strict=True))

    def _states(self, mine: Mapping[str, Tensor], other: Mapping[str, Tensor], mask: Tensor) -> Tensor:
        """Hidden states and attention, with their weights."""
        parts = []
        taught = {site: value.to(mask.device) for site, value in other.items()}
        if hidden := self._pairs("hidden"):
            compare = hidden_mse if self.config.hidden == "mse" else hidden_cosine
            project = self.projection or (lambda states: states)
            each = [compare(project(mine[a]), taught[b], mask) for a, b in hidden]
            parts.append(self.config.hidden_weight * torch.stack(each).mean())
        if scores := self._pairs("scores"):
            each = [score_mse(mine[a], taught[b], mask, self._causal) for a, b in scores]
            parts.append(self.config.attention_weight * torch.stack(each).mean())
        if relations := self._pairs("relations"):
            each = [relation_kl(mine[a], taught[b], mask, self.heads) for a, b in relations]
            parts.append(self.config.attention_weight * torch.stack(each).sum())
        return torch.stack(parts).sum()


class Dev:
    """How far the student is from its teacher on held-out rows: mean KL(teacher || student) in nats a place, whatever
    the loss; of encoders, the loss itself. The teacher runs once."""

    @torch.no_grad()
    def __init__(self, objective: Objective, rows: Sequence[Row]) -> None:
        self.objective, self.rows = objective, rows
        self.measure = "loss" if objective.kind == "encoder" else "KL"
        self._batches = [
            [rows[i] for i in numbers] for numbers in length_batches([len(row.ids) for row in rows], TOKENS)
        ]
        self._taught: list[Tensor] = []
        site, labels = objective.other.final, objective.kind == "classifier"
        for some in self._batches if self.measure == "KL" else []:
            _, other, logits = _look(objective.teacher, some, [] if labels else [site], logits=labels)
            if logits is None:
                here, _ = wanted(some, other[site].device)
                logits = other[site][here]
            self._taught.append(logits)

    @torch.no_grad()
    def value(self) -> float:
        """The figure now."""
        task = self.objective
        if self.measure == "loss":
            return sum(float(part) for part in task.losses(self.rows, grad=False))
        total, count = 0.0, 0
        for some, taught in zip(self._batches, self._taught, strict=True):
            if task.kind == "classifier":
                _, _, logits = _look(task.student, some, [], logits=True)
                assert logits is not None
                log_t = log_probabilities(taught.to(logits.device))
                total += forward_kl(log_t, log_probabilities(logits)).double().sum().item()
            else:
                site = task.mine.final
                _, mine, _ = _look(task.student, some, [site])
                here, _ = wanted(some, mine[site].device)
                total += distance(
                    task.student, mine[site][here],
                    lambda part, states=taught: logits_of(task.teacher, states[part], task.choices), task.choices,
                )  # fmt: skip
            count += len(taught)
        return total / count


def _look(
    model: Model, rows: Sequence[Row], sites: list[str], *, logits: bool = False, grad: bool = False
) -> tuple[Tensor, Mapping[str, Tensor], Tensor | None]:
    """The mask of real tokens [row, token], the tensors at sites, and, where wanted, the network's own logits."""
    batch = batch_of(model, [list(row.ids) for row in rows])
    assert batch.mask is not None
    if not logits:
        return batch.mask, read(model, batch, at=sites, grad=grad) if sites else {}, None
    with torch.set_grad_enabled(grad), recording(model.sites, batch, sites) as tape:
        found = model.network(**batch.kwargs, **uncached(model)).logits
    return batch.mask, tape.read, found
