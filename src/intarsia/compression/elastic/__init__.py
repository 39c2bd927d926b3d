"""Architecture search over a pretrained language model that holds many smaller ones on shared weights.

- `technique.py`: `compression.search_architecture`, and `compression.slice_width` for the width of the stream alone.
- `sorting.py`: neurons and heads in the order of their worth. `rotating.py`: the stream in its principal basis.
  `choices.py`, `supernet.py`: any choice of blocks, neurons, heads and width as a slice; `forms.py`: what becomes of
  each tensor, `fields.py`: of the config. `uneven.py`: blocks that differ. `sizes.py`: parameters by arithmetic.
- `refitting.py`: least squares after a cut. `training.py`: the shared weights learn by the sandwich rule.
- `harms.py`: what each cut is expected to cost. `costs.py`, `timing.py`: what a choice weighs and takes.
- `candidates.py`, `evolving.py`: choices within a budget. `judging.py`: one made and measured. `searching.py`: the
  steps. `finding.py`: the Pareto front."""
