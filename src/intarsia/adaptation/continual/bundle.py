"""Skills on disk: each block a PEFT folder, the router beside them; and back again.

<folder>/skills/<task>/        adapter_config.json, adapter_model.safetensors: loads in PEFT, on the plain network
<folder>/skills/state.safetensors   the router, and what the method needs to go on
<folder>/intarsia.json         under `adaptation.continual`: method, layers, tasks, scores"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from intarsia.adaptation.continual.finding import StreamFinding
from intarsia.adaptation.continual.routing.attention import Attention
from intarsia.adaptation.continual.routing.closed import Closed
from intarsia.adaptation.continual.routing.features import device_of
from intarsia.adaptation.continual.routing.pool import Pool
from intarsia.adaptation.continual.routing.router import ByName, Router, Same
from intarsia.adaptation.continual.skills import Skills, attach, attach_prompts, skills_of
from intarsia.errors import BadInput
from intarsia.models.saved import Saved

if TYPE_CHECKING:
    from intarsia.adaptation.continual.methods import Method
    from intarsia.adaptation.continual.technique import ContinualConfig
    from intarsia.models import Model

FOLDER = "skills"
TECHNIQUE = "adaptation.continual"
AGAIN = ("transfer", "snapshot", "epi")  # methods that can be given a task again which they know
STATE = "state.safetensors"
FIXED = ("targets", "layers_from", "prompt_length", "per_layer")  # settings that a bundle keeps


# ---- state: blocks, router, method


def state_tensors(skills: Skills, method: Method | None) -> dict[str, Tensor]:
    """All tensors, by name."""
    out = {f"block.{name}": value for name, value in skills.tensors().items()}
    if skills.router is not None:
        out |= {f"router.{name}": value for name, value in skills.router.save().items()}
    state = method.state if method is not None else skills.kept
    return out | {f"method.{name}": value for name, value in state.items()}


def state_note(skills: Skills, method: Method | None) -> dict[str, Any]:
    """What is no tensor."""
    router = skills.router
    memory = method.keep() if method is not None else skills.memory
    return {
        "names": skills.names,
        "scales": skills.stacks[0].scales if len(skills.stacks) else [1.0] * len(skills.names),
        "layers": [stack.name for stack in skills.stacks],
        "prompts": {"length": skills.prompts.length, "joined": skills.prompts.joined} if skills.prompts else None,
        "router": {"kind": router.kind, **_settings(router)} if router is not None else None,
        "memory": memory,
    }


def load_state(skills: Skills, method: Method | None, saved: Saved) -> None:
    """Blocks, router and what a method keeps, into skills of the same layers."""

    def part(prefix: str) -> dict[str, Tensor]:
        return {n.removeprefix(prefix): t for n, t in saved.tensors.items() if n.startswith(prefix)}

    for name in list(skills.names):
        skills.drop(name)
    skills.load(saved.note["names"], part("block."), saved.note["scales"])
    if saved.note["router"] is not None:
        if skills.router is None or skills.router.kind != saved.note["router"]["kind"]:
            skills.router = _router(saved.note["router"], skills)
        skills.router.load(part("router."))
    skills.kept, skills.memory = part("method."), saved.note["memory"]
    if method is not None:
        take_state(method, saved.note)


def take_state(method: Method, had: dict[str, Any] | None) -> None:
    """What an earlier run left for the method, from the skills that were loaded."""
    if had is None:
        return
    method.state = dict(method.skills.kept)
    if method.skills.memory:
        method.take(method.skills.memory)


def _settings(router: Router) -> dict[str, Any]:
    if isinstance(router, Closed):
        return {"hard": router.hard}
    if isinstance(router, Attention):
        return {"width": router.width, "layers": router.layers}
    if isinstance(router, Pool):
        return {"size": len(router.keys), "width": router.keys.shape[1]}
    return {}


def _router(note: dict[str, Any], skills: Skills) -> Router:
    kinds = {kind.kind: kind for kind in (Same, ByName, Closed, Attention, Pool)}
    given = {key: value for key, value in note.items() if key != "kind"}
    return kinds[note["kind"]](**given).to(device_of(skills.embedding))


# ---- the folder


def write(skills: Skills, folder: Path) -> None:
    """All of it below a folder, blocks as PEFT has them."""
    root = folder / FOLDER
    root.mkdir()
    Saved(state_tensors(skills, None), state_note(skills, None)).write(root / STATE)
    for i, name in enumerate(skills.names):
        write_block(skills, i, root / safe(name))


def write_block(skills: Skills, index: int, folder: Path) -> None:
    """One block as a PEFT adapter of the plain network."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    if skills.prompts is not None:
        save_file({"prompt_embeddings": skills.prompts.rows[index].cpu().clone()}, folder / "adapter_model.safetensors")
        config: dict[str, Any] = {
            "peft_type": "PROMPT_TUNING", "num_virtual_tokens": skills.prompts.length, "inference_mode": True,
            "token_dim": skills.prompts.rows.shape[2], "num_transformer_submodules": 1,
            "task_type": "SEQ_2_SEQ_LM" if skills.door and skills.door.encoder else "CAUSAL_LM",
        }  # fmt: skip
        (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")
        return
    tensors, rank = {}, 1
    for stack in skills.stacks:
        down, up = stack.block(index)
        tensors[f"base_model.model.{stack.name}.lora_A.weight"] = down.detach().cpu().contiguous()
        tensors[f"base_model.model.{stack.name}.lora_B.weight"] = up.detach().cpu().contiguous()
        rank, scale = stack.ranks[index], stack.scales[index]
    save_file(tensors, folder / "adapter_model.safetensors", {"format": "pt"})
    config = {
        "peft_type": "LORA", "task_type": None, "inference_mode": True, "r": rank, "lora_alpha": scale * rank,
        "lora_dropout": 0.0, "bias": "none", "fan_in_fan_out": skills.transposed,
        "target_modules": [stack.name for stack in skills.stacks], "base_model_name_or_path": None,
    }  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")


def safe(name: str) -> str:
    """A task's name as that of a folder."""
    return re.sub(r"[^\w.-]+", "_", name).strip(".") or "task"


def restore(model: Model, note: dict[str, Any], folder: Path) -> Model:
    """`model` with the skills that were saved with it beside its network, in place."""
    file = folder / FOLDER / STATE
    saved = Saved.read(file)
    if saved is None:
        raise BadInput(f"{file} is missing: without it the model is the plain one; save it again")
    try:
        soft = saved.note["prompts"]
        skills = attach_prompts(model.network, **soft) if soft else attach(model.network, saved.note["layers"])
        load_state(skills, None, saved)
    except (KeyError, TypeError) as error:
        raise BadInput(f"{file} was written by another version of Intarsia: {error!r}") from None
    return model


# ---- what a model says of itself


def note(
    skills: Skills,
    method: Method,
    config: ContinualConfig,
    finding: StreamFinding,
    had: dict[str, Any] | None,
    instructions: dict[str, str],
) -> dict[str, Any]:
    """What travels as `model.extras["adaptation.continual"]`. `instructions`: of tasks that have one for all
    examples."""
    skills.kept = method.state
    skills.memory = method.keep()
    last = finding.tasks[-1].after
    told = {
        task.name: {
            "score": last[i] if i < len(last) else None, "judged": task.judged, "examples": task.examples,
            "instruction": instructions.get(task.name, ""),
        }
        for i, task in enumerate(finding.tasks)
    }  # fmt: skip
    had = had or {}
    return {
        "method": config.method,
        "template": config.template,
        "max_tokens": config.max_tokens,
        "max_answer": config.max_answer,
        **{name: had.get(name, _plain(getattr(config, name))) for name in FIXED},
        "tasks": {**had.get("tasks", {}), **told},
        "matrix": finding.matrix,
    }


def check(model: Model, config: ContinualConfig, names: Sequence[str]) -> dict[str, Any] | None:
    """What the model says of earlier tasks, if it has any. Raises `BadInput` where the config does not go with them."""
    skills, had = skills_of(model.network), model.extras.get(TECHNIQUE)
    there = [] if skills is None else [name for name in skills.names if name not in names]
    folders = [safe(name) for name in (*there, *names)]
    if twice := next((n for n in folders if folders.count(n) > 1 or n == STATE), None):
        raise BadInput(
            f"the folder '{twice}' of a task would not be its own: name it so that letters and digits differ"
        )
    if skills is None or had is None:
        return None
    if config.method != had["method"]:
        raise BadInput(
            f"this model was tuned by the method {had['method']}: give --method {had['method']}, or the plain model"
        )
    if config.template != had["template"]:
        raise BadInput(
            "this model was tuned with another template: leave it as it was, prompts would be told apart by it"
        )
    for name in FIXED:
        if name in config.model_fields_set and _plain(getattr(config, name)) != had[name]:
            raise BadInput(f"this model was tuned with {name} {had[name]}: leave it out, its blocks have that form")
    known = next((name for name in names if name in had["tasks"]), None)
    if known and config.method not in AGAIN:
        raise BadInput(
            f"the task '{known}' is there already; the method {config.method} cannot go on with it: rename it"
        )
    return had


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def merged(skills: Skills, network: Any, weights: Tensor) -> None:
    """Fold the blocks into the layers with fixed weights, [block] or [layer, block], and take the skills off, in
    place. Raises `BadInput` for a layer that is no plain one (quantized, say)."""
    from transformers.pytorch_utils import Conv1D

    from intarsia.adaptation.continual.skills import detach

    modules = dict(network.named_modules())
    if odd := next((s.name for s in skills.stacks if type(modules[s.name]) not in (torch.nn.Linear, Conv1D)), None):
        raise BadInput(f"{odd} is a {type(modules[odd]).__name__}: fold before you quantize, or dequantize first")
    with torch.no_grad():
        for stack in skills.stacks:
            own = weights if weights.dim() == 1 else weights[stack.layer]
            update = sum(
                weight * scale * (up @ down)
                for weight, scale, (down, up) in zip(
                    own.tolist(), stack.scales, map(stack.block, range(len(stack.ranks))), strict=True
                )
            )
            weight = modules[stack.name].weight
            weight += (update.T if skills.transposed else update).to(weight)  # type: ignore[union-attr]
    detach(network)
