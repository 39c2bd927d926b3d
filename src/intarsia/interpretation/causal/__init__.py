"""Causal methods: change what happens inside a run, and see what becomes of the answer."""

from intarsia.interpretation.causal.activation_patching import (
    ActivationPatching,
    ActivationPatchingConfig,
    activation_patching,
)
from intarsia.interpretation.causal.attention_knockout import (
    AttentionKnockout,
    AttentionKnockoutConfig,
    attention_knockout,
)
from intarsia.interpretation.causal.attribution_patching import (
    AttributionPatching,
    AttributionPatchingConfig,
    attribution_patching,
)
from intarsia.interpretation.causal.causal_tracing import CausalTracing, CausalTracingConfig, causal_tracing
from intarsia.interpretation.causal.circuit import Circuit, CircuitConfig, circuit
from intarsia.interpretation.causal.direct_logit_attribution import (
    DirectLogitAttribution,
    DirectLogitAttributionConfig,
    direct_logit_attribution,
)
from intarsia.interpretation.causal.patch_back import PatchBack, PatchBackConfig, patch_back
from intarsia.interpretation.causal.path_patching import PathPatching, PathPatchingConfig, path_patching

__all__ = [
    "ActivationPatching",
    "ActivationPatchingConfig",
    "AttentionKnockout",
    "AttentionKnockoutConfig",
    "AttributionPatching",
    "AttributionPatchingConfig",
    "CausalTracing",
    "CausalTracingConfig",
    "Circuit",
    "CircuitConfig",
    "DirectLogitAttribution",
    "DirectLogitAttributionConfig",
    "PatchBack",
    "PatchBackConfig",
    "PathPatching",
    "PathPatchingConfig",
    "activation_patching",
    "attention_knockout",
    "attribution_patching",
    "causal_tracing",
    "circuit",
    "direct_logit_attribution",
    "patch_back",
    "path_patching",
]
