"""Probing: what can be read off a model's states or its scores about a label, a tree or a rule of grammar.

- `probe`: a label, layer by layer, with a control task, and whether the model uses what the probe found.
- `structural_probe`: the distances of a syntax tree.
- `minimal_pairs`, `perturbed_masking`: without fitting anything."""

from intarsia.interpretation.probing.minimal_pairs import MinimalPairs, MinimalPairsConfig, minimal_pairs
from intarsia.interpretation.probing.perturbed_masking import (
    PerturbedMasking,
    PerturbedMaskingConfig,
    perturbed_masking,
)
from intarsia.interpretation.probing.probe import Probe, ProbeConfig, probe
from intarsia.interpretation.probing.structural_probe import (
    StructuralProbe,
    StructuralProbeConfig,
    structural_probe,
)

__all__ = [
    "MinimalPairs",
    "MinimalPairsConfig",
    "PerturbedMasking",
    "PerturbedMaskingConfig",
    "Probe",
    "ProbeConfig",
    "StructuralProbe",
    "StructuralProbeConfig",
    "minimal_pairs",
    "perturbed_masking",
    "probe",
    "structural_probe",
]
