"""The families: how each makes a network so many times smaller, and gives back what that cost."""

from __future__ import annotations

import copy
from dataclasses import replace

from torch import nn

from bench.compression_cnn.pictures import Pictures
from intarsia.compression.convolution import factorize_network, prune_network, quantize_network, recover
from intarsia.compression.convolution.quantizing import practise, settle
from intarsia.measure.size import tensor_bytes

SIZES = (2, 4, 10)
_taught: dict[tuple[int, int], object] = {}  # shared weights that have learnt, for the next budget
FORMATS = ("int8", "int6", "int5", "int4", "int3", "ternary")


def made(family: str, times: float, dense: nn.Module, pictures: Pictures, seed: int) -> nn.Module:
    """A network that takes at least `times` less memory than the dense one, which it learnt from."""
    return FAMILIES[family](dense, times, pictures, seed)


def quantized(dense: nn.Module, times: float, pictures: Pictures, seed: int) -> nn.Module:
    """The mildest format that is small enough, learnt rounded."""
    for format in FORMATS:
        small = copy.deepcopy(dense)
        quantize_network(small, format)
        if tensor_bytes(small) <= tensor_bytes(dense) / times:
            break
    else:
        raise SystemExit(f"no format is {times} times smaller")
    return _rounded(copy.deepcopy(dense), dense, format, pictures, seed)


def _rounded(network: nn.Module, teacher: nn.Module, format: str, pictures: Pictures, seed: int) -> nn.Module:
    practise(network, format)
    _learnt(network, teacher, pictures, seed, rate=0.5)
    settle(network)
    quantize_network(network, format, pixels=pictures.train[0])
    return network


def pruned(dense: nn.Module, times: float, pictures: Pictures, seed: int) -> nn.Module:
    """Filters taken out, the norm of all that is tied to them deciding."""
    return _learnt(prune_network(dense, pictures.train[0], times=times), dense, pictures, seed)


def factored(dense: nn.Module, times: float, pictures: Pictures, seed: int) -> nn.Module:
    """Tucker's factors."""
    small, _ = factorize_network(dense, pictures.train[0], "tucker", times=times, seed=seed)
    return _learnt(small, dense, pictures, seed)


def searched(dense: nn.Module, times: float, pictures: Pictures, seed: int) -> nn.Module:
    """The best architecture of so many bytes in a network that holds them all, found by evolution."""
    from intarsia.compression.convolution import search_network

    train, labels = pictures.train
    held = len(train) // 5  # what the search ranks by, not learnt from by the supernet
    key = (id(dense), seed)
    found = search_network(
        dense, train[held:], labels[held:], train[:held], labels[:held], budget={"bytes": 1 / times}, seed=seed,
        lesson=replace(pictures.again, epochs=pictures.again.epochs / 2), rounds=6, population=16,
        elastic=_taught.get(key),
    )  # fmt: skip
    _taught.clear()  # one is enough, and they are large
    _taught[key] = found.elastic
    return _learnt(found.best, dense, pictures, seed)


def distilled(dense: nn.Module, times: float, pictures: Pictures, seed: int) -> nn.Module:
    """The same architecture, narrower from the beginning, taught from nothing."""
    for width in range(30, 1, -2):
        small = pictures.network(seed + 100, width)
        if tensor_bytes(small) <= tensor_bytes(dense) / times:
            break
    return _learnt(small, dense, pictures, seed, rate=1.5)


def narrow_and_rounded(dense: nn.Module, times: float, pictures: Pictures, seed: int) -> nn.Module:
    """Filters taken out, then 8 bits: each for a part of the way."""
    small = dense
    if times > 3.5:
        small = _learnt(prune_network(dense, pictures.train[0], times=times / 3.5), dense, pictures, seed)
    return _rounded(copy.deepcopy(small), dense, "int8", pictures, seed)


def learnt_again(dense: nn.Module, pictures: Pictures, seed: int) -> nn.Module:
    """The dense network after as much learning from itself as the small ones get: what of their gain is only that."""
    return _learnt(copy.deepcopy(dense), dense, pictures, seed)


FAMILIES = {
    "quantization": quantized,
    "pruning": pruned,
    "compact filters": factored,
    "architecture search": searched,
    "distillation": distilled,
    "pruning, then 8 bits": narrow_and_rounded,
}


def _learnt(network: nn.Module, dense: nn.Module, pictures: Pictures, seed: int, rate: float = 1.0) -> nn.Module:
    lesson = replace(pictures.again, learning_rate=pictures.again.learning_rate * rate)
    recover(network, *pictures.train, dense, lesson, seed=seed)
    return network.eval()
