"""A check of where an answer's addresses lead: the way out by which a page or a picture tells its server something."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import urlsplit

from intarsia.prompting.execute.trust.filters import Check, Flag

# Addresses as browsers and Markdown viewers follow them; what has no scheme is one where it stands as a link's target.
_ADDRESS = re.compile(
    r"(?P<bare>[a-z][a-z0-9+.-]{1,20}:/{0,4}[^\s<>\"'`()\[\]]+)"
    r"|\]\(\s*<?(?P<inline>[^\s)>]+)|^\s{0,3}\[[^\]\n]{1,200}\]:\s*<?(?P<reference>[^\s>]+)"
    r"|\b(?:src|href|action|data|poster|srcset|background)\s*=\s*[\"']?(?P<html>[^\s\"'>]+)",
    re.I | re.M,
)


def links(hosts: Iterable[str] = (), *, rule: str = "link") -> Check:
    """Find addresses in an answer that lead elsewhere than to these hosts and those below them: what a page or a
    picture is asked for tells its server whatever the model put into the address.

    Addresses inside of the same site (`#part`, `page.html`) pass; `data:` and `javascript:` do not."""
    known = {host.lower().lstrip(".") for host in hosts}

    def check(text: str) -> list[Flag]:
        found: dict[tuple[int, int], Flag] = {}
        for match in _ADDRESS.finditer(text):
            name = match.lastgroup or "bare"
            host = _host(match[name], bare=name == "bare")
            if host is not None and not any(host == one or host.endswith("." + one) for one in known):
                found[match.span(name)] = Flag(rule, f"{rule}: leads to {host or match[name][:40]}", *match.span(name))
        return list(found.values())

    return check


def _host(address: str, bare: bool) -> str | None:
    """Where an address leads; None: nowhere else. bare: it stands in running text, where `note: this` is none."""
    address = address.replace("\\", "/").strip()
    scheme, colon, rest = address.partition(":")
    if address.startswith("//"):
        scheme, rest = "https", address
    elif not colon or not re.fullmatch(r"[a-z][a-z0-9+.-]*", scheme, re.I):
        return None
    if scheme.lower() in ("data", "javascript", "vbscript", "file", "blob"):
        return scheme.lower() + ":"
    if scheme.lower() in ("mailto", "tel", "sms"):
        return rest.rpartition("@")[2].partition("?")[0].lower()
    if scheme.lower() in ("http", "https", "ws", "wss", "ftp"):
        rest = "//" + rest.lstrip("/")  # browsers mend `https:/host` and `https:host`
    elif bare and not rest.startswith("//"):
        return None
    try:
        return (urlsplit(f"x:{rest}").hostname or "").rstrip(".")
    except ValueError:
        return address[:40]
