"""One short forward that shows how each block is wired: what came in and went out of every module inside it.

The site map is not a table of architectures: it is read off this record. What attention and MLP add to the residual
stream is found by looking which module outputs sum to what the stream gained."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from intarsia.sites.dense import dense
from intarsia.sites.towers import Tower, image_token


@dataclass
class Call:
    """One call of a module during the probe: its first tensor in and out as they were then, in call order.

    - taken, given: copies, for some blocks add in place to what a module gave (Falcon).
    - source, target: the tensors themselves, to tell which module was handed what another gave."""

    path: str
    module: nn.Module
    taken: Tensor | None
    given: Tensor | None
    source: Tensor | None
    target: Tensor | None
    output: Any
    order: int

    @classmethod
    def of(cls, path: str, module: nn.Module, args: tuple, kwargs: dict, output: Any, order: int) -> Call:
        """What a forward hook was shown."""
        source, target = first_tensor(args, kwargs), first_output(output)
        taken, given = (t.clone() if t is not None else None for t in (source, target))
        return cls(path, module, taken, given, source, target, output, order)


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


ROWS = 2


def dummy_inputs(network: nn.Module) -> dict[str, Tensor]:
    """A tiny input the forward takes, of `ROWS` rows: a few random token ids; a random picture or sound if wanted."""
    generator = torch.Generator().manual_seed(0)
    first = next(network.parameters())
    wanted = set(inspect.signature(network.forward).parameters)
    if "input_ids" not in wanted and hasattr(network, "get_base_model"):
        wanted |= set(inspect.signature(network.get_base_model().forward).parameters)
    config = network.config
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    vocabulary = getattr(text, "vocab_size", None) or getattr(config, "vocab_size", 0)
    inputs: dict[str, Tensor] = {}
    low = min(10, max(vocabulary - 8, 0))
    if vocabulary and "input_ids" in wanted:
        inputs["input_ids"] = torch.randint(low, min(vocabulary, 1000), (ROWS, 5), generator=generator)
        inputs["attention_mask"] = torch.ones(ROWS, 5, dtype=torch.long)
    if "decoder_input_ids" in wanted:
        inputs["decoder_input_ids"] = torch.randint(low, min(vocabulary, 1000), (ROWS, 4), generator=generator)
    if "pixel_values" in wanted and (vision := getattr(config, "vision_config", config)) is not None:
        size = getattr(vision, "image_size", 32)
        height, width = size if isinstance(size, (tuple, list)) else (size, size)
        shape = (ROWS, getattr(vision, "num_channels", 3), height, width)
        inputs["pixel_values"] = torch.randn(shape, generator=generator).to(first.dtype)
        if (picture := image_token(config)) is not None and "input_ids" in inputs:
            patch = getattr(vision, "patch_size", 1)
            patch = patch if isinstance(patch, int) else patch[0]
            queries = getattr(config, "num_query_tokens", None)  # BLIP-2 boils a picture down to a few
            image = torch.full((ROWS, queries or (height // patch) * (width // patch)), picture)
            ids = inputs["input_ids"]
            inputs["input_ids"] = torch.cat([ids[:, :2], image, ids[:, 2:]], dim=1)
            inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    if "input_features" in wanted and (mels := getattr(config, "num_mel_bins", None)):
        frames = 2 * getattr(config, "max_source_positions", 50)  # Whisper halves them, and takes that many exactly
        inputs["input_features"] = torch.randn(ROWS, mels, frames, generator=generator).to(first.dtype)
    if "input_values" in wanted and "input_ids" not in inputs:
        inputs["input_values"] = torch.randn(ROWS, 4000, generator=generator).to(first.dtype)
    if "grid_thw" in wanted:  # Qwen's vision towers take patches, and how many there are each way
        size = config.in_channels * config.temporal_patch_size * config.patch_size**2
        inputs["hidden_states"] = torch.randn(16, size, generator=generator).to(first.dtype)
        inputs["grid_thw"] = torch.tensor([[1, 4, 4]])
    return {name: tensor.to(first.device) for name, tensor in inputs.items()}


def _text_alone(network: nn.Module) -> dict[str, Tensor]:
    """`dummy_inputs` without picture and sound, and without the places where a picture would go."""
    given = {k: v for k, v in dummy_inputs(network).items() if k in ("input_ids", "attention_mask")}
    image = image_token(network.config)
    keep = given["input_ids"][0] != (-1 if image is None else image)
    return {k: v[:, keep] for k, v in given.items()}


Attempt = tuple[list[Tower], nn.Module, Callable[[nn.Module], dict[str, Tensor]]]


def _attempts(network: nn.Module, towers: list[Tower]) -> list[Attempt]:
    """What to run, on what, and the towers that should reach: everything at once; failing that, text alone and each
    tower alone."""
    main = [t for t in towers if t.head_root is not None]
    alone: list[Attempt] = [([t], t.root, dummy_inputs) for t in towers if t.root is not network]
    return [(towers, network, dummy_inputs), (main, network, _text_alone), *alone]


def probe(network: nn.Module, towers: list[Tower]) -> Probe:
    """Run the network on `dummy_inputs` and record every block once.

    What no attempt has reached is left out, and the first failure is told in `.error`."""
    from intarsia.sites.attention import witnessing

    record = Probe({}, {t.name: [] for t in towers}, {})
    handles = []
    state: dict[str, tuple[str, int] | None] = {"inside": None}
    done: set[str] = set()
    before: set[str] = set()  # done by an earlier attempt
    counter = iter(range(10**9))

    def watch_block(tower: Tower, index: int, block: nn.Module) -> None:
        key = (tower.name, index)
        calls = record.calls.setdefault(key, [])
        entered: list[Tensor | None] = []

        def entering(module: nn.Module, args: tuple, kwargs: dict) -> None:
            state["inside"] = key if tower.name not in before else None
            stream = first_tensor(args, kwargs)
            entered.append(stream.clone() if stream is not None else None)

        def leaving(module: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
            if tower.name in before:
                return
            whole = Call.of("", module, args, kwargs, output, next(counter))
            whole.taken = entered[-1]  # the block may have added to it in place
            calls.append(whole)
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
                record.calls[key].append(Call.of(path, module, args, kwargs, output, next(counter)))

        return hook

    def watch_after(path: str) -> Any:
        def hook(module: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
            for tower in towers:
                if tower.name in done:
                    record.after[tower.name].append(Call.of(path, module, args, kwargs, output, next(counter)))

        return hook

    inside = {id(m) for t in towers for b in t.blocks for m in b.modules()}
    try:
        for tower in towers:
            for index, block in enumerate(tower.blocks):
                watch_block(tower, index, block)
        for path, module in network.named_modules():
            if path and id(module) not in inside and not list(module.children()):
                handles.append(module.register_forward_hook(watch_after(path), with_kwargs=True))
        with torch.no_grad(), dense(), evaluating(network), witnessing(towers) as seen:
            for aims, module, make in _attempts(network, towers):
                if all(t.name in done for t in aims):
                    continue
                before |= done
                state["inside"] = None
                for key in record.calls:
                    if key[0] not in done:
                        record.calls[key].clear()  # what a failed attempt reached in part begins anew
                try:
                    module(**make(module))
                except Exception as error:
                    record.error = record.error or f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"[:200]
            record.attention_seen = seen
        if all(t.name in done for t in towers):
            record.error = None
    finally:
        for handle in handles:
            handle.remove()
    return record
