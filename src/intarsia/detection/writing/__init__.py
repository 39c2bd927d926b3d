"""Language models that write: what references, perturbations and continuations come from."""

from intarsia.detection.writing.local import LocalWriter
from intarsia.detection.writing.references import PROMPTS, make_references
from intarsia.detection.writing.remote import RemoteWriter
from intarsia.detection.writing.seeds import mixed_seed
from intarsia.detection.writing.writer import Writer, open_writer

__all__ = ["PROMPTS", "LocalWriter", "RemoteWriter", "Writer", "make_references", "mixed_seed", "open_writer"]
