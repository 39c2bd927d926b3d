"""A form that an answer must have, as backends understand it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Constraint:
    """A form of text. `intarsia.prompting.execute.Shape` makes it from a type, and reads the answer back.

    - kind, source: `choice` (a JSON list of texts), `regex` (its pattern, anchored at both ends), `json` (a JSON
      schema), `grammar` (Lark, as llguidance takes it), `call` (one call of a tool that was offered, and nothing else:
      its name, or `required` for any).
    - name: what a server is told it is called."""

    kind: Literal["choice", "regex", "json", "grammar", "call"]
    source: str
    name: str = "answer"
