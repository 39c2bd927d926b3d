"""Concepts as directions: learnt from examples, tested for what they do to an answer, added and taken out.

- `concept`: a direction in every layer from positive and negative texts, saved beside the model.
- `tcav`: whether the model's answer is sensitive to it.
- `steer`: what writing it into the stream does to what the model says, dose by dose.
- `erase`: what is lost when no linear probe can read it any more."""

from intarsia.interpretation.concepts.concept import ConceptConfig, LearnConcept, concept
from intarsia.interpretation.concepts.erase import Erase, EraseConfig, erase
from intarsia.interpretation.concepts.steer import Steer, SteerConfig, steer
from intarsia.interpretation.concepts.tcav import Tcav, TcavConfig, tcav
from intarsia.interpretation.concepts.vectors import Concept

__all__ = [
    "Concept",
    "ConceptConfig",
    "Erase",
    "EraseConfig",
    "LearnConcept",
    "Steer",
    "SteerConfig",
    "Tcav",
    "TcavConfig",
    "concept",
    "erase",
    "steer",
    "tcav",
]
