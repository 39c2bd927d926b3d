"""What of a web page is not its text: what frames it, and what nobody sees."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

_FRAMES = frozenset((
    "area", "audio", "base", "button", "canvas", "datalist", "embed", "footer", "frame", "frameset", "head", "iframe",
    "img", "input", "link", "map", "meta", "meter", "nav", "noscript", "object", "option", "picture", "progress",
    "script", "select", "source", "style", "svg", "textarea", "title", "track", "video", "annotation",
))  # fmt: skip
_ROLES = frozenset(["navigation", "contentinfo", "search", "menu", "menubar"])
_HEADERLINK = re.compile(r"(^|\s)(headerlink|anchor-link|skip-link|sr-only|visually-hidden|screen-reader-text)(\s|$)")
_RULE = re.compile(r"([^{}]+)\{([^{}]*)\}")
_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
_ZERO = r"0*\.?0*(?:px|em|rem|pt|%|vw|vh|ex|ch|cm|mm|in|pc)?"
_UNSEEN = re.compile(
    rf"display\s*:\s*none|visibility\s*:\s*(?:hidden|collapse)|(?:^|[;\s])opacity\s*:\s*(?:{_ZERO}|0?\.0\d*)\s*(?:!|;|$)|"
    rf"font-size\s*:\s*(?:{_ZERO}|0?\.\d+(?:px|pt)|1px)\s*(?:!|;|$)|"
    rf"(?:^|[;\s])(?:max-)?(?:width|height)\s*:\s*(?:{_ZERO})\s*(?:!|;|$)|"
    r"(?:left|top|right|bottom|text-indent|margin-left|margin-top)\s*:\s*-\d{3,}|"
    r"clip\s*:\s*rect\(\s*(?:0|1px)|clip-path\s*:\s*(?:inset\(\s*(?:50|100)%|circle\(\s*0)|"
    r"transform\s*:\s*scale\(\s*0\s*[,)]|content-visibility\s*:\s*hidden|"
    r"(?:^|[;\s])color\s*:\s*(?:transparent|rgba\([^)]*,\s*0?\.?0*\s*\)|#[0-9a-f]{6}00\b|#[0-9a-f]{3}0\b(?![0-9a-f]))",
    re.IGNORECASE,
)
_COLOUR = re.compile(r"(?:^|[;\s])color\s*:\s*([^;!]+)", re.IGNORECASE)
_BACKGROUND = re.compile(r"background(?:-color)?\s*:\s*([^;!]+)", re.IGNORECASE)
_NAMED = {"white": "#ffffff", "black": "#000000", "#fff": "#ffffff", "#000": "#000000"}
_NAMED |= {"rgb(255,255,255)": "#ffffff", "rgb(0,0,0)": "#000000"}


def drops(tag: str, attributes: Mapping[str, Any]) -> Literal["", "frame", "hidden"]:
    """Whether an element is left out: as the frame of a page, or as something that nobody sees."""
    if tag in _FRAMES or attributes.get("role") in _ROLES:
        return "frame"
    if tag == "template" or "hidden" in attributes or str(attributes.get("aria-hidden") or "").lower() == "true":
        return "hidden"
    if (style := attributes.get("style")) and unseen_style(style):
        return "hidden"
    if (classes := attributes.get("class")) and (found := _HEADERLINK.search(classes)):
        return "frame" if found[2] in ("headerlink", "anchor-link", "skip-link") else "hidden"
    return ""


def unseen_style(style: str) -> bool:
    """Whether declarations of CSS hide an element: not shown, without size, moved off the page, or in the colour of
    what is behind it."""
    style = _COMMENT.sub("", style)
    if _UNSEEN.search(style):
        return True
    ink, ground = _COLOUR.search(style), _BACKGROUND.search(style)
    return bool(ink and ground and _colour(ink[1]) == _colour(ground[1]))


def unseen_by_style(parser: Any) -> frozenset[int]:
    """The elements that a page's own style sheets hide, by `mem_id`. Rules under conditions (print, a narrow screen)
    do not count; nor do style sheets in other files, which are not read."""
    out: set[int] = set()
    for sheet in parser.css("style"):
        for selectors, style in _RULE.findall(_top_level(_COMMENT.sub("", sheet.text() or ""))):
            if not unseen_style(style):
                continue
            for selector in selectors.split(","):
                if ":" in selector or not selector.strip():
                    continue  # of a state (hover) or a part of an element (before)
                try:
                    out |= {node.mem_id for node in parser.css(selector.strip())}
                except Exception:  # whatever is no selector to it
                    continue
    return frozenset(out)


def _top_level(sheet: str) -> str:
    """A style sheet without its rules in blocks (`@media ... { ... }`)."""
    out, depth, skipping, at = [], 0, 0, 0
    for found in re.finditer(r"[{}]", sheet):
        piece, at = sheet[at : found.end()], found.end()
        if found[0] == "{":
            depth += 1
            if not skipping and "@" in piece.rpartition(";")[2]:
                skipping = depth
        if not skipping:
            out.append(piece)
        if found[0] == "}":
            if skipping == depth:
                skipping = 0
            depth = max(0, depth - 1)
    return "".join(out)


def _colour(text: str) -> str:
    value = re.sub(r"\s+", "", text).lower()
    return _NAMED.get(value, value)
