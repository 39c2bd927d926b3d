"""LoRA adapters in one network: rows with different ones run in one forward (PEFT's mixed batches)."""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from intarsia.errors import BadInput, first_line
from intarsia.models.names import known_models

if TYPE_CHECKING:
    from intarsia.models import Model

_HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")


def check_adapter(folder: Path, model: Model) -> None:
    """Raise `BadInput` unless a folder holds a LoRA adapter that is for this model, as far as it says.

    What an adapter may say: its base's name on the hub (`adapter_config.json`), the sha256 of its base's weights
    (`base_sha256` in `intarsia.json`), and the chat template it was trained with, kept beside it as tokenizers are
    saved."""
    file = folder / "adapter_config.json"
    if not file.is_file():
        raise BadInput(f"{folder} holds no adapter: expected adapter_config.json, as PEFT saves it")
    said = _json(file)
    if (kind := said.get("peft_type")) != "LORA":
        raise BadInput(
            f"{folder}: {kind} adapters cannot be chosen by request: merge it into the model, or give a LoRA"
        )
    if not (folder / "adapter_model.safetensors").is_file():
        raise BadInput(f"{folder} has no adapter_model.safetensors: save the adapter in that form")
    base, ours = said.get("base_model_name_or_path") or "", _hub_name(model)
    if ours and _HUB_ID.fullmatch(base) and _last(base) != _last(ours):
        raise BadInput(f"{folder} is an adapter of {base}, the model is {ours}: open that one")
    if wanted := _json(folder / "intarsia.json").get("base_sha256"):
        from intarsia.prompting.base.local.identity import weights_sha256

        if wanted not in (model.identity.sha256, weights_sha256(model)):
            raise BadInput(
                f"{folder} is an adapter of other weights (sha256 {wanted[:12]}...): open the model it is of"
            )
    template, here = _template(folder), getattr(model.tokenizer, "chat_template", None)
    if template is not None and template != here:
        marks = [hashlib.sha256(str(t).encode()).hexdigest()[:12] for t in (template, here)]
        raise BadInput(
            f"{folder} was trained with another chat template ({marks[0]}, the model's is {marks[1]}): give the model "
            "that template, or train the adapter with this one"
        )


def with_adapters(model: Model, folders: Mapping[str, Path]) -> Model:
    """A model whose network holds adapters by name. They are put into the network given: give a `shared` one."""
    from peft import PeftModel

    for folder in folders.values():
        check_adapter(folder, model)
    network: Any = model.network
    for name, folder in folders.items():
        try:
            if isinstance(network, PeftModel):
                network.load_adapter(str(folder), adapter_name=name)
            else:
                network = PeftModel.from_pretrained(network, str(folder), adapter_name=name)
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            raise BadInput(f"{folder} does not fit the network: {first_line(error, 200)}") from None
    return replace(model, network=network.eval())


def shared(network: Any) -> Any:
    """Another network with the same weights in memory: what is put into one is not in the other."""
    tensors = (*network.parameters(), *network.buffers())
    return copy.deepcopy(network, {id(tensor): tensor for tensor in tensors})


def _hub_name(model: Model) -> str | None:
    """The model's name on the hub, where it has one and is as it is there."""
    if model.identity.changes:
        return None
    if model.identity.source in (known := known_models()):
        return known[model.identity.source].hub
    kind, _, name = model.identity.origin.partition(":")
    return name if kind == "hub" else None


def _last(name: str) -> str:
    return name.rpartition("/")[2].casefold()


def _template(folder: Path) -> str | None:
    """The chat template kept beside an adapter."""
    if (file := folder / "chat_template.jinja").is_file():
        return file.read_text("utf-8")
    found = _json(folder / "tokenizer_config.json").get("chat_template")
    return found if isinstance(found, str) else None


def _json(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    except ValueError:
        raise BadInput(f"{file} is no JSON: the adapter is damaged") from None
    return found if isinstance(found, dict) else {}
