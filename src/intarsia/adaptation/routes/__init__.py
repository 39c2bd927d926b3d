"""Routes of domain specialisation (`adaptation.plan`, `adaptation.take`): a ladder of rungs, from prompts to training,
measured on the model and data at hand.

- technique: the settings. ladder: climbing it. choosing: which rung to take. take, taking: that rung as a model.
- rung: what a rung is; rungs/: each of them. bench: what they learn from and share, and the clock; setting: what opens
  one again. examples, general: the data. figures: judging. keeping: where finished rungs lie."""

from intarsia.adaptation.routes.take import TakeConfig, take
from intarsia.adaptation.routes.technique import PlanConfig, plan

__all__ = ["PlanConfig", "TakeConfig", "plan", "take"]
