"""Tokens: a vision-language model made faster by ensembling tokens that say the same, guided by the other modality.

- `merge`: the change itself, on any network whose towers the engine knows (`merging.py`, `decoding.py`: the rules;
  `matching/`, `ensemble.py`, `importance/`: what pairs, how it blends, what is spared; `schedules.py`: how much)."""

from intarsia.tokens.merge import MergeConfig, merge

__all__ = ["MergeConfig", "merge"]
