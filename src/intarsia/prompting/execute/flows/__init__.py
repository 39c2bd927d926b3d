"""Flows: plain functions whose steps are recorded, and which go on where they stopped."""

from intarsia.prompting.execute.flows.approving import Waiting, answering, approve, ask_person, questions
from intarsia.prompting.execute.flows.flow import Done, Flow, flow
from intarsia.prompting.execute.flows.helpers import Failed, SomeFailed, TimedOut, map_many, retry, within
from intarsia.prompting.execute.flows.steps import step

__all__ = [
    "Done",
    "Failed",
    "Flow",
    "SomeFailed",
    "TimedOut",
    "Waiting",
    "answering",
    "approve",
    "ask_person",
    "flow",
    "map_many",
    "questions",
    "retry",
    "step",
    "within",
]
