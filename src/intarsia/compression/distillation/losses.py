"""How far a student's distribution is from its teacher's, in nats.

The divergences take log-probabilities [..., choice] of both and give [...]; T is the teacher, S the student."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from intarsia.compression.distillation.technique import DistilConfig

NONE = -100  # a target that is not there
Divergence = Callable[[Tensor, Tensor], Tensor]


def log_probabilities(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Log softmax of logits [..., choice] / temperature, in float32 at least."""
    return (wide(logits) / temperature).log_softmax(-1)


def wide(tensor: Tensor) -> Tensor:
    """In float32, or float64 where it is that."""
    return tensor if tensor.dtype is torch.float64 else tensor.float()


def forward_kl(teacher: Tensor, student: Tensor) -> Tensor:
    """KL(T || S) = sum T (log T - log S): the student covers all that the teacher finds likely.

    Hinton et al. 2015, §2, up to the teacher's entropy."""
    return (teacher.exp() * (teacher - student)).sum(-1)


def reverse_kl(teacher: Tensor, student: Tensor) -> Tensor:
    """KL(S || T): the student keeps to what the teacher finds likely. Gu et al. 2024 (MiniLLM), §2.1, per token."""
    return forward_kl(student, teacher)


def skew_kl(teacher: Tensor, student: Tensor, skew: float = 0.1) -> Tensor:
    """KL(T || s T + (1 - s) S): forward KL that stays below log(1/s). Ko et al. 2024 (DistiLLM), §3.1."""
    return forward_kl(teacher, mixed(teacher, student, skew))


def jsd(teacher: Tensor, student: Tensor, beta: float = 0.5) -> Tensor:
    """Generalised Jensen-Shannon divergence b KL(T || M) + (1 - b) KL(S || M), M = b T + (1 - b) S.

    It vanishes as b goes to 0 and to 1; divided by b and by 1 - b it goes to KL(T || S) and to KL(S || T), which are
    given there. Agarwal et al. 2024 (GKD), §2."""
    if beta in (0, 1):
        return forward_kl(teacher, student) if beta == 0 else reverse_kl(teacher, student)
    middle = mixed(teacher, student, beta)
    return beta * forward_kl(teacher, middle) + (1 - beta) * forward_kl(student, middle)


def mixed(one: Tensor, other: Tensor, share: float) -> Tensor:
    """Log-probabilities of share * one + (1 - share) * other, from log-probabilities."""
    if share == 0:
        return other
    return torch.logaddexp(one + math.log(share), other + math.log1p(-share))


def cross_entropy(student: Tensor, targets: Tensor) -> Tensor:
    """-log S(target) of logits [row, choice], [row]; 0 where there is no target (-100)."""
    return F.cross_entropy(wide(student), targets, ignore_index=NONE, reduction="none")


@dataclass(frozen=True)
class Kept:
    """A teacher's answer at some places, as it is kept on disk (`keeping`): log-probabilities `top` [row, k] of the
    tokens `ids` [row, k], and the logarithm of the mass of all others, `rest` [row]; softened already."""

    ids: Tensor
    top: Tensor
    rest: Tensor


@dataclass(frozen=True)
class LogitLoss:
    """(1 - soft) CE + soft tau^2 D: cross entropy of what is there, and a divergence D from the teacher with both
    distributions softened by tau. The square keeps the size of D's gradients (Hinton et al. 2015, §2)."""

    divergence: Divergence
    temperature: float = 1.0
    soft: float = 1.0

    @staticmethod
    def of(config: DistilConfig) -> LogitLoss:
        """As the settings say."""
        chosen: dict[str, Divergence] = {
            "forward": forward_kl,
            "reverse": reverse_kl,
            "skew": lambda teacher, student: skew_kl(teacher, student, config.skew),
            "jsd": lambda teacher, student: jsd(teacher, student, config.beta),
        }
        return LogitLoss(chosen[config.loss], config.temperature, config.soft)

    def __call__(self, teacher: Tensor | Kept, student: Tensor, targets: Tensor | None = None) -> Tensor:
        """[row] from the student's logits [row, choice] and the teacher's, or what was kept of them.

        - targets: [row] right choices; where there are none (None, or -100), the teacher's part is all there is.

        Of a `Kept`, the tokens that are not in it count as one choice: the loss is then the true one less
        rest * KL(T' || S'), T' and S' the distributions among those tokens (forward KL; skew KL with the mixture for
        S). What is left out is never negative."""
        log_s = log_probabilities(student, self.temperature)
        if isinstance(teacher, Kept):
            log_t = torch.cat((teacher.top, teacher.rest[:, None]), -1).to(log_s)
            log_s = bucketed(log_s, teacher.ids)
        else:
            log_t = log_probabilities(teacher, self.temperature).to(log_s)
        loss = self.soft * self.temperature**2 * self.divergence(log_t, log_s)
        if targets is None or self.soft == 1:
            return loss
        return loss + (1 - self.soft) * cross_entropy(student, targets)


def bucketed(logs: Tensor, ids: Tensor) -> Tensor:
    """Log-probabilities [row, choice] as those of `ids` [row, k] and of all others together, [row, k + 1]."""
    return torch.cat((logs.gather(-1, ids), rest_of(logs, ids)[:, None]), -1)


def rest_of(logs: Tensor, ids: Tensor) -> Tensor:
    """[row] the logarithm of the mass of all choices but `ids` [row, k]."""
    return logs.scatter(-1, ids, -torch.inf).logsumexp(-1)
