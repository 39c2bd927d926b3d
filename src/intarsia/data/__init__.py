"""Data: typed records, readers for the usual files, splits, and the data sets that need no download."""

from intarsia.data.records import Chat, Dataset, LabelledText, Record, Text, TextPair

__all__ = ["Chat", "Dataset", "LabelledText", "Record", "Text", "TextPair"]
