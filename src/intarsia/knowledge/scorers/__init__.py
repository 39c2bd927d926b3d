"""Base scorers behind one protocol: TransE, DistMult, ComplEx, RotatE."""

from intarsia.errors import BadInput, did_you_mean
from intarsia.knowledge.scorers.complex import ComplEx
from intarsia.knowledge.scorers.distmult import DistMult
from intarsia.knowledge.scorers.rotate import RotatE
from intarsia.knowledge.scorers.scorer import Scorer
from intarsia.knowledge.scorers.transe import TransE

SCORERS: dict[str, Scorer] = {scorer.name: scorer for scorer in (TransE(), DistMult(), ComplEx(), RotatE())}


def scorer_called(name: str) -> Scorer:
    """The scorer of that name; `BadInput` with near names."""
    if name not in SCORERS:
        raise BadInput(f"no scorer '{name}'{did_you_mean(name, SCORERS)}; there are: {', '.join(SCORERS)}")
    return SCORERS[name]


__all__ = ["SCORERS", "ComplEx", "DistMult", "RotatE", "Scorer", "TransE", "scorer_called"]
