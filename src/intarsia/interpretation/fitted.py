"""What is fitted to a network and saved beside it: lens maps, concepts, maps between models, sparse autoencoders.

A folder of two files, tensors and a note, written whole or not at all, which knows the network it belongs to. Imports
torch only when it works, so that fitted classes can stand in the public face."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from intarsia.errors import BadInput, first_line

if TYPE_CHECKING:
    from torch import Tensor

    from intarsia.models import Model
    from intarsia.report import Finding

T = TypeVar("T")


@dataclass(frozen=True)
class Layout:
    """How a kind of fitted thing lies on disk.

    - what: its name, as in "the lens maps". by: the technique that makes it. stem: name of its two files.
    - version: of the layout; others are refused."""

    what: str
    by: str
    stem: str
    version: int = 1

    def save(
        self,
        path: str | Path,
        tensors: Mapping[str, Tensor],
        note: Mapping[str, Any],
        finding: Finding | None,
        force: bool = False,
    ) -> Path:
        """Write the folder `path`; returns it. `note` is plain data, the finding goes along where there is one."""
        from safetensors.torch import save_file

        told: dict[str, Any] = {"format": self.version, **note}
        if finding is not None:
            told["finding"] = json.loads(finding.to_json())
        with new_folder(path, force) as part:
            save_file(
                {name: tensor.contiguous() for name, tensor in tensors.items()}, part / f"{self.stem}.safetensors"
            )
            (part / f"{self.stem}.json").write_text(json.dumps(told, ensure_ascii=False, indent=1), "utf-8")
        return Path(path).expanduser().absolute()

    def load(
        self, path: str | Path, make: Callable[[dict[str, Tensor], dict[str, Any], Any], T], finding: type[Finding]
    ) -> T:
        """`make(tensors, note, finding)` of a folder that `save` wrote.

        Raises `BadInput` for anything else, also when `make` raises `KeyError`, `TypeError` or `ValueError`."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        path = Path(path).expanduser()
        weights, told = path / f"{self.stem}.safetensors", path / f"{self.stem}.json"
        if not weights.is_file() or not told.is_file():
            raise BadInput(f"{path}: no {self.what} there (wants {told.name} and {weights.name}, as {self.by} saves)")
        try:
            note, tensors = json.loads(told.read_text("utf-8")), load_file(weights)
            if note["format"] != self.version:
                raise ValueError(f"format {note['format']}, this version reads {self.version}")
            found = finding.from_json(json.dumps(note["finding"])) if note.get("finding") else None
            return make(tensors, note, found)
        except (KeyError, TypeError, ValueError, OSError, SafetensorError) as error:
            raise BadInput(f"{path}: the {self.what} cannot be read: {first_line(error)}") from None

    def check(self, facts: Mapping[str, Any], model: Model, role: str = "this") -> None:
        """Raise `BadInput` unless the facts are those of this very network. `role` is what the model is called."""
        theirs = facts_of(model)
        if facts["weights"] != theirs["weights"]:
            raise BadInput(
                f"the {self.what} were fitted on {named(facts)}, and {role} is {named(theirs)} with other weights: fit "
                f"them for it with {self.by}"
            )


@contextmanager
def new_folder(path: str | Path, force: bool) -> Iterator[Path]:
    """A folder to fill that becomes `path` when the body is done.

    Raises `BadInput` when there is something already and not `force`."""
    from intarsia.models import cache

    path = Path(path).expanduser().absolute()
    if path.is_file():
        raise BadInput(f"cannot save to {path}: it is a file, a folder is wanted")
    if path.is_dir() and any(path.iterdir()) and not force:
        raise BadInput(f"{path} is not empty: give another folder, or force (--force) to replace it")
    with cache.beside(path, replace=force) as part:
        yield part
        cache.share_modes(part)


def facts_of(model: Model) -> dict[str, Any]:
    """What tells a network from others: its name and shape, and a hash over samples of all its weights.

    The samples are rounded to bfloat16 first, so that a network and the same in bfloat16 are one."""
    import torch

    digest = hashlib.sha256()
    for name, parameter in sorted(model.network.named_parameters()):
        flat = parameter.detach().reshape(-1)
        some = flat[:: max(1, len(flat) // 64)][:64].to("cpu", torch.bfloat16).float()
        digest.update(f"{name} {list(parameter.shape)} {some.tolist()}".encode())
    return {
        "source": model.identity.source,
        "sha256": model.identity.sha256,
        "architecture": type(model.network).__name__,
        "layers": len(model.sites.blocks),
        "width": model.sites.main.width,
        "weights": digest.hexdigest(),
    }


def named(facts: Mapping[str, Any]) -> str:
    """A network in words."""
    return f"{facts['source']} ({facts['architecture']}, {facts['layers']} layers of width {facts['width']})"
