"""A classifier of prompts in closed form, exact to extend and to shrink, and rows of weights that say what each task
uses.

Linear discriminant analysis (Fisher 1936; Friedman 1989 for the shrinkage): one mean a task, one scatter shared by all.
A task is a count, a mean and a scatter; adding it is adding them, so that the order does not matter, old data is not
needed, and taking it out again leaves what would be there without it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from intarsia.adaptation.continual.routing.router import Router
from intarsia.adaptation.minimum import lowest

SHRINKAGE = 0.1
PRUNED = 0.01  # chances below this are taken for none
WIDE = 4096  # features from which factors are held in single precision
HOTTEST = 1000.0  # highest temperature


def features(pooled: Tensor) -> Tensor:
    """[row, 2 width] float64 on the CPU: maxima / 3 and means * 3, which brings both to one scale."""
    return torch.cat([pooled[:, 0] / 3, pooled[:, 1] * 3], 1).cpu().double()


@dataclass
class Statistics:
    """Of one task's prompts: their number, mean [feature], and a factor [k, feature] of their scatter:
    factor^T factor = sum of (x - mean)(x - mean)^T."""

    count: int
    mean: Tensor
    factor: Tensor

    @staticmethod
    def of(rows: Tensor) -> Statistics:
        """From features [row, feature]."""
        mean = rows.mean(0)
        return Statistics(len(rows), mean, _factor(rows - mean))

    def __add__(self, other: Statistics) -> Statistics:
        """Of both sets of prompts together."""
        count = self.count + other.count
        apart = (self.mean - other.mean) * (self.count * other.count / count) ** 0.5
        mean = (self.count * self.mean + other.count * other.mean) / count
        return Statistics(count, mean, _factor(torch.cat([self.factor.double(), other.factor.double(), apart[None]])))


def _factor(rows: Tensor) -> Tensor:
    """A factor of rows^T rows with as few rows as there can be."""
    factor = torch.linalg.qr(rows, mode="r").R
    return factor if factor.shape[1] < WIDE else factor.float()


class Closed(Router):
    """Chances of the tasks by discriminant analysis, and the blocks that each uses.

    - tasks: statistics in the order of the blocks. rows: [task, block], row-stochastic, lower triangular: what task k
      uses. temperature: divides the scores; discriminant analysis is far too sure in this many dimensions.
    - weight [feature, task], bias [task]: the scores x . w_k + b_k. All of it stays on the CPU, in double precision.

    weights(x) = sum_k p_k(x) rows_k. With `hard`, the best task alone counts (the selector of EPI: Wang et al.
    2023)."""

    kind = "closed"

    def __init__(self, *, hard: bool = False):
        super().__init__()
        self.tasks: list[Statistics] = []
        self.rows = torch.zeros(0, 0)
        self.temperature = 1.0
        self.hard = hard
        self.weight, self.bias = torch.zeros(0, 0), torch.zeros(0)

    def add(self, statistics: Statistics) -> None:
        """One more task, which uses its own block alone until `rows` says otherwise."""
        self.tasks.append(statistics)
        count = len(self.tasks)
        rows = torch.zeros(count, count, dtype=torch.float32)
        rows[: count - 1, : count - 1] = self.rows
        rows[-1, -1] = 1
        self.rows = rows
        self.solve()

    def update(self, index: int, statistics: Statistics) -> None:
        """More prompts of a task that is there."""
        self.tasks[index] = self.tasks[index] + statistics
        self.solve()

    def covariance(self) -> Tensor:
        """[feature, feature]: the pooled covariance, shrunk towards a multiple of the identity."""
        total = sum(task.count for task in self.tasks)
        size = len(self.tasks[0].mean)
        scatter = torch.zeros(size, size, dtype=torch.float64)
        for task in self.tasks:
            factor = task.factor.double()
            scatter.addmm_(factor.T, factor)
        scatter /= total
        level = scatter.trace() / size
        scatter *= 1 - SHRINKAGE
        scatter.diagonal().add_(SHRINKAGE * level.clamp(min=1e-12))
        return scatter

    def solve(self) -> None:
        """The linear scores that the statistics give: w_k = covariance^-1 mean_k, b_k = -mean_k . w_k / 2."""
        if not self.tasks:
            self.weight, self.bias = torch.zeros(0, 0), torch.zeros(0)
            return
        means = torch.stack([task.mean for task in self.tasks], 1)
        self.weight = torch.cholesky_solve(means, torch.linalg.cholesky(self.covariance()))
        self.bias = -(means * self.weight).sum(0) / 2

    def scores(self, pooled: Tensor) -> Tensor:
        """[row, task] log chances up to a constant, before the temperature; on the CPU."""
        return features(pooled) @ self.weight + self.bias

    def chances(self, pooled: Tensor) -> Tensor:
        """[row, task] that a prompt belongs to each task; on the CPU."""
        scores = self.scores(pooled)
        if self.hard:
            return torch.nn.functional.one_hot(scores.argmax(1), scores.shape[1]).to(scores.dtype)
        chances = (scores / self.temperature).softmax(1)
        small = (chances < PRUNED) & (chances < chances.amax(1, keepdim=True))
        chances = chances.masked_fill(small, 0)
        return chances / chances.sum(1, keepdim=True)

    def distances(self, statistics: Statistics) -> Tensor:
        """[task] squared Mahalanobis distance of each task's mean from another's, a feature."""
        if not self.tasks:
            return torch.zeros(0, dtype=torch.float64)
        apart = torch.stack([task.mean for task in self.tasks], 1) - statistics.mean[:, None]
        solved = torch.cholesky_solve(apart, torch.linalg.cholesky(self.covariance()))
        return (apart * solved).sum(0) / len(apart)

    def forward(self, pooled: Tensor) -> Tensor:
        return (self.chances(pooled).float() @ self.rows).to(pooled.device)

    def row(self, index: int) -> Tensor | None:
        return self.rows[index]

    def save(self) -> dict[str, Tensor]:
        out: dict[str, Tensor] = {"rows": self.rows.detach(), "temperature": torch.tensor(self.temperature).double()}
        out |= {"weight": self.weight, "bias": self.bias}
        for i, task in enumerate(self.tasks):
            out |= {f"{i}.count": torch.tensor(task.count), f"{i}.mean": task.mean, f"{i}.factor": task.factor}
        return out

    def load(self, tensors: dict[str, Tensor]) -> None:
        self.rows, self.temperature = tensors["rows"].clone(), float(tensors["temperature"])
        self.weight, self.bias = tensors["weight"].clone(), tensors["bias"].clone()
        self.tasks = [
            Statistics(int(tensors[f"{i}.count"]), tensors[f"{i}.mean"].clone(), tensors[f"{i}.factor"].clone())
            for i in range(len(self.rows))
        ]

    def forget(self, index: int) -> None:
        del self.tasks[index]
        left = [i for i in range(len(self.rows)) if i != index]
        rows = self.rows[left][:, left]
        own = torch.eye(len(left))
        # What leant on the block alone falls back on its own.
        total = rows.sum(1, keepdim=True)
        self.rows = torch.where(total > 1e-6, rows / total.clamp(min=1e-6), own)
        self.solve()


def fitted_temperature(scores: Tensor, true: Tensor) -> float:
    """The temperature from 1 to 1000 under which held-out prompts are likeliest, of scores [prompt, task].

    Where all are told apart the likelihood alone would have it as low as it goes; targets are 1 - 1 / (n + 2) in place
    of 1 (Platt 1999), which gives it an optimum."""
    count, tasks = scores.shape
    slack = 1 / (count + 2)
    target = torch.full_like(scores, slack / max(1, tasks - 1))
    target[torch.arange(count), true] = 1 - slack

    def loss(log_t: float) -> float:
        return -float((target * (scores / torch.tensor(log_t).exp()).log_softmax(1)).sum())

    return math.exp(lowest(loss, 0.0, math.log(HOTTEST)))  # the loss has a single minimum in 1 / T
