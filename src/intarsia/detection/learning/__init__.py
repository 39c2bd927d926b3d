"""Training a detector on a corpus of documents whose writers are known."""

from intarsia.detection.learning.corpora import Corpus, corpora
from intarsia.detection.learning.fitting import learn

__all__ = ["Corpus", "corpora", "learn"]
