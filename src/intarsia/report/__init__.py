"""Reports: findings drawn as terminal text, JSON, or one self-contained HTML page.

    print_finding(finding)                      # rich text in the terminal
    path.write_text(render_finding(finding))    # one finding as a page
    path.write_text(render(RunPage(...)))       # a whole run as a page

What draws (rich, jinja2) is imported when first used."""

from __future__ import annotations

from intarsia.lazy import lazily
from intarsia.report.finding import (
    Bar,
    Block,
    Cell,
    Column,
    Figure,
    Finding,
    Mark,
    PatchMap,
    PatchPanel,
    Series,
    Table,
    Timeline,
    TokenMap,
)
from intarsia.report.page import RunPage, Section

_HOMES = {
    "data_uri": "intarsia.report.patches",
    "to_text": "intarsia.report.text",
    "print_finding": "intarsia.report.text",
    "render": "intarsia.report.html",
    "render_finding": "intarsia.report.html",
}

__all__ = [
    "Bar",
    "Block",
    "Cell",
    "Column",
    "Figure",
    "Finding",
    "Mark",
    "PatchMap",
    "PatchPanel",
    "RunPage",
    "Section",
    "Series",
    "Table",
    "Timeline",
    "TokenMap",
    "data_uri",
    "print_finding",
    "render",
    "render_finding",
    "to_text",
]

__getattr__ = lazily(__name__, _HOMES)
