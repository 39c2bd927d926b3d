"""One self-contained HTML page for a run or a finding: no network, no framework, complete without scripts.

The page is a pure function of what it is given: the same contents give the same bytes."""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from intarsia import __version__
from intarsia.report.change import change
from intarsia.report.charts import draw, legend
from intarsia.report.drawing import NARROW, WIDE
from intarsia.report.figure_table import data_table
from intarsia.report.finding import (
    Block,
    Cell,
    Column,
    Figure,
    Finding,
    PatchMap,
    Series,
    Table,
    Timeline,
    TokenMap,
)
from intarsia.report.format import clean, finite, heading, number, parts, show_token, value_of
from intarsia.report.heatmap import Shade, shade_of
from intarsia.report.page import RunPage, Section
from intarsia.report.patches import draw_patches
from intarsia.report.timelines import draw_timeline

MOST_NUMBERS = 1500  # cells of the table under a chart; more than that is in the JSON only


def render(page: RunPage) -> str:
    """The page of a whole run as HTML text (write it as UTF-8)."""
    manifest = dict(page.manifest)
    command, recipe = manifest.pop("command", ""), manifest.pop("recipe", "")
    headline = page.headline
    anchors = {"at-a-glance", "provenance"}
    sections = [_section(section, anchors) for section in page.sections]
    contents = [(section["anchor"], section["title"] or section["technique"] or "Finding") for section in sections]
    if headline:
        contents.insert(0, ("at-a-glance", "At a glance"))
    facts = tree(manifest)
    if command or recipe or facts:
        contents.append(("provenance", "Provenance"))
    return _template().render(
        title=page.title,
        subtitle=page.subtitle,
        summary=page.summary,
        headline=_headline(headline) if headline else None,
        multiples=_multiples(headline) if headline else [],
        sections=sections,
        contents=contents,
        command=_flat(command) if command else "",
        recipe=_recipe(recipe),
        facts=facts,
        version=__version__,
        style=_asset("style.css"),
        script=_asset("page.js"),
    )


def _recipe(recipe: Any) -> str:
    """The recipe's text; one that was read already is written out as YAML again."""
    if not recipe or isinstance(recipe, str):
        return recipe or ""
    import yaml

    return yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True, width=100)


def render_finding(finding: Finding) -> str:
    """One finding as a page of its own."""
    title = finding.title or finding.technique or type(finding).__name__
    bare = _section(Section(finding=finding), set())
    bare |= {"title": ""}
    return _template().render(
        title=title,
        sections=[bare],
        contents=[],
        version=__version__,
        style=_asset("style.css"),
        script=_asset("page.js"),
    )


@functools.cache
def _asset(name: str) -> str:
    return (files("intarsia.report") / "assets" / name).read_text(encoding="utf-8")


@functools.cache
def _template():
    import jinja2
    from markupsafe import Markup

    def tidy(value: Any) -> Any:
        return clean(value) if isinstance(value, str) and not isinstance(value, Markup) else value

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("intarsia.report", "assets"),
        autoescape=True,
        undefined=jinja2.ChainableUndefined,
        finalize=tidy,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("page.html.j2")


def _section(section: Section, taken: set[str]) -> dict[str, Any]:
    finding = section.finding
    title = section.title or finding.title
    anchor = base = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "finding"
    count = 1
    while anchor in taken:
        count += 1
        anchor = f"{base}-{count}"
    taken.add(anchor)
    return {
        "anchor": anchor,
        "title": title,
        "technique": finding.technique,
        "summary": finding.summary,
        "blocks": [block_view(block) for block in finding.blocks()],
        "provenance": tree(finding.provenance),
        "volatile": sorted(finding.volatile),
    }


def block_view(block: Block) -> dict[str, Any]:
    """What the template shows of a block."""
    if isinstance(block, Table):
        return {"kind": "table", **_table(block)}
    if isinstance(block, Figure):
        return _figure(block)
    if isinstance(block, PatchMap):
        return {"kind": "patch-map", "title": block.title, "note": block.note, "drawing": draw_patches(block)}
    if isinstance(block, Timeline):
        return {"kind": "timeline", "title": block.title, "note": block.note, "drawing": draw_timeline(block)}
    return _tokens(block)


def _table(table: Table) -> dict[str, Any]:
    columns = table.columns
    numeric = [_numeric([value_of(row[i]) for row in table.rows if i < len(row)]) for i in range(len(columns))]
    rows = []
    for row in table.rows:
        padded = [*row, *[None] * (len(columns) - len(row))]
        rows.append([_cell(cell, column, flag) for cell, column, flag in zip(padded, columns, numeric, strict=False)])
    return {
        "title": table.title,
        "note": table.note,
        "columns": [_column(column, flag) for column, flag in zip(columns, numeric, strict=True)],
        "rows": rows,
    }


def _numeric(values: list[Cell]) -> bool:
    """Whether a column holds numbers, and nothing but numbers and gaps."""
    return any(map(finite, values)) and not any(isinstance(value, str) for value in values)


