"""What a function's docstring says: what it does, and what each parameter is. Google's, NumPy's and Sphinx's ways of
writing, and lists of `- name: text`."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence

_HEADS = ("args", "arguments", "parameters", "params")
_ENDS = ("returns", "return", "raises", "yields", "yield", "examples", "example", "notes", "note", "references")
_SPHINX = re.compile(r":(?:param|parameter|arg|argument)\s+(?:[^:]*?\s)?\*{0,2}(\w+)\s*:\s*(.*)")
_GOOGLE = re.compile(r"\*{0,2}(\w+)\s*(?:\([^)]*\))?\s*:\s*(.*)")
_NUMPY = re.compile(r"\*{0,2}(\w+)(?:\s*,\s*\w+)*\s*(?::\s*.*)?$")
_LISTED = re.compile(r"-\s+`?(\w+)`?\s*:\s*(.*)")


def said_of(docstring: str, names: Sequence[str]) -> tuple[str, dict[str, str]]:
    """The text before the parameters, and what is said of each parameter that has one of the names."""
    lines = inspect.cleandoc(docstring).splitlines()
    text: list[str] = []
    told: dict[str, list[str]] = {}
    mode, current, depth = "", "", 0
    for number, line in enumerate(lines):
        bare, indent = line.strip(), len(line) - len(line.lstrip())
        under = lines[number + 1].strip() if number + 1 < len(lines) else ""
        head = bare.rstrip(":").lower()
        ruled = bool(under) and set(under) == {"-"}
        if indent == 0 and (bare.endswith(":") or ruled) and head in (*_HEADS, *_ENDS):
            mode, current = ("numpy" if ruled else "google") if head in _HEADS else "after", ""
            continue
        if bare and set(bare) == {"-"} and mode in ("numpy", "after") and number and lines[number - 1].strip():
            continue
        if found := _SPHINX.match(bare):
            mode, current = "sphinx", found[1]
            told[current] = [found[2]]
        elif bare.startswith(":") and mode in ("", "sphinx") and re.match(r":(returns?|rtype|raises?|type)\b", bare):
            mode, current = "sphinx", ""
        elif mode == "google":
            if bare and (not told or indent <= depth) and (found := _GOOGLE.match(bare)):
                current, depth = found[1], indent
                told[current] = [found[2]]
            elif current and bare:
                told[current].append(bare)
        elif mode == "numpy":
            if bare and indent == 0 and (found := _NUMPY.match(bare)):
                current = found[1]
                told[current] = []
            elif current and bare:
                told[current].append(bare)
        elif mode == "sphinx":
            if current and bare and indent:
                told[current].append(bare)
            elif not bare:
                current = ""
        elif mode == "":
            if (found := _LISTED.match(bare)) and found[1] in names:
                current, depth = found[1], indent
                told[current] = [found[2]]
            elif current and bare and indent > depth:
                told[current].append(bare)
            else:
                current = ""
                text.append(line)
    return "\n".join(text).strip(), {name: " ".join(told[name]).strip() for name in names if name in told}
