"""Pruning: weights, neurons, heads and whole blocks that a network can do without.

- `technique.py`: `compression.prune` (weights that become zero), `compression.narrow` (neurons and heads that go),
  `compression.drop_blocks`.
- `masks.py`, `sparsegpt.py`: which weights go, and what the others make good. `sparsifying.py`: the steps of `prune`.
- `parts.py`: what a neuron or a head is made of. `narrowing.py`: the steps of `narrow`.
- `ranking.py`: what each block is worth. `dropping.py`: the steps of `drop_blocks`. `finding.py`: what they found.
- `rebuilding.py`: the smaller network, made anew from its changed config."""

from intarsia.compression.pruning.finding import BlocksFinding

__all__ = ["BlocksFinding"]
