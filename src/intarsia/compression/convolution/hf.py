"""Changed convolutional networks in transformers' folders: as the plain network they are where their config can say so;
else by the method "intarsia-convolution", with which `from_pretrained` lays out the plan and then loads the weights."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from transformers.quantizers.auto import register_quantization_config, register_quantizer
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from intarsia.compression.convolution.plans import Plan, lay_out, plan_of

METHOD = "intarsia-convolution"
_WIDTHS = ("embedding_size", "hidden_sizes")
"""What configs of networks in stages (ResNet, RegNet) say of their channels."""


@register_quantization_config(METHOD)
class ConvolutionConfig(QuantizationConfigMixin):
    """What `config.json` says of a changed network. plan: name of a module -> what stands there (`plans`)."""

    def __init__(self, plan: Plan | None = None, **unknown: Any):
        self.quant_method = METHOD  # type: ignore[assignment]
        self.plan = plan or {}


@register_quantizer(METHOD)
class ConvolutionQuantizer(HfQuantizer):
    """Lays out what techniques of `compression.convolution` made; it changes no weight."""

    requires_calibration = True

    def _process_model_before_weight_loading(self, model: Any, **kwargs: Any) -> None:
        lay_out(model, self.quantization_config.plan)  # type: ignore[union-attr]

    def is_serializable(self) -> bool:
        """Yes: all is in ordinary tensors."""
        return True

    @property
    def is_trainable(self) -> bool:
        """Unless some filters are codes."""
        return not any(spec[0].startswith("coded") for spec in self.quantization_config.plan.values())  # type: ignore[union-attr]


def settled(network: Any) -> Any:
    """The network so that it can be saved and loaded: a plain one where its class builds it from some config, else
    itself with its plan in the config. Weights are those of the network given."""
    plain = _bare(network.config)
    if (config := _narrower(network, plain)) is not None:
        with torch.device("meta"):
            fresh = type(network)(config)
        if not _differs(network, fresh):
            fresh.load_state_dict(network.state_dict(), strict=True, assign=True)
            if not any(buffer.is_meta for buffer in fresh.buffers()):
                return fresh.train(network.training)
    with torch.device("meta"):
        fresh = type(network)(plain)
    plan = plan_of(network, fresh)
    network.config = copy.deepcopy(plain)
    if plan:
        network.config.quantization_config = ConvolutionConfig(plan)
        network.hf_quantizer = ConvolutionQuantizer(network.config.quantization_config)
        network.is_quantized = True
        network.quantization_method = METHOD
    return network


def _bare(config: Any) -> Any:
    """The config without a plan."""
    said = {key: value for key, value in config.to_dict().items() if key != "quantization_config"}
    return type(config).from_dict(said)


def _differs(network: nn.Module, fresh: nn.Module) -> bool:
    ours, theirs = network.state_dict(), fresh.state_dict()
    if ours.keys() != theirs.keys() or any(ours[name].shape != theirs[name].shape for name in ours):
        return True
    return bool(plan_of(network, fresh))


def _narrower(network: Any, config: Any) -> Any | None:
    """The config with the widths that the network's stages have, if it is one that names them."""
    if any(not hasattr(config, key) for key in _WIDTHS):
        return None
    outs: list[int] = []
    embedding = None
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            if ".embedder." in name and embedding is None:
                embedding = module.out_channels
            elif ".stages." in name:
                stage = int(name.partition(".stages.")[2].partition(".")[0])
                outs = [*outs[:stage], module.out_channels]
    if embedding is None or len(outs) != len(config.hidden_sizes):
        return None
    said = config.to_dict() | {"embedding_size": embedding, "hidden_sizes": outs}
    return type(config).from_dict(said)
