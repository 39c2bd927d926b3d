"""Patchscopes: a state of one prompt is put into another prompt, and what the model makes of it is read.

- `operator`: `patch(source, target)`, which everything here is a setting of.
- `patchscope`: look at the states of a prompt; `token_identity`, `attributes`, `describe_entity`, `cross_model`,
  `multihop`: the paper's experiments with their prompts and protocols, each beside its controls.
- `mapping`: affine maps between two models (`map_states` fits them)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from intarsia.interpretation.patchscopes.attributes import Attributes, AttributesConfig, attributes
from intarsia.interpretation.patchscopes.cross_model import CrossModel, CrossModelConfig, cross_model
from intarsia.interpretation.patchscopes.describe_entity import DescribeEntity, DescribeEntityConfig, describe_entity
from intarsia.interpretation.patchscopes.map_states import MapStatesConfig, map_states
from intarsia.interpretation.patchscopes.mapping import StateMaps
from intarsia.interpretation.patchscopes.multihop import Multihop, MultihopConfig, multihop
from intarsia.interpretation.patchscopes.patchscope import Patchscope, PatchscopeConfig, patchscope
from intarsia.interpretation.patchscopes.token_identity import TokenIdentity, TokenIdentityConfig, token_identity
from intarsia.lazy import lazily

if TYPE_CHECKING:
    from intarsia.interpretation.patchscopes.identity_reading import identity_log_probs
    from intarsia.interpretation.patchscopes.operator import Patched, Source, Target, patch

# The operator works on tensors: it is imported when it is first used, so that a listing of techniques stays light.
_HOMES = {
    **dict.fromkeys(("Patched", "Source", "Target", "patch"), "operator"),
    "identity_log_probs": "identity_reading",
}

__all__ = [
    "Attributes",
    "AttributesConfig",
    "CrossModel",
    "CrossModelConfig",
    "DescribeEntity",
    "DescribeEntityConfig",
    "MapStatesConfig",
    "Multihop",
    "MultihopConfig",
    "Patched",
    "Patchscope",
    "PatchscopeConfig",
    "Source",
    "StateMaps",
    "Target",
    "TokenIdentity",
    "TokenIdentityConfig",
    "attributes",
    "cross_model",
    "describe_entity",
    "identity_log_probs",
    "map_states",
    "multihop",
    "patch",
    "patchscope",
    "token_identity",
]

__getattr__ = lazily(__name__, _HOMES)
