"""A small encoder for stores: hashed words, so that what shares words is alike; and what it was asked."""

import zlib

import numpy as np

from intarsia.prompting.data import Section, SourceDocument


def manual_of(texts, name):
    """Made-up documentation of a module: a function that gives it, as `python_manual` gives Python's."""

    def manual():
        parts, sections, length = [], [], 0
        for called, text in texts.items():
            piece = f"{called}\n\n{text}\n\n"
            sections.append(Section((called,), length, length + len(piece), called.partition(".")[2]))
            parts.append(piece)
            length += len(piece)
        yield SourceDocument("".join(parts), f"python:{name}", name, {"kind": "module"}, tuple(sections))

    return manual


class HashedWords:
    """[text, 64] counts of hashed words; `seen`: all texts that were embedded, in order."""

    def __init__(self, fingerprint="hashed"):
        self.seen, self.fingerprint = [], fingerprint

    def __call__(self, texts):
        self.seen += texts
        rows = np.zeros((len(texts), 64), np.float32)
        for row, text in zip(rows, texts, strict=True):
            for word in text.casefold().split():
                row[zlib.crc32(word.strip(".,:;#?!`").encode()) % 64] += 1
        return rows
