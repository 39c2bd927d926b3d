"""Placement: which device holds which expert, so that tokens seldom have to move.

- `problem.py`: what is minimised, written naively. `solving.py`: which solver when, and what is proved; `staged.py`:
  nodes before devices.
- `viterbi.py`: the optimum over all partitions, or the best way through a pool; `descent.py`: layer by layer;
  `search.py`: both, shaken; `bounds.py`: how low it could be; `programme.py`: integer programmes, as proof and peer.
- `balance.py`, `replicas.py`, `baselines.py`: load beside crossing, copies, what to compare with.
- `traffic.py`: what a placement costs on tokens it has not seen."""

from intarsia.lazy import lazily
from intarsia.moe.placement.placement import Placement, contiguous

_HOMES = {"Problem": "problem", "Solution": "solving", "cost": "problem", "crossing": "problem", "solve": "solving"}

__all__ = ["Placement", "Problem", "Solution", "contiguous", "cost", "crossing", "solve"]

__getattr__ = lazily(__name__, _HOMES)
