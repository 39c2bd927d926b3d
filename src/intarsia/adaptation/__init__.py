"""Adaptation: label tuning and instruction tuning with low-rank adapters, and tuning on task after task.

- `label`: a labelling task, scored by the likelihood of each label's words, loss on the label's tokens only.
- `instruct`: conversations, loss on the answers only.
- `continual`: tasks one after the other, each in a block of its own, picked by the prompt; with `answer`, `forget`,
  `merge`.
- `describe`: what is to be seen in video clips, in words: side knowledge for the turns of dialogues.
- `edit`: single facts, written into the weights of a few MLPs.
- `plan`: a ladder of ways to specialise a model, measured from the cheapest up; `take`: one of its rungs as a model.
- `eq`: the EQ test, how near a model's reading of feelings comes to people's."""

from intarsia.adaptation.clips import DescribeConfig, describe
from intarsia.adaptation.continual import ContinualConfig, answer, continual, forget, merge
from intarsia.adaptation.dialogue import DialogueConfig, dialogue
from intarsia.adaptation.editing import EditConfig, edit
from intarsia.adaptation.eq import EqConfig, eq
from intarsia.adaptation.instruct import InstructConfig, instruct
from intarsia.adaptation.label import LabelConfig, label
from intarsia.adaptation.routes import PlanConfig, TakeConfig, plan, take

__all__ = [
    "ContinualConfig",
    "DescribeConfig",
    "DialogueConfig",
    "EditConfig",
    "EqConfig",
    "InstructConfig",
    "LabelConfig",
    "PlanConfig",
    "TakeConfig",
    "answer",
    "continual",
    "describe",
    "dialogue",
    "edit",
    "eq",
    "forget",
    "instruct",
    "label",
    "merge",
    "plan",
    "take",
]
