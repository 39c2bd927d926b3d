"""Pictures with their patches in groups: how groups get colours and names, and the drawing as SVG."""

from __future__ import annotations

import base64
import hashlib
import io
from collections import Counter
from html import escape
from typing import TYPE_CHECKING

from intarsia.report.drawing import SHAPES
from intarsia.report.finding import PatchMap, PatchPanel
from intarsia.report.format import clean

if TYPE_CHECKING:
    from PIL.Image import Image

SIDE = 200.0  # of a panel in drawing units
ROOM = 13.0  # the least side of a patch that holds a letter
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
GONE = -1


def data_uri(picture: Image, most: int = 336) -> str:
    """A Pillow picture as text that stands inside a page: at most `most` pixels a side, a few kilobytes."""
    shown = picture.convert("RGB")
    shown.thumbnail((most, most))
    stream = io.BytesIO()
    small = max(shown.size) <= 96  # few pixels: every one of them counts, and they cost little
    shown.save(stream, **({"format": "PNG", "optimize": True} if small else {"format": "JPEG", "quality": 86}))
    kind = "png" if small else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode()}"


def merged(panel: PatchPanel) -> dict[int, list[int]]:
    """The groups of two patches and more: group -> its patches in reading order; the largest first."""
    sizes = Counter(group for group in panel.groups if group != GONE)
    order = sorted((g for g, n in sizes.items() if n > 1), key=lambda g: (-sizes[g], panel.groups.index(g)))
    members: dict[int, list[int]] = {group: [] for group in order}
    for place, group in enumerate(panel.groups):
        if group in members:
            members[group].append(place)
    return members


def colours(panel: PatchPanel, rows: int, columns: int) -> dict[int, int]:
    """A colour for each merged group, so that groups that touch differ: the largest chooses first, and takes the one
    that its neighbours use least (then the one used least of all)."""
    groups = merged(panel)
    touching: dict[int, Counter[int]] = {group: Counter() for group in groups}
    for place, group in enumerate(panel.groups):
        if group not in groups:
            continue
        row, column = divmod(place, columns)
        for r, c in ((row, column + 1), (row + 1, column), (row + 1, column + 1), (row + 1, column - 1)):
            if r < rows and 0 <= c < columns:
                other = panel.groups[r * columns + c]
                if other != group and other in groups:
                    touching[group][other] += 1
                    touching[other][group] += 1
    chosen: dict[int, int] = {}
    used: Counter[int] = Counter()
    for group in groups:
        near: Counter[int] = Counter()
        for other, times in touching[group].items():
            if other in chosen:
                near[chosen[other]] += times
        chosen[group] = min(range(SHAPES), key=lambda colour: (near[colour], used[colour], colour))
        used[chosen[group]] += 1
    return chosen


def letters(panel: PatchPanel) -> dict[int, str]:
    """A letter for each merged group, the largest first; after 52 they begin again."""
    return {group: LETTERS[i % len(LETTERS)] for i, group in enumerate(merged(panel))}


def describe(panel: PatchPanel) -> str:
    """The panel in words."""
    groups = merged(panel)
    left, gone = len(set(panel.groups) - {GONE}), panel.groups.count(GONE)
    words = f"{left} of {len(panel.groups)} left"
    if groups:
        words += f"; {len(groups)} groups of two and more, the largest of {max(map(len, groups.values()))} patches"
    return words + (f"; {gone} left out" if gone else "")


def draw_patches(block: PatchMap) -> str:
    """The panels side by side, as many in a line as fit. The picture itself stands in the page once."""
    if not block.panels or not block.rows or not block.columns:
        return '<p class="empty">No patches.</p>'
    height = SIDE * block.rows / block.columns
    name, store = "", ""
    if block.picture.startswith("data:image/"):
        name = "picture-" + hashlib.sha256(block.picture.encode()).hexdigest()[:12]
        size = f'width="{SIDE:.0f}" height="{height:.1f}" preserveAspectRatio="none"'
        store = (
            f'<svg class="store" aria-hidden="true"><defs><image id="{name}" {size} '
            f'href="{escape(block.picture)}"/></defs></svg>'
        )
    panels = "".join(
        f'<li><span class="name">{escape(clean(panel.name))}</span>{_panel(panel, block, name, height)}</li>'
        for panel in block.panels
    )
    return f'{store}<ul class="patches">{panels}</ul>'


