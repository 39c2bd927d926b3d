"""A store: one folder with documents, vectors, words and facts.

- `Store`: opened, added to, searched (`store.py`); `adding.py`, `searching.py`, `edges.py` and `rewriting.py` do the
  work, on what `folder.py` holds.
- `Found`, `Hit`, `Context`: what a search gives (`found.py`).
- `database.py` the rows, `chunks.py` what is read of them, `vectors.py` the vectors, `words.py` the words, `filters.py`
  conditions, `ranking.py` and `fusing.py` rankings into one, `encoders.py` whatever embeds."""

from intarsia.prompting.data.store.adding import Added
from intarsia.prompting.data.store.encoders import Encoder
from intarsia.prompting.data.store.found import Context, Edge, Found, Hit, Passage, Path, Scores
from intarsia.prompting.data.store.store import Store, Stored

__all__ = ["Added", "Context", "Edge", "Encoder", "Found", "Hit", "Passage", "Path", "Scores", "Store", "Stored"]
