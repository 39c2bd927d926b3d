"""`read`: the activations at any sites, stopping as soon as the last one is there; `run`: a forward with edits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from intarsia.errors import BadInput
from intarsia.progress import track
from intarsia.sites.activations import Activations, join
from intarsia.sites.edits import Edit
from intarsia.sites.inputs import Batch, Inputs, prepare, takes
from intarsia.sites.sitemap import SiteMap, of
from intarsia.sites.tape import recording

if TYPE_CHECKING:
    from intarsia.models import Model


def read(
    model: Model,
    inputs: Inputs,
    at: str | Sequence[str],
    *,
    edits: Sequence[Edit] = (),
    batch_size: int | None = None,
    grad: bool = False,
    side: str = "right",
    **forward: Any,
) -> Activations:
    """The activations at sites, [batch, token, ...] each.

    - inputs: texts, token ids [batch, token] (or lists of them), or the network's own keyword arguments.
    - at: a site, a pattern (`layers.*.resid_post`, `layers.4:8.z`), or several.
    - edits: applied during the same forward; what is read is what the network goes on with.
    - batch_size: rows a forward; by default all at once. With several batches a progress event is sent for each.
    - grad: keep the graph, so that results can be differentiated.
    - side: where texts of different length are padded (`acts.mask` says which tokens are real).
    - forward: more keyword arguments for the network.

    The forward ends once the last site is read; blocks above it and the head never run. Reading does not change the
    network's outputs. Raises `BadInput` for an unknown or unavailable site, with the reason."""
    sites = of(model)
    names = sites.expand(list(at) if not isinstance(at, str) else at)
    batch = prepare(model, inputs, side)
    if batch_size is None or batch.size <= batch_size:
        return _read_one(model, sites, batch, names, list(edits), grad, forward)
    starts = range(0, batch.size, batch_size)
    if any(e.rows is not None for e in edits):
        raise BadInput("edits of single rows need all rows in one batch: leave out batch_size")
    return join(
        [
            _read_one(model, sites, batch.rows(slice(s, s + batch_size)), names, list(edits), grad, forward)
            for s in track(starts, "reading")
        ]
    )


def _read_one(
    model: Model, sites: SiteMap, batch: Batch, names: list[str], edits: list[Edit], grad: bool, forward: dict[str, Any]
) -> Activations:
    for clone in (False, True):
        with torch.set_grad_enabled(grad), recording(sites, batch, names, edits, stop=True, clone=clone) as tape:
            call(model, sites, batch, names, forward)
        if not tape.changed_in_place():
            break
    if missing := [n for n in names if n not in tape.read]:
        raise BadInput(
            f"site '{missing[0]}' was not reached with these inputs: does it need a picture or another text?"
        )
    return Activations({n: tape.read[n] for n in names}, batch, tape.extras, model.tokenizer)


def call(model: Model, sites: SiteMap, batch: Batch, names: Sequence[str], forward: dict[str, Any]) -> Any:
    """Run the network, or only the tower that the sites lie in when the inputs are for that one alone."""
    network: nn.Module = model.network
    kwargs = {**batch.kwargs, **forward}
    if takes(network, "use_cache"):
        kwargs.setdefault("use_cache", False)
    entry = _entry(model, sites, batch, names)
    if entry is not network:
        kwargs = {k: v for k, v in kwargs.items() if takes(entry, k)}
    return entry(**kwargs)


def _entry(model: Model, sites: SiteMap, batch: Batch, names: Sequence[str]) -> nn.Module:
    """CLIP with texts alone (or pictures alone) runs just that tower: the whole network would want both."""
    network = model.network
    if "" in sites.towers or not names or getattr(network.config, "is_encoder_decoder", False):
        return network
    touched = {n.split("layers.")[0].split("embed")[0].split("final_norm")[0].removesuffix(".") for n in names}
    given = set(batch.kwargs)
    if len(touched) != 1 or not touched <= set(sites.towers):
        return network
    tower = sites.towers[touched.pop()]
    alone = "input_ids" not in given or ("pixel_values" not in given and takes(network, "pixel_values"))
    dual = tower.head_root is None and all(t.head_root is None for t in sites.towers.values())
    return tower.root if alone and dual else network


def run(
    model: Model,
    inputs: Inputs,
    edits: Sequence[Edit] = (),
    *,
    grad: bool = False,
    side: str = "right",
    **forward: Any,
) -> Any:
    """One forward with edits: the network's own `ModelOutput` (`.logits` [batch, token, vocabulary], ...).

    `grad`, `side` and `forward` as in `read`."""
    sites = of(model)
    batch = prepare(model, inputs, side)
    with torch.set_grad_enabled(grad), recording(sites, batch, edits=list(edits)):
        output = call(model, sites, batch, [], forward)
    return output
