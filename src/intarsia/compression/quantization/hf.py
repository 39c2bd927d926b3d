"""The quantization method "intarsia" for transformers: `from_pretrained` rebuilds the modules, then loads the codes."""

from __future__ import annotations

from typing import Any

import torch
from transformers.quantizers.auto import register_quantization_config, register_quantizer
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

METHOD = "intarsia"


@register_quantization_config(METHOD)
class IntarsiaQuantizationConfig(QuantizationConfigMixin):
    """What `config.json` says of a quantized network.

    - modules: grid (`bits:group:scheme`) -> names of the modules on it
    - ties: name of a module -> name of the module whose table it uses
    - kernel: how few tokens are multiplied (`intarsia.compression.quantization.modules.QuantLinear`)"""

    def __init__(
        self,
        modules: dict[str, list[str]] | None = None,
        ties: dict[str, str] | None = None,
        kernel: str = "auto",
        **unknown: Any,
    ):
        self.quant_method = METHOD  # type: ignore[assignment]
        self.modules = modules or {}
        self.ties = ties or {}
        self.kernel = kernel


@register_quantizer(METHOD)
class IntarsiaQuantizer(HfQuantizer):
    """Loads what `compression.quantize` made; it does not quantize while loading."""

    requires_calibration = True

    def _process_model_before_weight_loading(self, model: Any, **kwargs: Any) -> None:
        from intarsia.compression.quantization.rounding import lay_out

        lay_out(model, self.quantization_config)  # type: ignore[arg-type]

    def _dequantize(self, model: Any, dtype: torch.dtype | None = None) -> Any:
        from intarsia.compression.quantization.rounding import lay_plain

        return lay_plain(model, dtype)

    def is_serializable(self) -> bool:
        """Yes: the codes are ordinary tensors."""
        return True

    @property
    def is_trainable(self) -> bool:
        """No: codes have no gradient."""
        return False
