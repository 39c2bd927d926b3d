"""`patch`: the patchscope. A state of one prompt is put into another prompt, and what follows is read.

Source: Ghandeharioun et al. 2024 (Patchscopes), section 3. A source is the prompt S, position i, model M and layers l;
a target is the prompt T, position i*, model M* and layers l*; a mapping f takes states of M to states of M*. The model
M* runs on T; right after block l* the state at i* is overwritten with f(h), h being what M has at (l, i) on S; then
M* goes on. Nothing else of S reaches the output.

Layers count from 0, and a layer's state is the residual stream after its block, before the final norm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from intarsia.errors import BadInput
from intarsia.interpretation.patchscopes.prompts import At, Encoded, encode, encode_target, place
from intarsia.progress import track
from intarsia.sites import read, sweep
from intarsia.sites.sweeping import Mapping

if TYPE_CHECKING:
    from intarsia.models import Model

Prompt = str | Sequence[int] | Encoded
READ_BATCH = 16


@dataclass(frozen=True)
class Source:
    """Where the states come from.

    - model: M.
    - prompt: S as a text or token ids; or a list of texts, a row each.
    - at: i: a number of tokens (-1 is the last) or words of the prompt, whose last token is meant; one for all rows or
      one a row.
    - layers: l, all by default.
    - states: [row, layer, width] instead of reading them: controls, or states at hand; or all of the stream, [row, 1 +
      layers of the model, width] with the embeddings first, which `trajectory` needs. `prompt` is then not run."""

    model: Model
    prompt: Prompt | Sequence[str] | Sequence[Encoded]
    at: At | Sequence[At] = -1
    layers: int | Sequence[int] | None = None
    states: Tensor | None = None


@dataclass(frozen=True)
class Target:
    """Where the states go.

    - model, prompt, at: M*, T and i*. `at` by default the last token.
    - layers: l*, all by default; `"same"` patches each source layer into the layer of its own number only (of the same
      relative depth when the models have different depths)."""

    model: Model
    prompt: Prompt
    at: At = -1
    layers: int | Sequence[int] | Literal["same"] | None = None


@dataclass(frozen=True)
class Patched:
    """What the target model said after each patch. Axes: row, source layer, target layer.

    - top: its next token at the end of T, [row, source layer, target layer].
    - logits: [row, source layer, target layer, vocabulary], or None when they were not kept.
    - ids: generated tokens [row, source layer, target layer, token], or None. `texts`: the same as nested lists.
    - source_layers: layers of the second axis. `target_layers[f]`: for each source layer the layers of the third axis
      (one, its own, for `layers="same"`).
    - source_positions: index of each row's position in the prompt as it was run; target_position likewise.
    - states: [row, source layer, width] before the mapping; all of the stream where `trajectory` read it."""

    top: Tensor
    logits: Tensor | None
    ids: Tensor | None
    texts: list[list[list[str]]] | None
    source_layers: list[int]
    target_layers: list[list[int]]
    source_positions: list[int]
    target_position: int
    states: Tensor = field(repr=False)


def patch(
    source: Source,
    target: Target,
    *,
    mapping: Mapping | None = None,
    max_new_tokens: int = 0,
    contamination: str = "keep",
    keep_logits: bool = False,
    **sweeping: Any,
) -> Patched:
    """Patch every source state into every target layer, and read what the target model says next.

    - mapping: f(states [row, width], source layer, target layer) -> [row, width of M*]; the identity by default.
    - max_new_tokens: greedy tokens to generate after the patch; 0 reads the next token only.
    - contamination: what generated tokens see at i* in the blocks up to l*, where the placeholder token has left its
      keys and values: `keep` them (the paper), `drop` them, or put there those of the source's own `trajectory`.
    - keep_logits: keep the next-token logits of every cell.
    - sweeping: further settings of `intarsia.sites.sweep`.

    Raises `BadInput` for positions outside the prompts, layers that do not exist, and models of different width
    without a mapping."""
    from_layers = layer_list(source.layers, source.model, "source")
    rows, places = source_rows(source)
    goal, target_at = encode_target(target.model, target.prompt, target.at)
    check_widths(source.model, target.model, mapping)
    limit = target.model.context_length
    if limit and len(goal) + max_new_tokens > limit:
        raise BadInput(
            f"target prompt: its {len(goal)} tokens and {max_new_tokens} new ones are more than the network's context "
            f"of {limit}: shorten it, or generate fewer"
        )
    if target.layers == "same":
        pairs = [[own_layer(layer, source.model, target.model)] for layer in from_layers]
    else:
        pairs = [layer_list(target.layers, target.model, "target")] * len(from_layers)
    path = contamination == "trajectory"
    states = source.states
    if states is None:
        states = read_states(source.model, rows, places, None if path else from_layers)
    full = _full(states, from_layers, len(source.model.sites.blocks), path)
    if path and mapping is not None:
        raise BadInput("patchscope: the trajectory is that of one model: with a mapping use keep or drop")
    cells = [(layer, to) for layer, line in zip(from_layers, pairs, strict=True) for to in line]
    found = sweep(
        target.model, [list(row.ids) for row in rows], torch.tensor([goal.ids]), target_at=target_at, cells=cells,
        states=full, source_model=source.model, mapping=mapping, max_new_tokens=max_new_tokens,
        contamination=contamination, keep_logits=keep_logits, **sweeping,
    )  # fmt: skip

    def grid(values: Tensor | None) -> Tensor | None:
        return None if values is None else values.unflatten(1, (len(from_layers), len(pairs[0])))

    texts = None
    if found.texts is not None:
        wide = len(pairs[0])
        texts = [[row[i : i + wide] for i in range(0, len(row), wide)] for row in found.texts]
    return Patched(
        grid(found.top), grid(found.logits), grid(found.ids), texts, from_layers, pairs, places, target_at, states
    )  # fmt: skip


def _full(states: Tensor, layers: list[int], depth: int, path: bool) -> Tensor:
    """States as `sweep` takes them for single cells, [row, 1 + depth, width]; what is not patched is left at zero."""
    if states.dim() == 3 and states.shape[1] == 1 + depth:
        return states
    if states.dim() != 3 or states.shape[1] != len(layers) or path:
        kinds = f"[row, {1 + depth}, width] (embeddings first)"
        if not path:
            kinds = f"[row, {len(layers)}, width] or {kinds}"
        raise BadInput(f"patchscope: states must be {kinds}, were {list(states.shape)}")
    full = states.new_zeros(len(states), 1 + depth, states.shape[2])
    full[:, [1 + layer for layer in layers]] = states
    return full


def source_rows(source: Source) -> tuple[list[Encoded], list[int]]:
    """The source's prompts as token ids and the index of each one's position; empty when it brings its states."""
    if source.states is not None:
        return [], []
    given: Any = source.prompt
    many = not isinstance(given, str | Encoded) and len(given) > 0 and not isinstance(given[0], int)
    prompts = list(given) if many else [given]
    ats = list(source.at) if isinstance(source.at, list | tuple) else [source.at] * len(prompts)
    if len(ats) != len(prompts):
        if len(prompts) != 1:
            raise BadInput(f"source: {len(ats)} positions were given for {len(prompts)} prompts")
        prompts = prompts * len(ats)
    what = "source prompt"
    rows = [p if isinstance(p, Encoded) else encode(source.model, p, what) for p in prompts]
    return rows, [place(row, at, what) for row, at in zip(rows, ats, strict=True)]


def read_states(model: Model, rows: Sequence[Encoded], places: Sequence[int], layers: Sequence[int] | None) -> Tensor:
    """`resid_post` of each row at its index, [row, layer, width]; for `layers` None the embeddings and every layer.

    Prompts that occur several times run once."""
    prefix, depth = model.sites.main.prefix, len(model.sites.blocks)
    names = [f"{prefix}layers.{layer}.resid_post" for layer in (range(depth) if layers is None else layers)]
    if layers is None:
        names.insert(0, f"{prefix}embed")
    wanted: dict[tuple[int, ...], list[int]] = {}
    for number, row in enumerate(rows):
        wanted.setdefault(row.ids, []).append(number)
    unique = list(wanted)
    out: dict[int, Tensor] = {}
    for start in track(range(0, len(unique), READ_BATCH), "reading source states"):
        batch = unique[start : start + READ_BATCH]
        acts = read(model, [list(ids) for ids in batch], names)
        for line, ids in enumerate(batch):
            for number in wanted[ids]:
                out[number] = torch.stack([acts[name][line, places[number]] for name in names])
    return torch.stack([out[number] for number in range(len(rows))])


def layer_list(given: int | Sequence[int] | None, model: Model, which: str) -> list[int]:
    """Layers as sorted numbers from 0; None is all of them. Raises `BadInput` for one that does not exist."""
    depth = len(model.sites.blocks)
    layers = list(range(depth)) if given is None else [given] if isinstance(given, int) else list(given)
    for layer in layers:
        if not -depth <= layer < depth:
            raise BadInput(f"patchscope: {which} layer {layer} does not exist: this model has layers 0 to {depth - 1}")
    if not layers:
        raise BadInput(f"patchscope: no {which} layers were given")
    return sorted({layer % depth for layer in layers})


def own_layer(layer: int, source: Model, target: Model) -> int:
    """The target's layer at the depth of the source's: the same number when the models are equally deep."""
    depths = len(source.sites.blocks), len(target.sites.blocks)
    return layer if depths[0] == depths[1] else round(layer * (depths[1] - 1) / max(1, depths[0] - 1))


def check_widths(source: Model, target: Model, mapping: Mapping | None) -> None:
    """Raise `BadInput` when the states of one model do not fit into the other and no mapping is given."""
    widths = source.sites.main.width, target.sites.main.width
    if mapping is None and widths[0] != widths[1]:
        raise BadInput(
            f"patchscope: the source's states are {widths[0]} wide and the target's {widths[1]}: give a mapping "
            "between the two models (interpretation.map_states fits one)"
        )
