"""Data: typed records, readers for the usual files, splits, and the data sets that need no download."""

from intarsia.data.facts import read_facts
from intarsia.data.loading import load_data, shared_data
from intarsia.data.pictures import gallery, open_picture
from intarsia.data.readers import read
from intarsia.data.records import (
    Chat,
    Dataset,
    Fact,
    ImageQuestion,
    ImageText,
    LabelledText,
    RationaleText,
    Record,
    Text,
    TextPair,
)
from intarsia.data.snapshots import FactSnapshot, read_snapshots
from intarsia.data.splits import dedup, shuffled, split

__all__ = [
    "Chat",
    "Dataset",
    "Fact",
    "FactSnapshot",
    "ImageQuestion",
    "ImageText",
    "LabelledText",
    "RationaleText",
    "Record",
    "Text",
    "TextPair",
    "dedup",
    "gallery",
    "load_data",
    "open_picture",
    "read",
    "read_facts",
    "read_snapshots",
    "shared_data",
    "shuffled",
    "split",
]
