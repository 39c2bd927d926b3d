"""The rungs by name, in order of what they cost."""

from __future__ import annotations

from intarsia.adaptation.routes.rung import Rung
from intarsia.adaptation.routes.rungs.adapters import Adapter
from intarsia.adaptation.routes.rungs.distil import Student
from intarsia.adaptation.routes.rungs.few_shot import FewShot
from intarsia.adaptation.routes.rungs.likelihood import Calibrated, ZeroShot
from intarsia.adaptation.routes.rungs.linear import OfEmbeddings
from intarsia.adaptation.routes.rungs.lora import VARIANTS
from intarsia.adaptation.routes.rungs.neighbours import Nearest
from intarsia.adaptation.routes.rungs.partial import RUNGS as PARTIAL
from intarsia.adaptation.routes.rungs.pretraining import Pretrain
from intarsia.adaptation.routes.rungs.prompts import OfInstance, OfTask

_IN_ORDER: tuple[Rung, ...] = (
    ZeroShot(), Calibrated(), Nearest(), OfEmbeddings(), FewShot(), OfTask(), OfInstance(), VARIANTS[0], *PARTIAL,
    Adapter(), *VARIANTS[1:], Pretrain(), Student(),
)  # fmt: skip
RUNGS: dict[str, Rung] = {rung.name: rung for rung in _IN_ORDER}
