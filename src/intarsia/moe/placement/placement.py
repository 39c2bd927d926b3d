"""`Placement`: which device holds which expert, layer by layer, and the file it is kept in."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from intarsia.errors import BadInput

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from intarsia.moe.placement.arrays import Devices

FORMAT = "intarsia.placement/1"


@dataclass(frozen=True, eq=False)
class Placement:
    """Every expert of every routed layer on one device, and further copies where there are any.

    - device_of: [layer, expert] the device of the expert; layers are the routed ones, in order.
    - devices, nodes: how many; device d is on node d * nodes // devices.
    - replicas: of each layer and device the experts of which that device holds a copy beside its own; empty: none.
    - layers: the network's own index of each routed layer.
    - model, router_sha256: what it was made for; empty where it is for any.
    - k: experts a token is sent to.
    - metrics: what was measured as it was made."""

    device_of: Devices
    devices: int
    nodes: int = 1
    replicas: tuple[tuple[tuple[int, ...], ...], ...] = ()
    layers: tuple[int, ...] = ()
    model: str = ""
    router_sha256: str = ""
    k: int = 1
    metrics: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        import numpy as np

        table = np.asarray(self.device_of, dtype=np.int64)
        if table.ndim != 2 or not table.size:
            raise BadInput(f"a placement has a device for every layer and expert, this one the shape {table.shape}")
        if self.devices < 1 or self.nodes < 1 or self.devices % self.nodes:
            raise BadInput(f"{self.devices} devices cannot stand on {self.nodes} equal nodes")
        if table.min() < 0 or table.max() >= self.devices:
            odd = int(table.min() if table.min() < 0 else table.max())
            raise BadInput(f"a placement on {self.devices} devices names the device {odd}")
        object.__setattr__(self, "device_of", table)
        if not self.layers:
            object.__setattr__(self, "layers", tuple(range(len(table))))
        if len(self.layers) != len(table):
            raise BadInput(f"a placement of {len(table)} layers names {len(self.layers)} of them")
        if self.replicas:
            if len(self.replicas) != len(table) or any(len(row) != self.devices for row in self.replicas):
                raise BadInput(f"copies are wanted for each of {len(table)} layers and {self.devices} devices")
            if any(not 0 <= e < table.shape[1] for row in self.replicas for device in row for e in device):
                raise BadInput(f"a copy is of an expert that is not there: a layer has {table.shape[1]}")
        if len(set(self.layers)) != len(self.layers):
            raise BadInput("a placement names a layer twice")

    @property
    def experts(self) -> int:
        """Experts a layer."""
        return int(self.device_of.shape[1])

    def held(self, layer: int, device: int) -> list[int]:
        """Experts that a device holds in a routed layer, copies included, in order."""
        import numpy as np

        own = np.flatnonzero(self.device_of[layer] == device).tolist()
        return sorted({*own, *(self.replicas[layer][device] if self.replicas else ())})

    def table(self) -> NDArray[np.bool_]:
        """[routed layer, device, expert] whether the device holds the expert, as its own or as a copy."""
        import numpy as np

        out = self.device_of[:, None] == np.arange(self.devices)[None, :, None]
        for layer, devices in enumerate(self.replicas):
            for device, copies in enumerate(devices):
                out[layer, device, list(copies)] = True
        return out

    def node_of(self, device: int) -> int:
        """The node that a device stands on."""
        return device * self.nodes // self.devices

    def to_json(self) -> str:
        """One JSON object: what `placement.json` holds."""
        return json.dumps(
            {
                "format": FORMAT, "model": self.model, "router_sha256": self.router_sha256, "devices": self.devices,
                "nodes": self.nodes, "experts": self.experts, "k": self.k, "layers": list(self.layers),
                "device_of_expert": self.device_of.tolist(),
                "replicas": [[list(d) for d in layer] for layer in self.replicas], "metrics": dict(self.metrics),
            },
            ensure_ascii=False,
        )  # fmt: skip

    def save(self, path: Path, *, force: bool = False) -> None:
        """Write `placement.json`. Raises `BadInput` when the file is there and `force` is not said."""
        if path.exists() and not force:
            raise BadInput(f"{path} is there already: give another name, or --force to replace it")
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.part")
        part.write_text(self.to_json(), encoding="utf-8")
        part.replace(path)

    @staticmethod
    def open(path: str | Path) -> Placement:
        """Read a file that `save` wrote. Raises `BadInput` for any other."""
        import numpy as np

        try:
            told = json.loads(Path(path).read_text(encoding="utf-8"))
            if told.get("format") != FORMAT:
                raise BadInput(f"{path}: not a placement (wants the format '{FORMAT}', has {told.get('format')!r})")
            copies: Sequence[Sequence[Sequence[int]]] = told["replicas"]
            return Placement(
                np.array(told["device_of_expert"]), told["devices"], told["nodes"],
                tuple(tuple(tuple(d) for d in layer) for layer in copies), tuple(told["layers"]), told["model"],
                told["router_sha256"], told["k"], told["metrics"],
            )  # fmt: skip
        except OSError as error:
            raise BadInput(f"{path}: cannot be read ({error.strerror}); give a placement.json") from None
        except (json.JSONDecodeError, UnicodeDecodeError, AttributeError, KeyError, TypeError, ValueError) as error:
            raise BadInput(f"{path}: not a placement ({error})") from None


def contiguous(layers: int, experts: int, devices: int) -> Devices:
    """[layer, expert] the first experts on the first device, and so on: what engines do when nothing is said."""
    import numpy as np

    return np.tile(np.arange(experts) * devices // experts, (layers, 1))
