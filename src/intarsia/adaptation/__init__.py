"""Adaptation: label tuning and instruction tuning with low-rank adapters.

- `label`: a labelling task, scored by the likelihood of each label's words, loss on the label's tokens only.
- `instruct`: conversations, loss on the answers only."""

from intarsia.adaptation.instruct import InstructConfig, instruct
from intarsia.adaptation.label import LabelConfig, label

__all__ = ["InstructConfig", "LabelConfig", "instruct", "label"]
