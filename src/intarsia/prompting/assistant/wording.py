"""Words brought to one form, so that `raises` and `raised`, `isn't` and `is not` are the same: rougher than a
dictionary, and the same everywhere."""

from __future__ import annotations

import re

_ENDINGS = ("ations", "ation", "ing", "ed", "es", "ly", "s", "e")
LEAST = 3
"""Letters that stay of a word."""
_SHORT = re.compile(r"\b(\w+)n['’]t\b")
_IRREGULAR = {"ca": "can", "wo": "will", "sha": "shall"}


def stem(word: str) -> str:
    """A folded word without its longest English ending that leaves enough of it; `copy` and `copies` are `copi`."""
    ends = (end for end in _ENDINGS if word.endswith(end) and len(word) - len(end) >= LEAST)
    cut = word.removesuffix(next(ends, ""))
    return f"{cut[:-1]}i" if cut.endswith("y") and len(cut) > LEAST else cut


def written_out(text: str) -> str:
    """A text with `isn't` and `cannot` as two words."""
    return _SHORT.sub(lambda found: f"{_IRREGULAR.get(found[1], found[1])} not", text.replace("cannot", "can not"))
