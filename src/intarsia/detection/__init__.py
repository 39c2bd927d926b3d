"""Detection: whose text is it, a person's or a machine's?

- `check`: documents, with a verdict that keeps a false-positive budget, how sure it is, and the passages it rests on.
- `train`, `calibrate`: a detector of one's own, and banks of people's texts of one's own kind.
- `references`: what a machine writes on a topic, to compare with.
- `evaluate`: detectors and published methods under one protocol.
- `register_detector`: makes a method of one's own known."""

from __future__ import annotations

import importlib
from typing import Any

from intarsia.detection.calibrate import CalibrateConfig, calibrate
from intarsia.detection.check import CheckConfig, check
from intarsia.detection.documents import Documents
from intarsia.detection.evaluate import EvaluateConfig, evaluate
from intarsia.detection.profiles import SavedDetector
from intarsia.detection.references import ReferencesConfig, Topic, references
from intarsia.detection.train import TrainConfig, train

__all__ = [
    "CalibrateConfig",
    "CheckConfig",
    "Detector",
    "Documents",
    "EvaluateConfig",
    "ReferencesConfig",
    "SavedDetector",
    "Topic",
    "TrainConfig",
    "calibrate",
    "check",
    "evaluate",
    "references",
    "register_detector",
    "train",
]

# What needs numpy is imported when it is first used: the catalog imports this module to answer `--help`.
_HOMES = {"Detector": "intarsia.detection.detector", "register_detector": "intarsia.detection.methods"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
