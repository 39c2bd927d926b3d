"""Patching one cell at a time, the way it is usually written: what a sweep is timed against.

For each cell the source prompt runs anew, a plain forward hook keeps the state, and the whole target prompt runs with
another plain hook that writes it in."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn


def first(output: Any) -> Tensor:
    """The hidden state that a block returned."""
    return output[0] if isinstance(output, tuple) else output


def source_state(network: nn.Module, block: nn.Module, ids: Tensor, position: int) -> Tensor:
    """The state [width] after `block` at one position of the source prompt [1, token]."""
    kept: list[Tensor] = []
    handle = block.register_forward_hook(lambda module, args, output: kept.append(first(output)[0, position]))
    try:
        with torch.no_grad():
            network(input_ids=ids, use_cache=False)
    finally:
        handle.remove()
    return kept[0]


def writing(block: nn.Module, position: int, state: Tensor, rows: Any = slice(None)) -> Any:
    """A hook that writes `state` at `position` in the block's first call (into all rows, or some); the handle
    to remove it."""
    done: list[bool] = []

    def hook(module: nn.Module, args: tuple, output: Any) -> Any:
        if done:
            return None  # a later call is a generated token, which is not patched
        done.append(True)
        stream = first(output).clone()
        stream[rows, position] = state
        return (stream, *output[1:]) if isinstance(output, tuple) else stream

    return block.register_forward_hook(hook)


def patched_logits(network: nn.Module, block: nn.Module, inputs: dict, position: int, state: Tensor) -> Tensor:
    """Logits [batch, token, vocabulary] of one forward with one state written in."""
    handle = writing(block, position, state)
    try:
        with torch.no_grad():
            return network(**inputs, use_cache=False).logits
    finally:
        handle.remove()


def cell(
    network: nn.Module, blocks: Iterable[nn.Module], source: Tensor, target: Tensor, pair: tuple[int, int],
    source_at: int = -1, target_at: int = -1, new_tokens: int = 0,
) -> Tensor:  # fmt: skip
    """One cell (source layer, target layer): the last token's logits, or the ids that are generated greedily."""
    blocks = list(blocks)
    state = source_state(network, blocks[pair[0]], source, source_at)
    if not new_tokens:
        return patched_logits(network, blocks[pair[1]], {"input_ids": target}, target_at, state)[0, -1]
    handle = writing(blocks[pair[1]], target_at, state)
    try:
        with torch.no_grad():
            ids = network.generate(
                input_ids=target, attention_mask=torch.ones_like(target), max_new_tokens=new_tokens, do_sample=False
            )
    finally:
        handle.remove()
    return ids[0, target.shape[1] :]


def batch(
    network: nn.Module, blocks: Iterable[nn.Module], source: Tensor, target: Tensor, pairs: list[tuple[int, int]],
    source_at: int = -1, target_at: int = -1, new_tokens: int = 0,
) -> Tensor:  # fmt: skip
    """Many cells at once, whole prompts as one batch with a hook for each layer: the last token's logits of each, or
    the ids that are generated greedily with the network's cache."""
    blocks, rows = list(blocks), len(pairs)
    states = source.new_zeros(0)

    def keeping(where: list[int]) -> Any:
        def hook(module: nn.Module, args: tuple, output: Any) -> None:
            nonlocal states
            stream = first(output)
            states = states if len(states) else stream.new_zeros(rows, stream.shape[-1])
            states[where] = stream[where, source_at]

        return hook

    by_low, by_high = ({k[i]: [r for r, p in enumerate(pairs) if p[i] == k[i]] for k in pairs} for i in (0, 1))
    handles = [blocks[low].register_forward_hook(keeping(where)) for low, where in by_low.items()]
    prompts = target.expand(rows, -1)
    try:
        with torch.no_grad():
            network(input_ids=source.expand(rows, -1), use_cache=False, logits_to_keep=1)
            for handle in handles:
                handle.remove()
        handles += [writing(blocks[high], target_at, states[where], where) for high, where in by_high.items()]
        with torch.no_grad():
            if not new_tokens:
                return network(input_ids=prompts, use_cache=False, logits_to_keep=1).logits[:, -1]
            ids = network.generate(
                input_ids=prompts, attention_mask=torch.ones_like(prompts), max_new_tokens=new_tokens, do_sample=False
            )
    finally:
        for handle in handles:
            handle.remove()
    return ids[:, target.shape[1] :]


def sample(depth: int, count: int) -> list[tuple[int, int]]:
    """Up to `count` cells spread over a depth x depth grid, every layer of either side as often as possible."""
    step = next(s for s in (7, 11, 13, 1) if s == 1 or depth % s)
    cells = [(i % depth, (i * step + i // depth) % depth) for i in range(depth * depth)]
    wide = max(1, depth // count) if count < depth else 1
    return list(dict.fromkeys(cells[::wide]))[:count]