def _panel(panel: PatchPanel, block: PatchMap, picture: str, height: float) -> str:
    side = SIDE / block.columns
    body = [f'<use href="#{picture}"/>'] if picture else [f'<rect class="bare" width="{SIDE}" height="{height:.1f}"/>']
    groups, tints, names = merged(panel), colours(panel, block.rows, block.columns), letters(panel)
    for group, places in groups.items():
        path = "".join(f"M{x:.2f} {y:.2f}h{side:.2f}v{side:.2f}h-{side:.2f}z" for x, y in _corners(places, block, side))
        tip = f"<title>{names[group]}: {len(places)} patches in one</title>"
        body.append(f'<path class="tint c{tints[group]}" d="{path}">{tip}</path>')
    gone = [place for place, group in enumerate(panel.groups) if group == GONE]
    for x, y in _corners(gone, block, side):
        body.append(f'<rect class="gone" x="{x:.2f}" y="{y:.2f}" width="{side:.2f}" height="{side:.2f}"/>')
        end = f'x2="{x + side - 2:.2f}" y2="{y + side - 2:.2f}"'
        body.append(f'<line class="cross" x1="{x + 2:.2f}" y1="{y + 2:.2f}" {end}/>')
    if rim := _rim(panel, groups, block, side):
        body += [f'<path class="rim" d="{rim}"/>', f'<path class="rim in" d="{rim}"/>']
    if side >= ROOM:
        for group, places in groups.items():
            for part in connected(places, block.columns):
                row, column = divmod(part[0], block.columns)
                x, y = (column + 0.5) * side, (row + 0.5) * side + 3.5
                body.append(f'<text x="{x:.1f}" y="{y:.1f}">{names[group]}</text>')
    title = escape(clean(f"{block.title} {panel.name}".strip()))
    return (
        f'<svg role="img" viewBox="0 0 {SIDE:.0f} {height:.1f}"><title>{title}</title>'
        f"<desc>{describe(panel)}</desc>{''.join(body)}</svg>"
    )


def _corners(places: list[int], block: PatchMap, side: float) -> list[tuple[float, float]]:
    return [(place % block.columns * side, place // block.columns * side) for place in places]


def _rim(panel: PatchPanel, groups: dict[int, list[int]], block: PatchMap, side: float) -> str:
    """The lines between patches of different groups, where at least one of them is merged."""
    edges = []
    for place, group in enumerate(panel.groups[: block.rows * block.columns]):
        row, column = divmod(place, block.columns)
        x, y = column * side, row * side
        right = panel.groups[place + 1] if column + 1 < block.columns else group
        below = panel.groups[place + block.columns] if row + 1 < block.rows else group
        if right != group and (group in groups or right in groups):
            edges.append(f"M{x + side:.2f} {y:.2f}v{side:.2f}")
        if below != group and (group in groups or below in groups):
            edges.append(f"M{x:.2f} {y + side:.2f}h{side:.2f}")
    return "".join(edges)


def connected(places: list[int], columns: int) -> list[list[int]]:
    """The parts of a group whose patches touch by a side; each begins with its first patch in reading order."""
    left, parts = set(places), []
    for start in sorted(places):
        if start not in left:
            continue
        part, todo = [], [start]
        while todo:
            place = todo.pop()
            if place not in left:
                continue
            left.discard(place)
            part.append(place)
            column = place % columns
            todo += [place - columns, place + columns]
            todo += [place - 1] if column else []
            todo += [place + 1] if column + 1 < columns else []
        parts.append(part)
    return parts
