"""Neurons and heads: what excites them, what they write, and what goes wrong without them.

- `neurons`: statistics and top activating texts of every neuron, in one pass.
- `explain_neuron`: an explanation in words, and how well it predicts the neuron.
- `ablate`: take out neurons, heads, attention, MLPs or blocks, and rank them by the damage."""

from intarsia.interpretation.neurons.ablate import Ablate, AblateConfig, ablate
from intarsia.interpretation.neurons.explain_neuron import ExplainNeuron, ExplainNeuronConfig, explain_neuron
from intarsia.interpretation.neurons.neurons import Neurons, NeuronsConfig, neurons

__all__ = [
    "Ablate",
    "AblateConfig",
    "ExplainNeuron",
    "ExplainNeuronConfig",
    "Neurons",
    "NeuronsConfig",
    "ablate",
    "explain_neuron",
    "neurons",
]
