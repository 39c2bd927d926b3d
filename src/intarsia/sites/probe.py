"""One short forward that shows how each block is wired: what came in and went out of every module inside it.

The site map is not a table of architectures: it is read off this record. What attention and MLP add to the residual
stream is found by looking which module outputs sum to what the stream gained."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from intarsia.sites.towers import Tower


@dataclass
class Call:
    """One call of a module during the probe: its first tensor in and out, in call order."""

    path: str
    module: nn.Module
    taken: Tensor | None
    given: Tensor | None
    output: Any
    order: int


@dataclass
class Probe:
    """The record: block index -> its calls, by path relative to the block ("" is the block itself)."""

    calls: dict[tuple[str, int], list[Call]]
    after: dict[str, list[Call]]
    attention_seen: dict[nn.Module, int]
    error: str | None = None


def first_tensor(args: tuple, kwargs: dict) -> Tensor | None:
    """The hidden state a module was given: the first positional tensor, else `hidden_states`, else the first tensor."""
    if args and isinstance(args[0], Tensor):
        return args[0]
    if isinstance(kwargs.get("hidden_states"), Tensor):
        return kwargs["hidden_states"]
    return next((v for v in (*args, *kwargs.values()) if isinstance(v, Tensor) and v.is_floating_point()), None)


def first_output(output: Any) -> Tensor | None:
    """The tensor of a module's output that stands for its hidden state."""
    if isinstance(output, Tensor):
        return output
    if isinstance(output, (tuple, list)) and output and isinstance(output[0], Tensor):
        return output[0]
    return None


@contextlib.contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Eval mode inside, every module's own mode restored after."""
    training = [m for m in network.modules() if m.training]
    network.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def dummy_inputs(network: nn.Module) -> dict[str, Tensor]:
    """A tiny input the network's forward takes: a few random token ids, a random picture where it wants one."""
    import inspect

    generator = torch.Generator().manual_seed(0)
    device = next(network.parameters()).device
    wanted = set(inspect.signature(network.forward).parameters)
    if "input_ids" not in wanted and hasattr(network, "get_base_model"):
        wanted |= set(inspect.signature(network.get_base_model().forward).parameters)
    config = network.config
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    vocabulary = getattr(text, "vocab_size", None) or getattr(config, "vocab_size", 0)
    inputs: dict[str, Tensor] = {}
    low = min(10, max(vocabulary - 8, 0))
    if vocabulary and "input_ids" in wanted:
        inputs["input_ids"] = torch.randint(low, min(vocabulary, 1000), (2, 5), generator=generator)
        inputs["attention_mask"] = torch.ones(2, 5, dtype=torch.long)
    if "decoder_input_ids" in wanted:
        inputs["decoder_input_ids"] = torch.randint(low, min(vocabulary, 1000), (2, 4), generator=generator)
    if "pixel_values" in wanted and (vision := getattr(config, "vision_config", config)) is not None:
        size = getattr(vision, "image_size", 32)
        height, width = size if isinstance(size, (tuple, list)) else (size, size)
        inputs["pixel_values"] = torch.randn(
            2, getattr(vision, "num_channels", 3), height, width, generator=generator
        ).to(next(network.parameters()).dtype)
        image_token = getattr(config, "image_token_id", None) or getattr(config, "image_token_index", None)
        if image_token is not None and "input_ids" in inputs:
            patch = vision.patch_size if isinstance(vision.patch_size, int) else vision.patch_size[0]
            count = (height // patch) * (width // patch)
            ids = inputs["input_ids"]
            image = torch.full((2, count), image_token)
            inputs["input_ids"] = torch.cat([ids[:, :2], image, ids[:, 2:]], dim=1)
            inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    return {name: tensor.to(device) for name, tensor in inputs.items()}


def probe(network: nn.Module, towers: list[Tower]) -> Probe:
    """Run the network once on `dummy_inputs` and record every block. A failing forward is reported in `.error`."""
    from intarsia.sites.attention import witnessing

    record = Probe({}, {t.name: [] for t in towers}, {})
    handles = []
    state: dict[str, tuple[str, int] | None] = {"inside": None}
    done: set[str] = set()
    counter = iter(range(10**9))

    def watch_block(tower: Tower, index: int, block: nn.Module) -> None:
        key = (tower.name, index)
        calls = record.calls.setdefault(key, [])

        def entering(module: nn.Module, args: tuple, kwargs: dict) -> None:
            state["inside"] = key

        def leaving(module: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
            calls.append(Call("", module, first_tensor(args, kwargs), first_output(output), output, next(counter)))
            state["inside"] = None
            if index == len(tower.blocks) - 1:
                done.add(tower.name)

        handles.append(block.register_forward_pre_hook(entering, with_kwargs=True))
        handles.append(block.register_forward_hook(leaving, with_kwargs=True))
        for path, module in block.named_modules():
            if path:
                handles.append(module.register_forward_hook(watch_inside(key, path), with_kwargs=True))

    def watch_inside(key: tuple[str, int], path: str) -> Any:
        def hook(module: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
            if state["inside"] == key:
                call = Call(path, module, first_tensor(args, kwargs), first_output(output), output, next(counter))
                record.calls[key].append(call)

        return hook

    def watch_after(path: str) -> Any:
        def hook(module: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
            for tower in towers:
                if tower.name in done:
                    call = Call(path, module, first_tensor(args, kwargs), first_output(output), output, next(counter))
                    record.after[tower.name].append(call)

        return hook

    inside = {id(m) for t in towers for b in t.blocks for m in b.modules()}
    try:
        for tower in towers:
            for index, block in enumerate(tower.blocks):
                watch_block(tower, index, block)
        for path, module in network.named_modules():
            if path and id(module) not in inside and not list(module.children()):
                handles.append(module.register_forward_hook(watch_after(path), with_kwargs=True))
        with torch.no_grad(), evaluating(network), witnessing(towers) as seen:
            network(**dummy_inputs(network))
        record.attention_seen = seen
    except Exception as error:
        record.error = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:200]
    finally:
        for handle in handles:
            handle.remove()
    return record
