"""`RunPage`: what the page of a whole run shows, as plain data. A run fills one; `report.html.render` draws it."""

from __future__ import annotations

from typing import Any

import pydantic

from intarsia.report.finding import Finding, Table


class Section(pydantic.BaseModel):
    """One finding under its own heading. An empty `title` falls back to the finding's."""

    title: str = ""
    finding: pydantic.SerializeAsAny[Finding]


class RunPage(pydantic.BaseModel):
    """The page of a run.

    - title, subtitle, summary: what was done, to what, and the outcome in a sentence or two.
    - headline: one row a model state (`base`, `tuned`, `small (onnx-genai)`...), the first row being what the others
      are compared with. The first column names the state; each other column says through `Column.better` which way is
      good. A cell with an interval is a `(value, low, high)` triple.
    - sections: the findings, in reading order.
    - manifest: where the figures come from. `command` (the line that repeats the run) and `recipe` (its text as run,
      or what was read from it) are drawn as text to copy; every other key (versions, seeds, data hashes...) as a
      tree of names and values."""

    title: str
    subtitle: str = ""
    summary: str = ""
    headline: Table | None = None
    sections: list[Section] = []
    manifest: dict[str, Any] = {}
