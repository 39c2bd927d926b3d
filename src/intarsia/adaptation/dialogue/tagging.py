"""The network as a labeller of turns: adapters, a row of weights for each label, and the states behind every turn.

The rows begin as those of the label's words in the output matrix, so that before the first step the scores are the
likelihood of these words (the mean of their rows, where a label has several; without what some networks do to logits
behind the matrix, such as caps and scales)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from intarsia.adaptation.dialogue.states import inputs_of
from intarsia.adaptation.trunk import Trunk
from intarsia.training import lora
from intarsia.training.loop import Trained, fixed_batches, train

if TYPE_CHECKING:
    from intarsia.adaptation.dialogue.scripts import Script
    from intarsia.adaptation.dialogue.technique import DialogueConfig
    from intarsia.models import Model

HEAD_RATE = 0.1  # a label's row begins where it makes sense: it learns more slowly than adapters that begin at nothing
BIAS_RATE = 10.0  # a bias is one number


@dataclass
class Head:
    """- weight: [label, width]; bias: [label]."""

    weight: Tensor
    bias: Tensor

    @staticmethod
    def of_words(model: Model, words: Sequence[str]) -> Head:
        """A row for each label: the mean over its words' tokens of the output matrix, less the mean row of all labels
        (which changes no probability)."""
        matrix = model.network.get_output_embeddings().weight
        rows = [matrix[model.tokenizer(w, add_special_tokens=False)["input_ids"]].float().mean(0) for w in words]
        weight = torch.stack(rows).detach()
        return Head(weight - weight.mean(0), torch.zeros(len(words), device=weight.device))

    def scores(self, states: Tensor) -> Tensor:
        """[..., label] from states [..., width]."""
        return states.float() @ self.weight.T + self.bias


class States:
    """Final states of rows of tokens, through the whole network or above a trunk. [row, token, width], ends aligned."""

    def __init__(self, model: Model, network: Any, trunk: Trunk | None):
        self.model, self.network, self.trunk = model, network, trunk

    def __call__(self, ids: Sequence[Sequence[int]], *, grad: bool) -> Tensor:
        if self.trunk is not None:
            return self.trunk.final(ids, grad=grad)
        with torch.set_grad_enabled(grad):
            out = self.network(
                **inputs_of(self.model, ids), logits_to_keep=1, use_cache=False, output_hidden_states=True
            )
        return out.hidden_states[-1]


def tune(
    model: Model, scripts: Sequence[Script], labels: np.ndarray, words: Sequence[str], config: DialogueConfig,
    seed: int, easy: Sequence[int] = (), trunk: Trunk | None = None,
) -> tuple[Any, Head, Trained]:  # fmt: skip
    """Train adapters and the labels' rows; gives the merged network, the head, and the losses.

    - labels: [turn] label numbers, -1 where there is none. words: of each label, as the network would write it.
    - easy: scripts to begin with. trunk: with the states that enter the first adapted block, of rows that were run
      already."""
    adapted, parameters = lora.attach(model.network, config)
    head = Head.of_words(model, words)
    head.weight.requires_grad_(True)
    head.bias.requires_grad_(True)
    expecting = Head(head.weight.detach().clone(), head.bias.detach().clone())
    groups = [(parameters, 1.0), ([head.weight], HEAD_RATE), ([head.bias], BIAS_RATE)]
    if config.next_weight:
        expecting.weight.requires_grad_(True)
        expecting.bias.requires_grad_(True)
        groups += [([expecting.weight], HEAD_RATE), ([expecting.bias], BIAS_RATE)]
    trained_on = [s for s in scripts if any(labels[t] >= 0 for t in s.turns)]
    first, rest = [], list(range(len(trained_on)))
    if easy:
        of_easy = {scripts[i].ids for i in easy}
        first = [i for i in rest if trained_on[i].ids in of_easy]
        rest = [i for i in rest if trained_on[i].ids not in of_easy]
    batches, gentle = [], 0
    for part in (first, rest):
        rows = fixed_batches([len(trained_on[i].ids) for i in part], config.batch_size, seed)
        batches += [[part[i] for i in some] for some in rows]
        gentle = gentle or len(batches)
    if trunk:
        trunk.fill(s.ids for s in trained_on)
    loss_of = Loss(States(model, adapted, trunk), trained_on, labels, head, expecting, config)
    trained = train(
        groups,
        len(batches),
        lambda number: loss_of(batches[number]),
        config,
        seed,
        "tuning on turns",
        range(gentle) if easy else (),
    )
    head = Head(head.weight.detach(), head.bias.detach())
    return lora.merge(adapted), head, trained


class Loss:
    """Mean over turns of w(y) times the cross-entropy of the label, and, with their weights, those of the tasks beside:
    the label expected before the turn is heard, and the speaker among those of the dialogue."""

    def __init__(
        self, states: States, scripts: Sequence[Script], labels: np.ndarray, head: Head, expecting: Head,
        config: DialogueConfig,
    ):  # fmt: skip
        self.states, self.scripts, self.labels, self.head, self.expecting = states, scripts, labels, head, expecting
        self.config = config
        count = len(head.bias)
        known = labels[labels >= 0]
        frequency = np.bincount(known, minlength=count).clip(min=1).astype(float)
        weights = frequency**-config.class_weight
        weights *= frequency.sum() / (weights * frequency).sum()
        device = head.weight.device
        self.weights = torch.tensor(weights, dtype=torch.float32, device=device)
        shift = config.logit_adjustment * np.log(frequency / frequency.sum())
        self.shift = torch.tensor(shift, dtype=torch.float32, device=device)
        self.matrix = states.model.network.get_output_embeddings().weight

    def __call__(self, rows: Sequence[int]) -> Tensor:
        some = [self.scripts[row] for row in rows]
        states = self.states([s.ids for s in some], grad=True)
        start = [states.shape[1] - len(s.ids) for s in some]
        places = [
            (i, start[i] + read, start[i] + at if at >= 0 else -1, int(self.labels[turn]))
            for i, s in enumerate(some)
            for turn, read, at in zip(s.turns, s.reads, s.heads, strict=True)
            if self.labels[turn] >= 0
        ]
        loss = self._of(self.head, states, [(i, read, y) for i, read, _, y in places])
        if self.config.next_weight and (known := [(i, at, y) for i, _, at, y in places if at >= 0]):
            loss = loss + self.config.next_weight * self._of(self.expecting, states, known)
        if self.config.speaker_weight:
            loss = loss + self.config.speaker_weight * self._speakers(states, some, start)
        return loss

    def _of(self, head: Head, states: Tensor, places: Sequence[tuple[int, int, int]]) -> Tensor:
        rows, columns, labels = zip(*places, strict=True)
        scores = head.scores(states[list(rows), list(columns)]) + self.shift
        y = torch.tensor(labels, device=scores.device)
        each = torch.nn.functional.cross_entropy(scores, y, reduction="none")
        return (each * self.weights[y]).mean()

    def _speakers(self, states: Tensor, scripts: Sequence[Script], start: Sequence[int]) -> Tensor:
        """Cross-entropy of the speaker among those of the row, behind the text. Rows with one speaker have no part."""
        total, asked = states.new_zeros((), dtype=torch.float32), 0
        for i, script in enumerate(scripts):
            names = sorted(set(script.names) - {()})
            places = [
                (start[i] + at, names.index(name))
                for at, name in zip(script.asks, script.names, strict=True)
                if at >= 0 and name
            ]
            if len(names) < 2 or not places:
                continue
            columns, right = zip(*places, strict=True)
            # The first tokens tell names apart, or else the mean over all of a name's tokens does.
            apart = len({name[0] for name in names}) == len(names)
            rows = [self.matrix[list(name[:1] if apart else name)].float().mean(0) for name in names]
            scores = states[i, list(columns)].float() @ torch.stack(rows).T
            target = torch.tensor(right, device=scores.device)
            total = total + torch.nn.functional.cross_entropy(scores, target, reduction="sum")
            asked += len(places)
        return total / max(1, asked)
