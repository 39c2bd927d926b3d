"""The quantization method "intarsia" for transformers: `from_pretrained` rebuilds the modules, then loads their data.

Factored networks come back by it, too, though nothing in them need be quantized: it is the one door that transformers
leaves open for modules that a class does not make from its config."""

from __future__ import annotations

from typing import Any

import torch
from transformers.quantizers.auto import register_quantization_config, register_quantizer
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

METHOD = "intarsia"


@register_quantization_config(METHOD)
class IntarsiaQuantizationConfig(QuantizationConfigMixin):
    """What `config.json` says of a network with quantized or factored layers.

    - modules: grid (`bits:group:scheme`) -> names of the modules on it
    - ties: name of a module -> name of the module whose table it uses
    - kernel: how few tokens are multiplied (`intarsia.compression.quantization.modules.QuantLinear`)
    - factors: name of a factored layer -> its rank (`intarsia.compression.factorization.modules.FactoredLinear`); where
      `modules` knows a layer called `NAME.base`, the factors stand beside it
    - shapes: name of a linear layer -> shape of its weight, where the config says another (blocks that differ)"""

    def __init__(
        self,
        modules: dict[str, list[str]] | None = None,
        ties: dict[str, str] | None = None,
        kernel: str = "auto",
        factors: dict[str, int] | None = None,
        shapes: dict[str, list[int]] | None = None,
        **unknown: Any,
    ):
        self.quant_method = METHOD  # type: ignore[assignment]
        self.modules = modules or {}
        self.ties = ties or {}
        self.kernel = kernel
        self.factors = factors or {}
        self.shapes = shapes or {}


@register_quantizer(METHOD)
class IntarsiaQuantizer(HfQuantizer):
    """Loads what `compression.quantize` and `compression.factorize` made; it does not quantize while loading."""

    requires_calibration = True

    def _process_model_before_weight_loading(self, model: Any, **kwargs: Any) -> None:
        from intarsia.compression.quantization.rounding import lay_out

        lay_out(model, self.quantization_config)  # type: ignore[arg-type]

    def _process_model_after_weight_loading(self, model: Any, **kwargs: Any) -> Any:
        # Factors alone are plain weights: they may be cast and trained.
        model.is_quantized = not self.is_trainable
        return model

    def _dequantize(self, model: Any, dtype: torch.dtype | None = None) -> Any:
        from intarsia.compression.quantization.rounding import lay_plain

        return lay_plain(model, dtype)

    def is_serializable(self) -> bool:
        """Yes: the codes are ordinary tensors."""
        return True

    @property
    def is_trainable(self) -> bool:
        """Whether all weights are plain ones: codes have no gradient."""
        return not self.quantization_config.modules  # type: ignore[attr-defined]


def mark(network: Any, plan: IntarsiaQuantizationConfig) -> None:
    """Note on a network what its `config.json` will say, so that it is saved and loaded as it is."""
    network.config.quantization_config = plan
    network.hf_quantizer = IntarsiaQuantizer(plan)
    network.is_quantized = not network.hf_quantizer.is_trainable
    network.quantization_method = plan.quant_method


def factors_of(network: Any) -> dict[str, int]:
    """The ranks of the factored layers that a network has, by name."""
    plan = getattr(network.config, "quantization_config", None)
    return dict(plan.factors) if isinstance(plan, IntarsiaQuantizationConfig) else {}


def shapes_of(network: Any) -> dict[str, list[int]]:
    """The shapes of the layers that differ from what the config says, by name."""
    plan = getattr(network.config, "quantization_config", None)
    return dict(plan.shapes) if isinstance(plan, IntarsiaQuantizationConfig) else {}
