"""Words: what a model says about its own reasons, and whether that is so."""

from intarsia.interpretation.words.self_explanation import SelfExplanation, SelfExplanationConfig, self_explanation

__all__ = ["SelfExplanation", "SelfExplanationConfig", "self_explanation"]
