"""The data level: documents and facts, read, split, kept and found again."""
