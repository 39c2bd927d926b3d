"""What was asked already, in a file that is only added to: a run that was stopped goes through it again for nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from intarsia.errors import BadInput, writing_to

VERSION = 1


class Journal:
    """Answers by key. The same run asks the same things in the same order, so that what is found here need not be asked
    again.

    - path: None: nothing is kept. about: what the run depends on; a file that was written for something else is
      refused."""

    def __init__(self, path: Path | None, about: Mapping[str, Any]):
        self.path, self.known = path, dict[str, Any]()
        if path is None:
            return
        head = json.dumps({"journal": VERSION, **about}, sort_keys=True)
        if path.exists():
            lines = path.read_text("utf-8").split("\n")
            if lines[0] != head:
                raise BadInput(
                    f"{path}: is the journal of another run (other prompt, data, model or settings): move it away"
                )
            whole = lines[:-1]  # what has no line end was cut off by a kill
            for line in whole[1:]:
                key, value = json.loads(line)
                self.known[key] = value
            if lines[-1]:
                path.write_text("".join(f"{line}\n" for line in whole), "utf-8")
            return
        with writing_to(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(head + "\n", "utf-8")

    def add(self, key: str, value: Any) -> None:
        """Keep an answer; it is on the disk when this returns."""
        self.known[key] = value
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps([key, value], ensure_ascii=False) + "\n")
