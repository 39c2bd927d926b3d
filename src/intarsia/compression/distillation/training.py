"""The computation behind `compression.distil`."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from intarsia.compression.distillation.fitting import Kind, check, places
from intarsia.compression.distillation.lessons import Row, single_rows, stream_rows, written
from intarsia.compression.distillation.objective import TOKENS, Dev, Objective
from intarsia.compression.distillation.technique import RATES, DistilConfig, Distilled
from intarsia.errors import BadInput
from intarsia.measure import provenance
from intarsia.measure.likelihood import length_batches
from intarsia.models import Model
from intarsia.sites.probe import evaluating
from intarsia.training import lora
from intarsia.training.loop import Training, fixed_batches, seeded

NAME = "compression.distil"


def distil(
    model: Model, config: DistilConfig, teacher: Model, records: Sequence[Any], dev: Sequence[Any] | None, seed: int
) -> Model:
    """See `compression.distil`."""
    began = time.process_time()
    kind = check(model, teacher, config)
    if not records:
        raise BadInput(f"{NAME} wants texts to learn from; none were given")
    mine, other = places(model, teacher, config)
    if limit := teacher.context_length:
        config = config.model_copy(update={"window": min(config.window, limit)})
    rows = _rows(model, config, kind, records, config.tokens, config.soft < 1)
    held = _rows(model, config, kind, dev, config.dev_tokens, False) if dev else []
    config = config.model_copy(update={"learning_rate": config.learning_rate or RATES[config.tune]})
    new = model.copy()
    new.network.eval()  # dropout would ask for what the teacher does not do
    with seeded(seed), evaluating(teacher.network):
        adapted, parameters = _learning(new.network, config)
        objective = Objective(new, teacher, config, kind, mine, other)
        objective.begin(rows)
        if config.keep_top:
            _keep(objective, rows)
        course = Course(objective, rows, parameters, Dev(objective, held) if held else None, seed)
        course.go()
    network = lora.merge(adapted) if adapted is not None else new.network
    network.requires_grad_(True)
    network.zero_grad(set_to_none=True)
    out = model.with_network(network, technique=NAME, config=config.model_dump(mode="json"), seed=seed)
    out.extras[NAME] = course.facts(teacher)
    out.finding = course.finding(model, teacher, (time.process_time() - began) / 60)
    return out


def _rows(
    model: Model, config: DistilConfig, kind: Kind, records: Sequence[Any], tokens: int | None, labels: bool
) -> list[Row]:
    if kind == "causal":
        return stream_rows(model, records, tokens, config.window)
    return single_rows(model, records, tokens, config.window, labels and kind == "classifier")


def _learning(network: Any, config: DistilConfig) -> tuple[Any, list[nn.Parameter]]:
    """PEFT's wrapper (None without adapters), and what learns."""
    if config.tune == "all":
        learning = [p for p in network.parameters() if p.dtype.is_floating_point]
        for parameter in learning:
            parameter.requires_grad_(True)
        return None, learning
    adapted, parameters = lora.attach(network, config)
    gains = norm_gains(network)
    for gain in gains:
        gain.requires_grad_(True)
    return adapted, [*parameters, *gains]


def norm_gains(network: nn.Module) -> list[nn.Parameter]:
    """The gains of all norms, each once."""
    found = {
        id(gain): gain
        for module in network.modules()
        if "Norm" in type(module).__name__ and (gain := getattr(module, "weight", None)) is not None and gain.dim() == 1
    }
    return list(found.values())


def _keep(objective: Objective, rows: Sequence[Row]) -> None:
    from intarsia.compression.distillation.keeping import answers

    config = objective.config
    objective.kept = answers(
        objective.teacher, rows, length_batches([len(row.ids) for row in rows], TOKENS), objective.other.final,
        config.keep_top, config.temperature, objective.choices,
    )  # fmt: skip


