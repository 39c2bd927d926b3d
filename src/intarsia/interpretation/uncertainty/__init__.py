"""How sure a model is of its own answers, and which signs of being unsure tell when it is wrong."""

from intarsia.interpretation.uncertainty.asking import Uncertainty, UncertaintyConfig, uncertainty
from intarsia.interpretation.uncertainty.errors import Hallucination, HallucinationConfig, hallucination

__all__ = [
    "Hallucination",
    "HallucinationConfig",
    "Uncertainty",
    "UncertaintyConfig",
    "hallucination",
    "uncertainty",
]
