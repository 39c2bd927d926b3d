"""Low-rank adapters and their variants, by PEFT (`intarsia.training.lora`), merged when they are trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

from intarsia.adaptation.label import LabelConfig
from intarsia.adaptation.routes.rungs.tuned import Part, Tuned
from intarsia.errors import MissingExtra
from intarsia.training import lora

if TYPE_CHECKING:
    from intarsia.adaptation.routes.setting import Setting
    from intarsia.models import Model
    from intarsia.training.lora import Variant


class LowRank(Tuned):
    """One variant. rsLoRA is LoRA by another factor: it gets four times the rank, for which it was made."""

    setting_names = ("layers_from", "rank")

    def __init__(self, variant: Variant, what: str, factor: float = 1.0):
        self.name, self.variant, self.what, self.factor = variant, variant, what, factor

    def adapter(self, setting: Setting) -> LabelConfig:
        """The adapter's settings: every variant's update begins with the factor 2, LoRA's usual one."""
        rank = setting.config.rank * (4 if self.variant == "rslora" else 1)
        alpha = 2 * rank**0.5 if self.variant == "rslora" else 2 * rank
        return LabelConfig(variant=self.variant, rank=rank, alpha=alpha, layers_from=setting.config.layers_from)

    def check(self, setting: Setting) -> None:
        try:
            import peft  # noqa: F401
        except ImportError:
            raise MissingExtra(f"the rung {self.name}", "adapt") from None

    def possible(self, setting: Setting) -> None:
        network = setting.model.network
        config = self.adapter(setting)
        names = lora.linear_names(network, config.targets, lora.first_block(network, config.layers_from))
        if self.variant == "ia3":
            lora.scaled_names(network, config.targets, names)

    def put(self, model: Model, setting: Setting) -> Part:
        adapted, _ = lora.attach(model.network, self.adapter(setting))
        named = {name: p for name, p in adapted.named_parameters() if p.requires_grad}
        return Part(named, adapted, lambda: lora.merge(adapted))


VARIANTS = (
    LowRank("ia3", "factors on keys, values and neurons", 10.0),
    LowRank("lora", "low-rank updates"),
    LowRank("rslora", "low-rank updates of four times the rank, scaled by its root"),
    LowRank("dora", "low-rank updates of directions, sizes apart"),
    LowRank("pissa", "low-rank updates that begin with the weights' strongest directions", 0.2),
)
