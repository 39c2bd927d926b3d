"""Convolutional networks made small: batch norms told anew, filters on few values, fewer filters, compact filters, and
architectures searched for in a network that holds them all.

The techniques work on a `Model`; the functions here on any `nn.Module` that maps pixels [picture, channel, height,
width] to logits, and on transformers' networks for pictures:

    small = prune_network(network, pixels, times=4)           # truly narrower
    recover(small, pixels, labels, teacher=network)           # learn from what it was; batch norms last
    quantize_network(small, "int8", pixels=pixels)            # in place; quantize last
    save_network(small, "folder"); load_network("folder", make())   # make(): the network as it was built at first"""

from __future__ import annotations

from intarsia.lazy import lazily

# These need torch, which the catalog must not wait for.
_HOMES = {
    "Lesson": "recovering",
    "accuracy": "networks",
    "bytes_at_rest": "zeroing",
    "export_onnx": "exporting",
    "factorize_network": "substituting",
    "load_network": "saving",
    "onnx_answers": "exporting",
    "open_onnx": "exporting",
    "prune_network": "narrowing",
    "quantize_network": "quantizing",
    "recover": "recovering",
    "reestimate": "normalising",
    "save_network": "saving",
    "search_network": "searching",
    "zero_network": "zeroing",
}
__all__ = list(_HOMES)

__getattr__ = lazily(__name__, _HOMES)
