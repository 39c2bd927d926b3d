"""Adaptation: label tuning and instruction tuning with low-rank adapters, and tuning on task after task.

- `label`: a labelling task, scored by the likelihood of each label's words, loss on the label's tokens only.
- `instruct`: conversations, loss on the answers only.
- `continual`: tasks one after the other, each in a block of its own, picked by the prompt; with `answer`, `forget`,
  `merge`.
- `describe`: what is to be seen in video clips, in words: side knowledge for the turns of dialogues.
- `edit`: single facts, written into the weights of a few MLPs."""

from intarsia.adaptation.clips import DescribeConfig, describe
from intarsia.adaptation.continual import ContinualConfig, answer, continual, forget, merge
from intarsia.adaptation.editing import EditConfig, edit
from intarsia.adaptation.instruct import InstructConfig, instruct
from intarsia.adaptation.label import LabelConfig, label

__all__ = [
    "ContinualConfig",
    "DescribeConfig",
    "EditConfig",
    "InstructConfig",
    "LabelConfig",
    "answer",
    "continual",
    "describe",
    "edit",
    "forget",
    "instruct",
    "label",
    "merge",
]
