"""Data: typed records, readers for the usual files, splits, and the data sets that need no download."""

from intarsia.data.loading import load_data, shared_data
from intarsia.data.readers import read
from intarsia.data.records import Chat, Dataset, LabelledText, RationaleText, Record, Text, TextPair
from intarsia.data.splits import dedup, shuffled, split

__all__ = [
    "Chat",
    "Dataset",
    "LabelledText",
    "RationaleText",
    "Record",
    "Text",
    "TextPair",
    "dedup",
    "load_data",
    "read",
    "shared_data",
    "shuffled",
    "split",
]
