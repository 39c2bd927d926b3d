"""Model editing: write single facts into the weights of MLPs, and see what that did to all the rest.

- `technique.py`: `adaptation.edit`. `editing.py`: its steps in order. `checking.py`: what cannot be edited.
- `wording.py`: prompts as token ids, with the place of the subject and of the target.
- `places.py`: where a network is edited, and the linear layer there. `tracing.py`: which layers, by causal tracing.
- `keys.py`, `moments.py`, `values.py`: k*, C and v* of the papers. `solving.py`: the closed form, in `exact.py`'s
  float64. `keeping.py`: what is kept in the cache.
- `judging.py`, `finding.py`: what became of the edits, their paraphrases and their neighbours."""

from intarsia.adaptation.editing.finding import EditFinding
from intarsia.adaptation.editing.technique import EditConfig, edit

__all__ = ["EditConfig", "EditFinding", "edit"]
