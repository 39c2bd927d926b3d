"""A changed network in a folder, for networks that are none of transformers': `network.safetensors`, the plan in its
header. A transformers network is saved as a Hugging Face folder (`Model.save`)."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from intarsia.compression.convolution.plans import lay_out, plan_of
from intarsia.errors import BadInput, writing_to
from intarsia.models.saved import Saved

FILE = "network.safetensors"
FORMAT = 1


def save_network(network: nn.Module, folder: str | Path, *, force: bool = False) -> Path:
    """Write the tensors and the plan of a network into a folder; gives the folder.

    Raises `BadInput` where there is one already and not `force`, and where the folder cannot be written to."""
    folder = Path(folder)
    file = folder / FILE
    if file.exists() and not force:
        raise BadInput(f"{file} is there already: give another folder, or force to replace it")
    note = {"format": FORMAT, "kind": type(network).__name__, "plan": plan_of(network)}
    with writing_to(folder):
        folder.mkdir(parents=True, exist_ok=True)
        Saved({name: tensor.clone() for name, tensor in network.state_dict().items()}, note).write(file)
    return folder


def load_network(folder: str | Path, network: nn.Module) -> nn.Module:
    """A saved network again, in evaluation mode.

    - network: one as its class builds it, before any change; it is changed in place and given back.

    Raises `BadInput` where nothing is saved there, or another network."""
    file = Path(folder) / FILE
    saved = Saved.read(file)
    if saved is None:
        raise BadInput(f"there is no {file}: save_network writes it")
    if saved.note.get("format", 0) > FORMAT:
        raise BadInput(f"{file} was written by a newer Intarsia: upgrade with pip install -U intarsia")
    lay_out(network, saved.note["plan"])
    wanted, found = network.state_dict(), saved.tensors
    for name in sorted(wanted.keys() ^ found.keys()):
        raise BadInput(f"{file} holds another network than {type(network).__name__} (at '{name}')")
    for name, tensor in wanted.items():
        if tensor.shape != found[name].shape:
            raise BadInput(f"{file}: '{name}' is {list(found[name].shape)}, {list(tensor.shape)} is wanted")
    network.load_state_dict(found)
    return network.eval()
