"""Dialogues as data: turns by dialogue, labels from other columns, corpora read as they are published."""

from intarsia.data.dialogues.grouping import dialogues, labelled, relabelled
from intarsia.data.dialogues.iemocap import read_iemocap
from intarsia.data.dialogues.mixing import LABEL_MAPS, mapped, without_overlap

__all__ = ["LABEL_MAPS", "dialogues", "labelled", "mapped", "read_iemocap", "relabelled", "without_overlap"]
