"""The part of the cost that no clock decides: parameters, bytes, multiply-accumulates."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from intarsia.measure.counting import count_macs

WEIGHT_FILES = ("*.safetensors", "*.bin", "*.gguf", "*.onnx", "*.onnx.data", "*.onnx_data", "*.pt")
Shape = Literal["decoder", "encoder", "encoder-decoder"]


def count_parameters(network: nn.Module) -> tuple[int, int, int]:
    """(all, trainable, not zero) weights of a network; shared tensors count once.

    A module that holds its matrix as packed codes counts as the matrix it stands for: quantizing a network changes its
    bytes, not its parameters."""
    total = trainable = nonzero = 0
    packed = {id(m.codes): m for m in network.modules() if "codes" in m._parameters and hasattr(m, "width")}
    for parameter in network.parameters():
        module: Any = packed.get(id(parameter))
        count = parameter.numel() if module is None else module.rows * module.width
        weight = parameter if module is None else module.weight
        total += count
        trainable += count if parameter.requires_grad else 0
        nonzero += int(torch.count_nonzero(weight))
    return total, trainable, nonzero


def tensor_bytes(network: nn.Module) -> int:
    """Bytes of all parameters and buffers that are saved; tensors that share memory count once."""
    seen: dict[tuple[str, int], int] = {}
    for tensor in network.state_dict().values():
        if isinstance(tensor, torch.Tensor):
            storage = tensor.untyped_storage()
            seen[str(tensor.device), storage.data_ptr() or id(tensor)] = storage.nbytes()
    return sum(seen.values())


def weight_bytes(folder: Path) -> int:
    """Bytes of the weight files directly in a saved folder (tokenizer, config and exports are not counted)."""
    return sum(file.stat().st_size for file in {f for pattern in WEIGHT_FILES for f in folder.glob(pattern)})


def shape_of(network: Any) -> Shape:
    """Whether a network decodes, encodes, or both; told from its config."""
    if getattr(network.config, "is_encoder_decoder", False):
        return "encoder-decoder"
    return "decoder" if network.can_generate() else "encoder"


def token_inputs(network: Any, tokens: int, seed: int = 0) -> dict[str, torch.Tensor]:
    """One row of `tokens` random ids (and, for an encoder-decoder, as many on the decoder's side)."""
    config = network.config.get_text_config()
    device = next(network.parameters()).device
    generator = torch.Generator().manual_seed(seed)
    special = {
        getattr(network.config, name, None) for name in ("image_token_id", "image_token_index", "video_token_id")
    }
    ids = torch.randint(0, config.vocab_size, (1, tokens), generator=generator)
    for token in special - {None}:
        ids[ids == token] = token - 1 if token else 1  # a place for a picture that is not there
    given = {"input_ids": ids.to(device)}
    if shape_of(network) == "encoder-decoder":
        given["decoder_input_ids"] = given["input_ids"]
    return given


def macs_per_token(network: Any, tokens: int) -> int:
    """Multiply-accumulates per token of one forward over `tokens` tokens, logits of all of them included.

    Counted as they run (`intarsia.measure.counting`): attention is its two full products (no saving from the causal
    mask), whatever kernel runs it. An encoder-decoder gets `tokens` on both sides. Raises what the network raises when
    it does not take tokens alone."""
    training = network.training
    network.eval()
    try:
        inputs = token_inputs(network, tokens)
        return round(count_macs(lambda: network(**inputs)).macs / tokens)
    finally:
        network.train(training)
