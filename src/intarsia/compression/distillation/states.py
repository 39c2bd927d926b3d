"""Hidden states as hints: which block of the teacher teaches which of the student, and how far apart they are.

Source: Romero et al. 2015 (FitNets), §2.2, eq. 3: || h_T - P h_S ||^2, P learned and dropped afterwards; Jiao et al.
2020 (TinyBERT), §3.1: the uniform map and one P for all blocks; Sanh et al. 2019 (DistilBERT), §3: 1 - cosine."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from intarsia.compression.distillation.losses import wide

RIDGE = 1e-3


def uniform_map(student: int, teacher: int) -> list[int]:
    """For each of the student's blocks the teacher's, from 0: block i of n learns from block i T / n, counted from 1.

    The last learns from the last."""
    return [max(0, int((i + 1) * teacher / student + 0.5) - 1) for i in range(student)]


def hidden_mse(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Mean over real tokens and channels of (h_S - h_T)^2.

    - student, teacher: [batch, token, width]. mask: [batch, token] bool."""
    return (wide(student[mask]) - wide(teacher[mask])).square().mean()


def hidden_cosine(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Mean over real tokens of 1 - cos(h_S, h_T); shapes as in `hidden_mse`."""
    return (1 - F.cosine_similarity(wide(student[mask]), wide(teacher[mask]), dim=-1)).mean()


class Projection(nn.Module):
    """P [teacher's width, student's width], which takes states of the student to where the teacher's are.

    Begins as the least-squares answer for the first states it is shown: from chance the student would learn to please a
    P that is wrong."""

    def __init__(self, student: int, teacher: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(teacher, student))

    @torch.no_grad()
    def begin(self, student: Tensor, teacher: Tensor) -> None:
        """Fit to states [token, width] of both: T^T S (S^T S + lambda I)^-1, lambda a thousandth of the mean square."""
        x, y = student.double(), teacher.double()
        moment = x.T @ x
        damping = RIDGE * moment.diagonal().mean().clamp(min=1e-12)
        moment += damping * torch.eye(len(moment), dtype=x.dtype, device=x.device)
        self.weight.copy_(torch.linalg.solve(moment, x.T @ y).T)

    def forward(self, states: Tensor) -> Tensor:
        states = wide(states)
        return F.linear(states, self.weight.to(states.dtype))
