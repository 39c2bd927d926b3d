"""What must not stand in a log: keys, tokens and passwords, found by their look and by what they are called."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from intarsia.prompting.tracing.values import TAG

Redactor = Callable[[str, str], str]
"""(text, name of the field or key it stands under, or "") -> the text that is kept."""

GONE = "[redacted]"
# Not a bare `token` or `key`: a language model's tokens and any mapping's keys are called so.
_SECRET = r"api[_-]?key|secret(?:[_-]?key)?|(?:access|api|auth|bearer|refresh|session)[_-]?token|password|passwd"
_NAMES = re.compile(rf"(^|[_.-])({_SECRET}|authorization|cookie|credentials?)$", re.IGNORECASE)
_LOOKS = re.compile(
    r"""-----BEGIN\ [A-Z\ ]*PRIVATE\ KEY-----.*?(-----END\ [A-Z\ ]*PRIVATE\ KEY-----|\Z)
      | \b(sk|pk|rk)[-_](?:[A-Za-z0-9]+[-_])*[A-Za-z0-9]{16,}[A-Za-z0-9_-]*   # model and payment services
      | \bia-[A-Za-z0-9_-]{20,}                                               # a server of this house
      | \b(AKIA|ASIA)[A-Z0-9]{16}\b                                           # AWS
      | \bgh[pousr]_[A-Za-z0-9]{20,} | \bgithub_pat_[A-Za-z0-9_]{20,}         # GitHub
      | \bglpat-[A-Za-z0-9_-]{16,} | \bhf_[A-Za-z0-9]{20,}                    # GitLab, Hugging Face
      | \bxox[abeoprs]-[A-Za-z0-9-]{10,}                                      # Slack
      | \bAIza[A-Za-z0-9_-]{30,}                                              # Google
      | \beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*             # JSON web tokens
    """,
    re.VERBOSE | re.DOTALL,
)
_BEARER = re.compile(r"\b(Bearer|Basic)\s+[A-Za-z0-9._~+/=-]{8,}", re.IGNORECASE)
_SAID = re.compile(
    rf"""(?P<said>\b(?:[A-Za-z0-9]+[_-])*(?:{_SECRET})["']?\s*[:=]\s*)"""
    r"""(?P<quote>["']?)(?P<what>[^\s"',;&}]{6,})""",
    re.IGNORECASE,
)
_IN_URL = re.compile(r"(?P<scheme>\b[a-z][a-z0-9+.-]*://[^\s/:@]*:)[^\s/@]+@", re.IGNORECASE)


def redact_secrets(text: str, key: str = "") -> str:
    """Take out what looks like a key, token or password, and any text under a name that says it is one."""
    if key and _NAMES.search(key) and text:
        return GONE
    text = _LOOKS.sub(GONE, text)
    text = _BEARER.sub(lambda m: f"{m[1]} {GONE}", text)
    text = _IN_URL.sub(lambda m: f"{m['scheme']}{GONE}@", text)
    return _SAID.sub(lambda m: m[0] if m["what"].startswith(GONE[:9]) else f"{m['said']}{m['quote']}{GONE}", text)


def redacted(data: Any, redact: Redactor, key: str = "") -> Any:
    """Packed data with every text in it through `redact`; the types stay."""
    if isinstance(data, str):
        return redact(data, key)
    if isinstance(data, list):
        return [redacted(item, redact, key) for item in data]
    if not isinstance(data, dict):
        return data
    if data.get(TAG) == "dict":
        pairs = [[k, redacted(v, redact, k if isinstance(k, str) else key)] for k, v in data["items"]]
        return {**data, "items": pairs}
    if TAG not in data:
        return {name: redacted(item, redact, name) for name, item in data.items()}
    out = dict(data)
    if "fields" in data:
        out["fields"] = {name: redacted(item, redact, name) for name, item in data["fields"].items()}
    if "items" in data:
        out["items"] = [redacted(item, redact, key) for item in data["items"]]
    if data[TAG] in ("scalar", "registered", "path", "regex"):
        out["value"] = redacted(data["value"], redact, key)
    return out