class Course:
    """A training with looks at dev: it keeps the best weights, and ends early when they no longer get better."""

    def __init__(
        self, objective: Objective, rows: Sequence[Row], parameters: list[nn.Parameter], dev: Dev | None, seed: int
    ) -> None:
        self.objective, self.rows, self.dev, self.seed = objective, rows, dev, seed
        self.config = objective.config
        if objective.projection is not None:
            parameters = [*parameters, *objective.projection.parameters()]
        self.parameters = parameters
        self.checks: list[tuple[int, float]] = []
        self.best, self._kept = 0, list[Tensor]()
        self.tokens = self.own = self.step = 0
        self._batches = fixed_batches([len(row.ids) for row in rows], self.config.batch_size, seed)
        self._training = Training(
            [(parameters, 1.0)], len(self._batches), self._losses, self.config, seed, "distilling"
        )

    @property
    def losses(self) -> list[float]:
        """Of every step so far."""
        return self._training.losses

    def go(self) -> None:
        """To the end."""
        if self.dev is None:
            self._training.go()
            self.best = len(self.losses)
            return
        self._look()
        missed = 0
        while len(self.losses) < self._training.steps and missed < self.config.patience:
            before = len(self.losses)
            self._training.go(self.config.check_every)
            if len(self.losses) == before:
                break  # the minutes are over
            missed = 0 if self._look() else missed + 1
        with torch.no_grad():
            for parameter, value in zip(self.parameters, self._kept, strict=True):
                parameter.copy_(value)

    def _look(self) -> bool:
        """Measure on dev; whether it is the best so far."""
        assert self.dev is not None
        value, step = self.dev.value(), len(self.losses)
        better = not self.checks or value < min(seen for _, seen in self.checks)
        self.checks.append((step, value))
        if better:
            self.best, self._kept = step, [p.detach().clone() for p in self.parameters]
        return better

    def _losses(self, number: int) -> Iterator[Tensor]:
        """Of the next step, on the batch of this number, or on what the student writes after its beginnings."""
        rows = [self.rows[i] for i in self._batches[number]]
        # Drawn for each step by itself, so that one step's use of chance decides nothing about the next.
        chance = random.Random(f"{self.seed} {self.step}")
        if chance.random() < self.config.on_policy:
            drawn = chance.randrange(2**31)
            rows = written(self.objective.student, rows, self.config.prompt_tokens, self.config.new_tokens, drawn)
            self.own += 1
        self.step += 1
        self.tokens += len(rows) if self.objective.kind == "classifier" else sum(row.places for row in rows)
        yield from self.objective.losses(rows)

    def facts(self, teacher: Model) -> dict[str, Any]:
        """What travels with the weights."""
        facts: dict[str, Any] = {
            "teacher": teacher.identity.source,
            "rows": len(self.rows),
            "steps": len(self.losses),
            "best_step": self.best,
            "own_steps": self.own,
            "tokens": self.tokens,
            "trained_parameters": sum(p.numel() for p in self.parameters),
            "losses": [round(loss, 6) for loss in self.losses],
        }
        if self.dev is not None:
            facts[f"dev_{self.dev.measure.lower()}_before"] = round(self.checks[0][1], 6)
            facts[f"dev_{self.dev.measure.lower()}_after"] = round(self._after, 6)
        return facts

    @property
    def _after(self) -> float:
        return dict(self.checks)[self.best]

    def finding(self, student: Model, teacher: Model, minutes: float) -> Distilled:
        """How near it came."""
        tail = max(1, len(self.losses) // 10)
        first, last = (sum(part) / len(part) for part in (self.losses[:tail], self.losses[-tail:]))
        summary = f"{len(self.losses)} steps over {self.tokens:,} tokens: the loss went from {first:.4f} to {last:.4f}"
        if self.dev is not None:
            what = "mean KL to the teacher" if self.dev.measure == "KL" else "loss"
            change = f"from {self.checks[0][1]:.4f} to {self._after:.4f}"
            summary += f"; on dev the {what} went {change} (weights of step {self.best})"
        else:
            summary += " (means over its first and last steps, on the training texts; give dev to know it elsewhere)"
        return Distilled(
            title=f"{student.identity.source}, taught by {teacher.identity.source}",
            technique=NAME,
            summary=f"{summary}.",
            measure=self.dev.measure if self.dev is not None else "KL",
            before=self.checks[0][1] if self.checks else None,
            after=self._after if self.checks else None,
            best=self.best,
            checks=self.checks,
            losses=self.losses,
            tokens=self.tokens,
            own=self.own,
            minutes=minutes,
            provenance=provenance(seed=self.seed, settings=self.config.model_dump(mode="json")),
        )
