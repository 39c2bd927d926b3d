"""What the rungs that train something in or beside the network have in common: the loss, the loop, the prior on dev."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from intarsia.adaptation.label import LabelConfig
from intarsia.adaptation.label_tuning import TrieLoss
from intarsia.adaptation.routes.figures import log_softmax, shift
from intarsia.adaptation.routes.rung import Learned, Likelihood, Plain, biased
from intarsia.models.saved import Saved
from intarsia.training.loop import Trained, fixed_batches, seeded, train

if TYPE_CHECKING:
    import torch

    from intarsia.adaptation.routes.bench import Bench
    from intarsia.adaptation.routes.setting import Setting
    from intarsia.adaptation.trunk import Trunk
    from intarsia.models import Model

COMMON = ("metric", "minutes", "epochs", "batch_size", "learning_rate")
LEAST = 1e-6  # minutes: where none are left, one step is made all the same


@dataclass
class Part:
    """What is trained, in place in a model's network.

    - parameters: by name; they are what is kept. forward: what is called as the network while it is trained.
    - finish: gives the network as it is used afterwards. upper: only blocks from `layers_from` on change."""

    parameters: dict[str, torch.nn.Parameter]
    forward: Any
    finish: Callable[[], Any]
    upper: bool = True

    def tensors(self) -> dict[str, torch.Tensor]:
        """As they are now."""
        return {name: parameter.detach().clone() for name, parameter in self.parameters.items()}

    def load(self, tensors: dict[str, torch.Tensor]) -> None:
        """Put kept values in."""
        import torch

        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(tensors[name])


class Tuned(Plain):
    """A rung of this kind says what is put where (`put`), and by which factor its learning rate differs from LoRA's."""

    access = "white box"
    changes = True
    factor = 1.0
    setting_names: tuple[str, ...] = ()

    @property
    def reads(self) -> tuple[str, ...]:  # type: ignore[override]
        return (*COMMON, *self.setting_names)

    def put(self, model: Model, setting: Setting) -> Part:
        """Put what is trained into a copy of the model, in place. Random values come from torch's generator."""
        raise NotImplementedError

    def config(self, setting: Setting, minutes: float) -> LabelConfig:
        """Of the optimiser."""
        given = setting.config
        return LabelConfig(
            learning_rate=given.learning_rate * self.factor, epochs=given.epochs, batch_size=given.batch_size,
            minutes=max(LEAST, minutes),
        )  # fmt: skip

    def learn(self, bench: Bench) -> Learned:
        new = bench.model.copy()
        with seeded(bench.seed):
            part = self.put(new, bench)
            trained = self.train(bench, new, part)
        labeller = self.labeller(bench, Likelihood(bench.model.with_network(part.finish()), biased(bench.task, None)))
        bias, tau, scores = without_prior(bench, labeller.raw(bench.dev) + bench.head_start())
        bias += bench.head_start()
        labeller.task = biased(bench.task, bias)
        saved = Saved(part.tensors(), {"bias": bias.tolist()})
        facts = {"parameters": trained.parameters, "steps": len(trained.losses), "tau": tau}
        facts["epochs"] = round(len(trained.losses) / len(label_batches(bench)), 2)
        return Learned(saved, labeller, scores, facts)

    def labeller(self, setting: Setting, likelihood: Likelihood) -> Likelihood:
        """Where the likelihood alone is not all."""
        return likelihood

    def train(self, bench: Bench, new: Model, part: Part, rows: int | None = None) -> Trained:
        """On the labels of the training rows, all or the first so many."""
        with bench.trunk(new) if part.upper else nullcontext() as trunk:
            loss_of = label_loss(bench, new, part, trunk)
            batches = label_batches(bench, rows)
            return train(
                [(list(part.parameters.values()), 1.0)], len(batches), lambda number: loss_of(batches[number]),
                self.config(bench, bench.left()), bench.seed, f"training: {self.name}",
            )  # fmt: skip

    def open(self, setting: Setting, saved: Saved) -> Likelihood:
        new = setting.model.copy()
        with seeded(setting.seed):  # what is not kept is drawn as it was
            part = self.put(new, setting)
        part.load(saved.tensors)
        found = Likelihood(setting.model.with_network(part.finish()), biased(setting.task, saved.note["bias"]))
        return self.labeller(setting, found)


def label_batches(bench: Bench, rows: int | None = None) -> list[list[int]]:
    """Training rows, all or the first so many, in batches of similar length."""
    return fixed_batches([len(row) for row in bench.written.ids[:rows]], bench.config.batch_size, bench.seed)


def label_loss(bench: Bench, new: Model, part: Part, trunk: Trunk | None) -> Callable[[list[int]], torch.Tensor]:
    """The mean loss of some training rows: that of `adaptation.label`, from calibrated scores on."""
    import torch

    from intarsia.adaptation.label_tuning import Examples

    written = bench.written
    rows = Examples(new, written.ids, written.tails, written.labels, written.cut, written.keep)
    loss = TrieLoss(bench.trie, bench.task, bench.train, LabelConfig(), new.device)
    if bench.trie.flat:
        (root,) = bench.trie.nodes
        start = bench.head_start()[[members[0] for members in root.members]]
        loss.shift[root] = loss.shift[root] + torch.tensor(start, dtype=torch.float32, device=new.device)

    def loss_of(some: list[int]) -> torch.Tensor:
        if trunk is not None:
            logits = trunk.logits([rows.ids[row] for row in some], rows.keep)
        else:
            logits = rows.logits(part.forward, some)
        return loss(logits, [rows.tails[row] for row in some], [rows.labels[row] for row in some])

    return loss_of


def without_prior(bench: Bench, raw: np.ndarray) -> tuple[np.ndarray, float, np.ndarray]:
    """Of scores that were trained on the labels: the bias [label] that takes tau * log prior off again, tau as is best
    on dev; tau; and the scores with it."""
    tau, _ = shift(bench.config.metric, raw, bench.y_dev, bench.log_prior, -1.0)
    bias = -tau * bench.log_prior
    return bias, tau, log_softmax(raw + bias)
