"""Detectors that come with Intarsia, by name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from intarsia.detection.detector import Detector

PROFILES = ("english",)
"""`english`: essays, abstracts, news, stories, answers; trained on texts whose licences allow it."""


PROFILES_FOLDER = Path(__file__).absolute().parent


def profile_path(name: str) -> Path:
    return PROFILES_FOLDER / name


@dataclass(frozen=True)
class SavedDetector:
    """Where a detector lies, as a command line names it."""

    path: Path

    @staticmethod
    def open(text: str | Path) -> SavedDetector:
        """From a folder's path; whether there is a detector is seen when it is loaded."""
        return SavedDetector(Path(text))

    def load(self) -> Detector:
        """The detector. Raises `BadInput` where there is none."""
        from intarsia.detection.detector import Detector

        return Detector.open(self.path)
