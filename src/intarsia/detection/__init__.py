"""Detection: whose text is it, a person's or a machine's?

- `check`: documents, with a verdict that keeps a false-positive budget, how sure it is, and the passages it rests on.
- `train`, `calibrate`: a detector of one's own, and banks of people's texts of one's own kind.
- `references`: what a machine writes on a topic, to compare with.
- `evaluate`: detectors and published methods under one protocol.
- `register_detector`: makes a method of one's own known."""

from __future__ import annotations

from intarsia.detection.calibrate import CalibrateConfig, calibrate
from intarsia.detection.check import CheckConfig, check
from intarsia.detection.documents import Documents
from intarsia.detection.evaluate import EvaluateConfig, evaluate
from intarsia.detection.profiles import SavedDetector
from intarsia.detection.references import ReferencesConfig, Topic, references
from intarsia.detection.train import TrainConfig, train
from intarsia.lazy import lazily

# What needs numpy is imported when it is first used: the catalog imports this module to answer `--help`.
_HOMES = {"Detector": "detector", "register_detector": "methods"}

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

__getattr__ = lazily(__name__, _HOMES)