def _column(column: Column, numeric: bool) -> dict[str, Any]:
    way = {"higher": "↑", "lower": "↓"}.get(column.better, "")
    return {
        "name": column.name,
        "unit": column.unit,
        "help": column.help,
        "better": column.better,
        "way": way,
        "numeric": numeric,
    }


def _cell(cell: Cell | tuple[float, float, float], column: Column, numeric: bool) -> dict[str, Any]:
    value, spread = parts(cell, column)
    raw = value_of(cell)
    return {
        "value": value,
        "spread": spread,
        "numeric": numeric,
        "raw": repr(raw) if finite(raw) else "",
        "name": heading(column),
        "change": None,
    }


def _headline(table: Table) -> dict[str, Any]:
    """The headline: each row after the first says how it moved against the first."""
    view = _table(table)
    for at, (row, shown) in enumerate(zip(table.rows[1:], view["rows"][1:], strict=True), start=1):
        for i in range(1, min(len(row), len(table.rows[0]), len(table.columns))):
            paired = table.changes[at].get(i) if at < len(table.changes) else None
            shown[i]["change"] = change(row[i], table.rows[0][i], table.columns[i], paired)
    return view


def _multiples(table: Table) -> list[tuple[str, str]]:
    """A small bar chart of each headline figure that moved, over the model states, with its intervals."""
    charts = []
    for i, column in enumerate(table.columns[1:], start=1):
        cells = [(str(row[0]), row[i]) for row in table.rows if i < len(row)]
        known = [value_of(cell) for _, cell in cells if finite(value_of(cell))]
        if len(known) < 2 or len(set(known)) == 1:  # nothing to compare
            continue
        triples = [cell if isinstance(cell, tuple | list) else (cell, None, None) for _, cell in cells]
        values, low, high = ([v if finite(v) else None for v in column] for column in zip(*triples, strict=True))
        series = Series(name=column.name, x=_distinct([name for name, _ in cells]), y=values, low=low, high=high)
        figure = Figure(title=heading(column), kind="bar", series=[series], format=column.format)
        better = f", {column.better} is better" if column.better else ""
        charts.append((heading(column) + better, draw(figure, NARROW)))
    return charts


def _distinct(names: list[str]) -> list[str]:
    seen: dict[str, int] = {}
    for name in names:
        seen[name] = seen.get(name, 0) + 1
    count: dict[str, int] = {}
    result = []
    for name in names:
        count[name] = count.get(name, 0) + 1
        result.append(f"{name} #{count[name]}" if seen[name] > 1 else name)
    return result


def _figure(figure: Figure) -> dict[str, Any]:
    data = data_table(figure)
    large = len(data.rows) * len(data.columns) > MOST_NUMBERS
    return {
        "kind": "figure",
        "title": figure.title,
        "note": figure.note,
        "wide": draw(figure, WIDE),
        "narrow": draw(figure, NARROW),
        "legend": legend(figure),
        "steps": shade_of(figure).steps(figure.format) if figure.kind == "heatmap" else [],
        "meaning": "",
        "data": None if large or not data.rows else _table(data),
    }


def _tokens(block: TokenMap) -> dict[str, Any]:
    values = [*block.values, *[None] * (len(block.tokens) - len(block.values))]
    shade = Shade(values, block.scale, block.maximum)
    spans = []
    for i, (token, value) in enumerate(zip(block.tokens, values, strict=False)):
        text = show_token(token)
        tip = f"{text.strip() or '␣'}: {number(value, block.format)}"
        if i < len(block.tips) and block.tips[i]:
            tip += "\n" + block.tips[i]
        strength = f"{shade.strength(value):.2f}"
        after = "\n" * token.count("\n")
        spans.append({"text": text, "kind": shade.kind(value), "strength": strength, "tip": tip, "after": after})
    return {
        "kind": "token-map",
        "title": block.title,
        "note": block.note,
        "spans": spans,
        "steps": shade.steps(block.format),
        "meaning": block.meaning,
    }


def tree(node: Any) -> list[tuple[str, Any]]:
    """Nested facts as (name, text or subtree) pairs, in the order given."""
    if not isinstance(node, Mapping):
        return []
    return [(str(name), _branch(value)) for name, value in node.items()]


def _branch(value: Any) -> Any:
    if isinstance(value, Mapping):
        return tree(value) or "–"
    if isinstance(value, list | tuple):
        if any(isinstance(item, Mapping | list | tuple) for item in value):
            return [(str(i + 1), _branch(item)) for i, item in enumerate(value)]
        return ", ".join(_flat(item) for item in value) or "–"
    return _flat(value)


def _flat(value: Any) -> str:
    """A fact as text: exact, since a version or seed is not a figure to be rounded."""
    if isinstance(value, str):
        return value
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return (
        json.dumps(value, ensure_ascii=False, default=str)
        if isinstance(value, int | float | dict | list)
        else str(value)
    )
