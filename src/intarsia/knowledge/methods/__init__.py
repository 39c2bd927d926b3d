"""Ways to learn a growing graph, each in the same loop."""

from intarsia.errors import BadInput, did_you_mean
from intarsia.knowledge.learning.parts import Method
from intarsia.knowledge.methods.cwr import CWR
from intarsia.knowledge.methods.distil import DISTIL
from intarsia.knowledge.methods.emr import EMR
from intarsia.knowledge.methods.ewc import EWC
from intarsia.knowledge.methods.fastkge import FASTKGE
from intarsia.knowledge.methods.gem import GEM
from intarsia.knowledge.methods.incde import INCDE
from intarsia.knowledge.methods.lan import LAN
from intarsia.knowledge.methods.lkge import LKGE, LKGE_CODE
from intarsia.knowledge.methods.mean import MEAN
from intarsia.knowledge.methods.plain import FINETUNE, RETRAIN, SNAPSHOT
from intarsia.knowledge.methods.pnn import PNN
from intarsia.knowledge.methods.si import SI

_ALL = (
    DISTIL, LKGE, LKGE_CODE, INCDE, FASTKGE, FINETUNE, RETRAIN, SNAPSHOT, MEAN, LAN, PNN, CWR, SI, EWC, EMR, GEM,
)  # fmt: skip
METHODS: dict[str, Method] = {method.name: method for method in _ALL}


def method_called(name: str) -> Method:
    """The method of that name; `BadInput` with near names."""
    if name not in METHODS:
        raise BadInput(f"no method '{name}'{did_you_mean(name, METHODS)}; there are: {', '.join(METHODS)}")
    return METHODS[name]
