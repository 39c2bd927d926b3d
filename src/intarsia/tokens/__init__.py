"""Tokens: a vision-language model made faster by ensembling tokens that say the same, guided by the other modality.

- `merge`: the change itself, on any network whose towers the engine knows (`merging.py`, `decoding.py`: the rules;
  `matching/`, `ensemble.py`, `importance/`: what pairs, how it blends, what is spared; `schedules.py`: how much).
- `show`, `compare`, `diff`: looking: which patches went where; every method in one table; what merging changed.
  (`subjects.py`: the pictures and what is asked about them; `outcomes.py`: what a model makes of them.)
- `train`: a merged model learns its task with merged tokens, and its cross tokens (`alignment.py`, `losses.py`,
  `training/`)."""

from intarsia.tokens.compare import CompareConfig, Compared, TokenComparison, compare
from intarsia.tokens.diff import DiffConfig, TokenDiff, diff
from intarsia.tokens.merge import MergeConfig, merge
from intarsia.tokens.show import ShowConfig, TokenMaps, show
from intarsia.tokens.train import TokenTraining, TrainConfig, train

__all__ = [
    "CompareConfig",
    "Compared",
    "DiffConfig",
    "MergeConfig",
    "ShowConfig",
    "TokenComparison",
    "TokenDiff",
    "TokenMaps",
    "TokenTraining",
    "TrainConfig",
    "compare",
    "diff",
    "merge",
    "show",
    "train",
]
