"""`detection.calibrate`: a bank of people's texts of one's own domain."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pydantic
from pydantic import Field

from intarsia.catalog import Config, technique
from intarsia.detection.profiles import PROFILES_FOLDER, SavedDetector
from intarsia.errors import BadInput
from intarsia.report import Column, Finding, Table


class CalibrateConfig(Config):
    """Settings of a new bank."""

    humans: str = Field(description="a file or folder of texts that people wrote; a hundred and more of them")
    domain: str = Field(description="what to call this kind of text")
    language: str = Field("", description="ISO 639-1; default: what the texts read as")
    replace: bool = Field(False, description="take the place of a bank of that name")
    copy_to: str | None = Field(
        None,
        description="a folder for the detector with its new bank; default: where it lies",
    )
    accept_group_risk: bool = Field(
        False, description="keep the bank although people of some group in it would be flagged too often"
    )


class GroupRate(pydantic.BaseModel):
    """People of one group: how many of their texts the other half of the bank would flag, with its exact interval."""

    group: str
    texts: int
    rate: tuple[float, float, float]


class Calibrated(Finding):
    """- domain, texts, words: of the bank; words: of its shortest, middle and longest text. reach: the smallest
    false-positive rate it can vouch for. groups: false-positive rates by group of writers, at the budget."""

    domain: str = ""
    texts: int = 0
    language: str = ""
    words: tuple[int, int, int] = (0, 0, 0)
    reach: float = 1.0
    groups: list[GroupRate] = Field(default_factory=list)
    budget: float = 0.05

    def tables(self) -> list[Table]:
        columns = [
            Column(name="bank"), Column(name="texts", format=",d"), Column(name="words"),
            Column(name="smallest rate it vouches for", format=".2%", better="lower"),
        ]  # fmt: skip
        low, middle, high = self.words
        rows: list[list[Any]] = [[self.domain, self.texts, f"{low} to {high}, {middle} in the middle", self.reach]]
        out = [Table(title="Bank", columns=columns, rows=rows)]
        if self.groups:
            out.append(Table(
                title=f"People flagged at {self.budget:.0%}, by group",
                rows=[[g.group, g.texts, g.rate] for g in self.groups],
                columns=[Column(name="group"), Column(name="texts", format=",d"), Column(name="flagged", format=".1%")],
                note="Half of the bank judges the other half. Intervals are exact, at 95 %.",
            ))  # fmt: skip
        return out


@technique(
    "detection.calibrate",
    kind="learn",
    family="detection",
    source="conformal prediction: Vovk et al. 2005, §2.2, §4.5; groups of writers: Liang et al. 2023",
    needs="documents",
    gives="Calibrated",
    extra="detect",
    in_place=True,
    example={"subject": "detector", "humans": "papers", "domain": "papers"},
)
def calibrate(detector: SavedDetector, config: CalibrateConfig) -> Calibrated:
    """Add a bank of people's texts to a detector, so that documents of their kind are judged by them.

    A bank of n texts can vouch for a false-positive rate of 1 / (n + 1): 99 texts for 1 %, 19 for 5 %. Take texts from
    before 2022, or such as you saw being written. Where the texts say who their writers are (a column `writers`), the
    rates of each group are told, and a bank under which a group would be flagged more often than the budget is refused
    unless you accept it.

    - DETECTOR: a folder that `detection train` made; or a `Detector` that was saved.

    Raises `BadInput` for texts that are too few or too short, and for a bank that is there already."""
    from intarsia.data.documents import read_documents
    from intarsia.detection.calibration.calibrating import add
    from intarsia.measure.provenance import provenance

    opened = detector.load() if isinstance(detector, SavedDetector) else detector
    home = Path(config.copy_to).expanduser().absolute() if config.copy_to is not None else opened.folder
    if home is None:
        raise BadInput("a detector that is kept nowhere cannot be changed: save it first, or give copy_to")
    if home.is_relative_to(PROFILES_FOLDER):
        raise BadInput(
            f"'{home.name}' comes with Intarsia and stays as it is: give a folder for its changed copy (--copy-to)"
        )
    if home != opened.folder and home.exists() and (home.is_file() or any(home.iterdir())):
        raise BadInput(f"{home} is there already: give another --copy-to")
    found = add(
        opened, read_documents(config.humans), config.domain, language=config.language, replace=config.replace,
        accept_group_risk=config.accept_group_risk, source=config.humans,
    )  # fmt: skip
    opened.save(home, force=home == opened.folder)
    settings = config.model_dump(mode="json")
    return found.model_copy(update={"provenance": provenance(scorer=opened.scorer, settings=settings)})
