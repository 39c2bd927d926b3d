"""Detectors that come with Intarsia, by name."""

from __future__ import annotations

from pathlib import Path

PROFILES = ("english",)
"""`english`: essays, abstracts, news, stories, answers; trained on texts whose licences allow it."""


def profile_path(name: str) -> Path:
    return Path(__file__).parent / name
