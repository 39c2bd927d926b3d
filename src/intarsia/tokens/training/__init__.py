"""Training of merged models.

- `fit`: the loop, on ready batches; `annealed`: removed rows that grow to the plan; `Lessons`: records into batches."""

from intarsia.tokens.training.annealing import annealed
from intarsia.tokens.training.fitting import Fitted, fit
from intarsia.tokens.training.lessons import Lessons

__all__ = ["Fitted", "Lessons", "annealed", "fit"]
