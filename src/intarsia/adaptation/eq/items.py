"""Items of the EQ test, from a file that a person brings: the published ones belong to their authors."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from intarsia.data.files import must_exist
from intarsia.errors import BadInput

WANTED = '{"story": "...", "options": ["joy", "fear", "anger", "shame"], "human": [1.2, 3.3, 3.5, 2.0]}'
SUM, ROUNDING = 10.0, 0.2  # means of scores that sum to ten, each rounded


@dataclass(frozen=True)
class Item:
    """A story with four feelings.

    - human: people's mean scores of the four, which sum to ten. template: the distance that people's own answers have
      to them in the mean, where it is known: the pattern that a model's distances are compared with."""

    story: str
    options: tuple[str, ...]
    human: tuple[float, ...]
    template: float | None = None


def read_items(path: Path) -> list[Item]:
    """Items of a `.jsonl` file, one a line. Raises `BadInput` that names the line and what it wants."""
    path = Path(path).expanduser()
    must_exist(path)
    if path.is_dir() or path.suffix.lower() != ".jsonl":
        raise BadInput(f"{path}: items of the EQ test are a .jsonl file, a line each: {WANTED}")
    items = []
    for number, line in enumerate(path.read_text("utf-8-sig").splitlines(), 1):
        if line.strip():
            items.append(_item(line, f"{path}: line {number}"))
    if not items:
        raise BadInput(f"{path}: no items in it; wanted a line each: {WANTED}")
    known = [item.template is not None for item in items]
    if any(known) and not all(known):
        raise BadInput(f"{path}: item {known.index(False) + 1} has no 'template', others have: give it for all or none")
    return items


def _item(line: str, where: str) -> Item:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise BadInput(f"{where}: not JSON ({error}); wanted {WANTED}") from None
    if not isinstance(row, dict):
        raise BadInput(f"{where}: wanted an object: {WANTED}")
    story, options, human = (row.get(key) for key in ("story", "options", "human"))
    if not isinstance(story, str) or not story.strip():
        raise BadInput(f"{where}: 'story' must be a text")
    if not isinstance(options, list) or len(options) != 4 or not all(isinstance(o, str) and o.strip() for o in options):
        raise BadInput(f"{where}: 'options' must be four words")
    if len({option.strip().casefold() for option in options}) < 4:
        raise BadInput(f"{where}: 'options' names a word twice: {', '.join(options)}")
    if not isinstance(human, list) or len(human) != 4 or not all(map(_is_score, human)):
        raise BadInput(f"{where}: 'human' must be four scores from 0 to 10, in the order of the options")
    if abs(sum(human) - SUM) > ROUNDING:
        raise BadInput(f"{where}: the scores of 'human' sum to {sum(human):g}; they must sum to 10")
    template = row.get("template")
    if template is not None and not (_is_number(template) and template >= 0):
        raise BadInput(f"{where}: 'template' must be a distance, a number from 0 up")
    return Item(story.strip(), tuple(o.strip() for o in options), tuple(map(float, human)), template)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value


def _is_score(value: Any) -> bool:
    return _is_number(value) and 0 <= value <= SUM
