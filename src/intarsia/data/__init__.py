"""Data: typed records, readers for the usual files, splits, and the data sets that need no download."""

from intarsia.data.clips import clips_in, open_clip
from intarsia.data.descriptions import Description, described, read_descriptions, write_descriptions
from intarsia.data.dialogues import labelled, relabelled
from intarsia.data.facts import read_facts
from intarsia.data.loading import load_data, shared_data
from intarsia.data.pictures import gallery, open_picture
from intarsia.data.readers import read
from intarsia.data.records import (
    Chat,
    Dataset,
    Document,
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
    "Description",
    "Document",
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
    "clips_in",
    "dedup",
    "described",
    "gallery",
    "labelled",
    "load_data",
    "open_clip",
    "open_picture",
    "read",
    "read_descriptions",
    "read_facts",
    "read_snapshots",
    "read_stream",
    "relabelled",
    "shared_data",
    "shuffled",
    "split",
    "write_descriptions",
]
