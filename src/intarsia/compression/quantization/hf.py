"""The quantization method "intarsia" for transformers: `from_pretrained` rebuilds the modules, then loads the codes.

It also lays out factored layers: they need the same, and a network can have both."""

from __future__ import annotations

from typing import Any

import torch
from transformers.quantizers.auto import register_quantization_config, register_quantizer
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

METHOD = "intarsia"


@register_quantization_config(METHOD)
class IntarsiaQuantizationConfig(QuantizationConfigMixin):
    """What `config.json` says of a quantized or factored network.

    - modules: grid (`bits:group:scheme`) -> names of the modules on it
    - ties: name of a module -> name of the module whose table it uses
    - kernel: how few tokens are multiplied (`intarsia.compression.quantization.modules.QuantLinear`)
    - ranks: name of a factored layer -> its rank (`intarsia.compression.factorization.modules.LowRankLinear`); the
      factors may be among `modules`"""

    def __init__(
        self,
        modules: dict[str, list[str]] | None = None,
        ties: dict[str, str] | None = None,
        kernel: str = "auto",
        ranks: dict[str, int] | None = None,
        **unknown: Any,
    ):
        self.quant_method = METHOD  # type: ignore[assignment]
        self.modules = modules or {}
        self.ties = ties or {}
        self.kernel = kernel
        self.ranks = ranks or {}


@register_quantizer(METHOD)
class IntarsiaQuantizer(HfQuantizer):
    """Loads what `compression.quantize` and `compression.factorize` made; it does neither while loading."""

    requires_calibration = True

    def _process_model_before_weight_loading(self, model: Any, **kwargs: Any) -> None:
        from intarsia.compression.factorization import laying
        from intarsia.compression.quantization.rounding import lay_out

        plan: Any = self.quantization_config
        laying.lay_out(model, plan.ranks)
        lay_out(model, plan)

    def _process_model_after_weight_loading(self, model: Any, **kwargs: Any) -> Any:
        mark(model, self.quantization_config)
        return model

    def _dequantize(self, model: Any, dtype: torch.dtype | None = None) -> Any:
        from intarsia.compression.factorization.laying import lay_dense
        from intarsia.compression.quantization.rounding import lay_plain

        return lay_dense(lay_plain(model, dtype), dtype)

    def is_serializable(self) -> bool:
        """Yes: the codes are ordinary tensors."""
        return True

    @property
    def is_trainable(self) -> bool:
        """Factors are; codes have no gradient."""
        plan: Any = self.quantization_config
        return not plan.modules


def mark(network: Any, plan: Any) -> None:
    """Put on a network the marks by which transformers saves it and loads it again as `plan` says.

    It counts as quantized only where it has codes: transformers refuses to cast and to train what does."""
    network.config.quantization_config = plan
    network.hf_quantizer = IntarsiaQuantizer(plan)
    network.is_quantized = bool(plan.modules)
    network.quantization_method = plan.quant_method
