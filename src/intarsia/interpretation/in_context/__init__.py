"""Explaining by the prompt: which demonstrations matter, whether a chain of thought carries the answer, whether an
explanation names what moved the answer, and whether it lets one tell the next."""

from intarsia.interpretation.in_context.bias import BiasTest, BiasTestConfig, bias_test
from intarsia.interpretation.in_context.chain import ChainOfThought, ChainOfThoughtConfig, chain_of_thought
from intarsia.interpretation.in_context.demonstrations import Demonstrations, DemonstrationsConfig, demonstrations
from intarsia.interpretation.in_context.simulation import Simulatability, SimulatabilityConfig, simulatability

__all__ = [
    "BiasTest",
    "BiasTestConfig",
    "ChainOfThought",
    "ChainOfThoughtConfig",
    "Demonstrations",
    "DemonstrationsConfig",
    "Simulatability",
    "SimulatabilityConfig",
    "bias_test",
    "chain_of_thought",
    "demonstrations",
    "simulatability",
]
