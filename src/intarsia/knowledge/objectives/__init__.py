"""Losses on facts: the margin of the paper, RotatE's self-adversarial loss, and a softmax over all entities."""

from intarsia.knowledge.learning.parts import Objective
from intarsia.knowledge.learning.settings import Settings
from intarsia.knowledge.objectives.corrupting import SelfAdversarial, margin_objective
from intarsia.knowledge.objectives.softmax import Softmax


def objective_for(settings: Settings) -> Objective:
    """The loss that `settings.loss` names."""
    match settings.loss:
        case "softmax":
            return Softmax()
        case "self-adversarial":
            return SelfAdversarial()
    return margin_objective(settings)


__all__ = ["SelfAdversarial", "Softmax", "margin_objective", "objective_for"]
