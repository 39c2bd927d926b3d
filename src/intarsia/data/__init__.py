"""Data: typed records, readers for the usual files, splits, and the data sets that need no download."""

from intarsia.data.dialogues import labelled, relabelled
from intarsia.data.facts import read_facts
from intarsia.data.loading import load_data, shared_data
from intarsia.data.pictures import gallery, open_picture
from intarsia.data.readers import read
from intarsia.data.records import (
    Chat,
    Dataset,
    Fact,
    FactEdit,
    ImageQuestion,
    ImageText,
    LabelledText,
    RationaleText,
    Record,
    TaskPair,
    Text,
    TextPair,
    Turn,
)
from intarsia.data.snapshots import FactSnapshot, read_snapshots
from intarsia.data.splits import dedup, shuffled, split
from intarsia.data.streams import read_stream

__all__ = [
    "Chat",
    "Dataset",
    "Fact",
    "FactEdit",
    "FactSnapshot",
    "ImageQuestion",
    "ImageText",
    "LabelledText",
    "RationaleText",
    "Record",
    "TaskPair",
    "Text",
    "TextPair",
    "Turn",
    "dedup",
    "gallery",
    "labelled",
    "load_data",
    "open_picture",
    "read",
    "read_facts",
    "read_snapshots",
    "read_stream",
    "relabelled",
    "shared_data",
    "shuffled",
    "split",
]
