"""A merged model from its folder: the rules from `intarsia.json`, the cross tokens from the weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from intarsia.errors import BadInput
from intarsia.models import Model
from intarsia.models.folders import weight_files
from intarsia.sites.recomposing import NAME, installed
from intarsia.tokens.plan import Plan
from intarsia.tokens.planning import put


def restore(model: Model, plans: dict[str, Any], folder: Path) -> Model:
    """`model` with the plans that were saved with it put on, in place.

    transformers has passed over the cross tokens, which it has no place for: they are read here."""
    try:
        known = {name: Plan.from_json(value) for name, value in plans.items()}
    except TypeError as error:
        raise BadInput(f"{folder}: its merged tokens were written by another version of Intarsia: {error}") from None
    put(model, known)
    wanted = {f"{NAME}.{k}": v for k, v in getattr(model.network, NAME, torch.nn.Module()).state_dict().items()}
    if not wanted:
        return model
    from safetensors import safe_open

    found = {}
    for file in weight_files(folder):
        with safe_open(file, "pt") as held:
            found.update({key: held.get_tensor(key) for key in held.keys() if key in wanted})  # noqa: SIM118
    if missing := wanted.keys() - found.keys():
        raise BadInput(f"{folder}: the weights lack {', '.join(sorted(missing))}: save the merged model again")
    with torch.no_grad():
        for key, tensor in wanted.items():
            tensor.copy_(found[key])
    assert installed(model.network)
    return model
