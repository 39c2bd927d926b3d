"""Evaluation: a prompt and a model, or a store, on a set; intervals, gates, and numbers that can be replayed."""

from intarsia.prompting.execute.evaluating.evaluate import Evaluation
from intarsia.prompting.execute.evaluating.figures import earlier
from intarsia.prompting.execute.evaluating.finding import EvalFinding, GateResult, Row
from intarsia.prompting.execute.evaluating.metrics import metric_of
from intarsia.prompting.execute.evaluating.retrieval import RetrievalEvaluation, retrieval_metric

__all__ = [
    "EvalFinding",
    "Evaluation",
    "GateResult",
    "RetrievalEvaluation",
    "Row",
    "earlier",
    "metric_of",
    "retrieval_metric",
]
