"""How far the weights of two networks are apart, module by module.

A module's role is its path inside the block (`self_attn.q_proj`), so that the same role lines up over all layers.
Quantized modules count as what they compute with, their dequantized `.weight`; unmerged LoRA adapters as merged."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from torch import Tensor, nn

from intarsia.interpretation.model_diff.finding import WeightDiff

Getter = Callable[[], Tensor]


def tensors(module: nn.Module, skip: Iterable[nn.Module] = ()) -> dict[str, Getter]:
    """Every weight and bias under `module` by role, as a function that gets it: only one is dequantized at a time.

    What lies under the modules in `skip` is left out. A tied tensor stands under each of its names."""
    skipped = {id(part) for part in skip}
    found: dict[str, Getter] = {}
    closed: list[str] = []  # prefixes that are not walked into
    for path, part in module.named_modules(remove_duplicate=False):
        if any(path.startswith(prefix) for prefix in closed):
            continue
        if id(part) in skipped:
            closed.append(f"{path}.")
            continue
        if hasattr(part, "get_base_layer") and hasattr(part, "get_delta_weight"):  # a PEFT LoRA layer
            closed.append(f"{path}.")
            found[path] = partial(_merged, part)
            continue
        own = dict(part.named_parameters(recurse=False))
        if isinstance(getattr(type(part), "weight", None), property):  # a quantized layer
            found[path] = partial(getattr, part, "weight")
            own = {name: tensor for name, tensor in own.items() if name == "bias"}
            if isinstance(bias := getattr(part, "bias", None), Tensor):
                own["bias"] = bias  # a buffer here, a parameter in the layer it replaced
        for name, tensor in own.items():
            role = path if name == "weight" else f"{path}.{name}"
            found[role.strip(".")] = partial(_itself, tensor)
    return found


def _itself(tensor: Tensor) -> Tensor:
    return tensor


def _merged(part: nn.Module) -> Tensor:
    weight = part.get_base_layer().weight
    if not getattr(part, "merged", False):
        for adapter in part.active_adapters:
            if adapter in part.lora_A:
                weight = weight + part.get_delta_weight(adapter).to(weight.dtype)
    return weight


def distance(before: Tensor, after: Tensor) -> float:
    """Relative Frobenius norm of the change; exactly 0 for equal tensors, 1 where all of `before` was zero."""
    before, after = before.detach().float(), after.detach().to(before.device).float()
    gap = float((after - before).norm())
    return gap / (float(before.norm()) or gap) if gap else 0.0


def compare(
    before: dict[str, Getter], after: dict[str, Getter], layer: int | None = None
) -> tuple[list[WeightDiff], int]:
    """The change of every tensor found in both with the same shape, and how many found no such partner.

    What is tied in both is compared once, under its first name."""
    changes = []
    tied: set[tuple[int, int]] = set()
    unmatched = len(before.keys() ^ after.keys())
    for role in (role for role in before if role in after):
        a, b = before[role](), after[role]()
        if isinstance(a, nn.Parameter) and isinstance(b, nn.Parameter):
            if (id(a), id(b)) in tied:
                continue
            tied.add((id(a), id(b)))
        if a.shape == b.shape:
            changes.append(WeightDiff(layer=layer, role=role, distance=distance(a, b), count=a.numel()))
        else:
            unmatched += 1
    return changes, unmatched
