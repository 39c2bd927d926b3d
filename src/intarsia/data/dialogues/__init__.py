"""Dialogues as data: turns by dialogue, labels from other columns, corpora read as they are published."""

from intarsia.data.dialogues.grouping import dialogues, labelled, relabelled

__all__ = ["dialogues", "labelled", "relabelled"]
