"""Detection: whose text is it, a person's or a machine's?

- `check`: documents, with a verdict that keeps a false-positive budget, how sure it is, and the passages it rests on.
- `train`, `calibrate`: a detector of one's own, and banks of people's texts of one's own kind.
- `references`: what a machine writes on a topic, to compare with.
- `evaluate`: detectors and published methods under one protocol.
- `register_detector`: makes a method of one's own known."""

from intarsia.detection.calibrate import CalibrateConfig, calibrate
from intarsia.detection.check import CheckConfig, check
from intarsia.detection.detector import Detector
from intarsia.detection.documents import Documents
from intarsia.detection.evaluate import EvaluateConfig, evaluate
from intarsia.detection.methods import register_detector
from intarsia.detection.references import ReferencesConfig, Topic, references
from intarsia.detection.train import TrainConfig, train

__all__ = [
    "CalibrateConfig",
    "CheckConfig",
    "Detector",
    "Documents",
    "EvaluateConfig",
    "ReferencesConfig",
    "Topic",
    "TrainConfig",
    "calibrate",
    "check",
    "evaluate",
    "references",
    "register_detector",
    "train",
]
