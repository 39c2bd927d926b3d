"""`Shard`: what one rank holds of a network - all that is not an expert, and of the experts those placed on it.

From a folder only those tensors are read (safetensors opens single tensors, and slices of fused ones); the rest of the
file is never in memory."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from intarsia.errors import BadInput
from intarsia.models import folders
from intarsia.moe.placement.placement import Placement
from intarsia.moe.runtime.experts import PlacedExperts
from intarsia.sites import exchange

# What a fused tensor is called, and the names of its parts where every expert has tensors of its own.
_PARTS = {"gate_up_proj": (("gate_proj", "up_proj"), ("w1", "w3")), "down_proj": (("down_proj",), ("w2",))}


@dataclass(frozen=True)
class Memory:
    """What a rank holds, in bytes.

    - experts: weights of the experts placed on it; replicated: of everything else; resident: of the whole process."""

    experts: int
    replicated: int
    resident: int


class Shard:
    """One rank's part of a network.

    - network: a plain transformers network whose experts modules are `PlacedExperts`.
    - layers: those modules, by routed layer."""

    def __init__(self, network: Any, placement: Placement, rank: int, layers: list[PlacedExperts]):
        self.network, self.placement, self.rank, self.layers = network, placement, rank, layers

    @classmethod
    def of(cls, network: Any, placement: Placement, rank: int) -> Shard:
        """From a network in memory, which stays as it is."""
        found = _experts_of(network, placement)
        memo: dict[int, Any] = {}
        for layer, (_, module) in enumerate(found):
            held = placement.held(layer, rank)
            for parameter in module.parameters(recurse=False):
                memo[id(parameter)] = nn.Parameter(parameter.detach()[held].clone(), requires_grad=False)
        own = copy.deepcopy(network, memo).eval()
        return cls(own, placement, rank, _place(own, placement, rank, [name for name, _ in found]))

    @classmethod
    def load(cls, folder: str | Path, placement: Placement, rank: int, dtype: Any = None) -> Shard:
        """From a model folder. dtype: None: float32; "auto": as the weights are kept.

        Raises `BadInput`: no such folder, a checkpoint that cannot be split, or a placement of another model."""
        reader = _Reader(Path(folder))
        if reader.config.get("quantization_config"):
            raise BadInput(f"{folder} is quantized: experts are split over ranks in plain weights only")
        network = _skeleton(Path(folder), reader.dtype() if dtype == "auto" else dtype or torch.float32)
        found = _experts_of(network, placement)
        with reader.opened():
            for layer, (name, module) in enumerate(found):
                held = placement.held(layer, rank)
                for key, parameter in list(module.named_parameters(recurse=False)):
                    _put(module, key, reader.experts(f"{name}.{key}", held, parameter), parameter.dtype)
            inside = {f"{name}.{key}" for name, module in found for key, _ in module.named_parameters(recurse=False)}
            missing = []
            for name, tensor in list(network.state_dict(keep_vars=True).items()):
                path, _, key = name.rpartition(".")
                if name in inside:
                    continue
                if (read := reader.get(name, tensor)) is None:
                    missing.append(name)
                else:
                    _put(network.get_submodule(path), key, read, tensor.dtype)
        network.tie_weights()
        tensors = network.state_dict(keep_vars=True)
        known = {id(tensor) for name, tensor in tensors.items() if name not in missing}
        if missing := [name for name in missing if id(tensors[name]) not in known]:  # (not tied to one that is there)
            raise BadInput(f"{folder} has no weights for {missing[0]} ({len(missing)} missing): it is not whole")
        return cls(network.eval(), placement, rank, _place(network, placement, rank, [name for name, _ in found]))

    def memory(self) -> Memory:
        """What this rank holds."""
        experts = {id(t): t for layer in self.layers for t in layer.inner.parameters()}
        every = {id(t): t for t in (*self.network.parameters(), *self.network.buffers())}
        size = {key: t.untyped_storage().nbytes() for key, t in every.items()}
        inside = sum(size[key] for key in experts)
        return Memory(inside, sum(size.values()) - inside, psutil.Process().memory_info().rss)


def shape_of(folder: str | Path) -> tuple[int, int]:
    """Routed layers of a model folder, and experts of each; no weights are read.

    Raises `BadInput` for a folder that is none, or a network without experts."""
    reader = _Reader(Path(folder))
    network = _skeleton(Path(folder), reader.dtype())
    found = _fused(network)
    return len(found), len(next(p for p in found[0][1].parameters(recurse=False) if p.dim() == 3))


def _experts_of(network: nn.Module, placement: Placement) -> list[tuple[str, nn.Module]]:
    """Name and module of every layer's experts: those that own a tensor of [expert, ., .].

    Raises `BadInput` where the network has none, or the placement is for other ones."""
    found = _fused(network)
    counts = {len(p) for _, module in found for p in module.parameters(recurse=False)}
    if len(found) != len(placement.device_of) or counts != {placement.experts}:
        raise BadInput(
            f"the placement is for {len(placement.device_of)} routed layers of {placement.experts} experts, "
            f"{type(network).__name__} has {len(found)} of {'/'.join(map(str, sorted(counts)))}"
        )
    return found


def _fused(network: nn.Module) -> list[tuple[str, nn.Module]]:
    found = [
        (name, module)
        for name, module in network.named_modules()
        if hasattr(module, "num_experts") and any(p.dim() == 3 for p in module.parameters(recurse=False))
    ]
    if not found:
        raise BadInput(f"{type(network).__name__} has no fused experts: a mixture-of-experts network is wanted")
    return found


def _place(network: nn.Module, placement: Placement, rank: int, names: Sequence[str]) -> list[PlacedExperts]:
    layers = []
    for layer, name in enumerate(names):
        inner = network.get_submodule(name)
        held = placement.held(layer, rank)
        inner.num_experts = len(held)  # type: ignore[assignment]
        exchange(network, name, PlacedExperts(inner, held, placement.experts))
        layers.append(network.get_submodule(name))
    eager = any(p.dtype == torch.float64 for p in network.parameters())
    if eager and hasattr(network, "set_experts_implementation"):
        network.set_experts_implementation("eager")  # the grouped product knows no float64
    return layers  # type: ignore[return-value]


def _put(module: nn.Module, key: str, tensor: Tensor, dtype: torch.dtype) -> None:
    tensor = tensor.to(dtype) if tensor.is_floating_point() else tensor
    if key in module._parameters:
        module._parameters[key] = nn.Parameter(tensor, requires_grad=False)
    else:
        module._buffers[key] = tensor


class _EmptyOnMeta(TorchFunctionMode):
    """Tensors made without a value take no memory; those with one (norms, position tables) are real."""

    def __torch_function__(self, function: Any, types: Any, args: tuple = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if function is torch.empty:
            kwargs["device"] = "meta"
        return function(*args, **kwargs)


def _skeleton(folder: Path, dtype: torch.dtype) -> Any:
    import transformers as tf

    try:
        config = tf.AutoConfig.from_pretrained(folder, local_files_only=True)
    except Exception as error:
        raise BadInput(f"{folder}: transformers cannot read its config ({str(error).splitlines()[0]})") from error
    chosen = folders.network_class(config, None)
    chosen = chosen if hasattr(chosen, "config_class") else tf.AutoModelForCausalLM
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with _EmptyOnMeta(), folders.quiet():
            config.dtype = dtype
            made = chosen(config) if chosen is not tf.AutoModelForCausalLM else chosen.from_config(config, dtype=dtype)
    finally:
        torch.set_default_dtype(before)
    return made


class _Reader:
    """The tensors of a checkpoint by the names they have in the network."""

    def __init__(self, folder: Path):
        if not folder.is_dir():
            raise BadInput(f"{folder} is no folder: give a model folder with safetensors in it")
        self.config = folders.read_config(folder)
        self.files = folders.weight_files(folder)
        self._where: dict[str, tuple[Any, str]] = {}

    def dtype(self) -> torch.dtype:
        """The type the config says the weights have."""
        name = self.config.get("dtype") or self.config.get("torch_dtype") or "float32"
        return getattr(torch, str(name).removeprefix("torch."))

    @contextlib.contextmanager
    def opened(self) -> Iterator[None]:
        """Inside, tensors can be read."""
        from safetensors import safe_open

        with contextlib.ExitStack() as stack:
            for file in self.files:
                handle = stack.enter_context(safe_open(file, "pt"))
                for key in handle.keys():  # noqa: SIM118 (no mapping)
                    self._where[_name(key)] = (handle, key)
            yield
        self._where = {}

    def get(self, name: str, like: Tensor) -> Tensor | None:
        """A tensor, or None where the checkpoint does not have it. Raises `BadInput` when its shape is another."""
        found = self._where.get(name) or self._where.get(name.removeprefix("model."))
        if found is None:
            return None
        tensor = found[0].get_tensor(found[1])
        if tensor.shape != like.shape:
            raise BadInput(
                f"{found[1]} is {list(tensor.shape)} in the checkpoint, the network wants {list(like.shape)}"
            )
        return tensor

    def experts(self, name: str, held: list[int], like: Tensor) -> Tensor:
        """The rows of a fused tensor [expert, ...] that belong to the held experts; nothing else of it is read."""
        if (whole := self._where.get(name) or self._where.get(name.removeprefix("model."))) is not None:
            cut = whole[0].get_slice(whole[1])
            rows = [cut[e : e + 1] for e in held]
            return torch.cat(rows) if rows else torch.empty(0, *like.shape[1:])
        path, _, key = name.rpartition(".")
        for parts in _PARTS.get(key, ()):
            if f"{path}.0.{parts[0]}.weight" in self._where:
                rows = [torch.cat([self._single(path, e, part) for part in parts]) for e in held]
                made = torch.stack(rows) if rows else torch.empty(0, *like.shape[1:])
                if made.shape[1:] != like.shape[1:]:
                    raise BadInput(f"experts of {path} are {list(made.shape[1:])}, wanted {list(like.shape[1:])}")
                return made
        raise BadInput(f"the checkpoint has no experts under {path} that this can split ({key})")

    def _single(self, path: str, expert: int, part: str) -> Tensor:
        name = f"{path}.{expert}.{part}.weight"
        if name not in self._where:
            raise BadInput(f"the checkpoint has no {name}: a whole checkpoint is wanted")
        handle, key = self._where[name]
        return handle.get_tensor(key)


def _name(key: str) -> str:
    """A checkpoint's name for a tensor as the network has it."""
    return key.replace(".block_sparse_moe.", ".mlp.")
