"""Ways to take on one task after another, by name."""

from intarsia.adaptation.continual.methods.base import Lesson, Method
from intarsia.adaptation.continual.methods.blocks import Oracle, Orthogonal, Snapshot, Summed
from intarsia.adaptation.continual.methods.lfpt5 import LFPT5
from intarsia.adaptation.continual.methods.prompted import EPI, L2P, Progressive
from intarsia.adaptation.continual.methods.sapt import Sapt, SaptPrompt
from intarsia.adaptation.continual.methods.shared import EWC, Multitask, Replay, Sequential
from intarsia.adaptation.continual.methods.transfer import Transfer

METHODS: dict[str, type[Method]] = {
    kind.name: kind
    for kind in (
        Transfer,
        Sapt,
        Snapshot,
        Oracle,
        Sequential,
        Replay,
        EWC,
        Orthogonal,
        Summed,
        Multitask,
        SaptPrompt,
        EPI,
        Progressive,
        L2P,
        LFPT5,
    )
}

__all__ = ["METHODS", "Lesson", "Method"]
