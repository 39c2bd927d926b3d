"""`resume`: run only the blocks above a state; `unembed`: the network's own final norm and head on any state.

The blocks below are not run: for the length of the call they hand on what they are given, and the last of them gives
the state. Everything around the blocks (masks, position encodings, final norm, soft caps, logit scales, the form of the
output) is the network's own code, so the result is what the full forward would have given."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from intarsia.errors import BadInput
from intarsia.sites.activations import Activations
from intarsia.sites.edits import Apply, Edit
from intarsia.sites.inputs import Batch, Inputs, prepare, takes
from intarsia.sites.reading import _read_one, call
from intarsia.sites.sitemap import SiteMap, of
from intarsia.sites.tape import recording
from intarsia.sites.towers import Tower

if TYPE_CHECKING:
    from intarsia.models import Model


@contextlib.contextmanager
def skipping(sites: SiteMap, tower: Tower, last: int, state: Tensor | None, extras: dict[str, tuple]) -> Iterator[None]:
    """Inside, blocks 0..last of `tower` do not run: block `last` gives `state` (None: what it is given), those below
    what they are given.

    - extras: what tuple-returning blocks give beside the stream, by `layers.N`; for those missing, Nones."""
    before: dict[nn.Module, Any] = {}
    with sites.lock:
        try:
            for index, block in enumerate(tower.blocks[: last + 1]):
                returned = sites.wiring[tower.name][index].tuple_output
                nothing = (None,) * (returned - 1)
                beside = extras.get(f"{tower.prefix}layers.{index}", nothing) if returned else None
                before[block] = block.__dict__.get("forward")  # others exchange it too (offloading, a resume around us)
                block.__dict__["forward"] = _passing(state if index == last else None, beside)
            yield
        finally:
            for block, forward in before.items():
                if forward is None:
                    del block.__dict__["forward"]
                else:
                    block.__dict__["forward"] = forward


def _passing(state: Tensor | None, beside: tuple | None) -> Any:
    def forward(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        stream = hidden_states if state is None else state
        return stream if beside is None else (stream, *beside)

    return forward


def resume(
    model: Model,
    acts: Activations | Inputs,
    after: str | int,
    *,
    state: Tensor | None = None,
    edits: Sequence[Edit] = (),
    at: str | Sequence[str] | None = None,
    grad: bool = False,
    side: str = "right",
    **forward: Any,
) -> Any:
    """Run the blocks above `after` on a given state, and the head: exact, and as cheap as what is left to run.

    - acts: from `read`, with the site `<after>.resid_post` (or the next block's `resid_pre`) in it; or inputs as for
      `read`, with `state` given.
    - after: `layers.7` (or 7, in the main tower): the last block that does not run. `embed` runs all blocks.
    - state: [batch, token, width], instead of the one in `acts`.
    - edits: apply to the blocks above. `forward`: more arguments for the network (`logits_to_keep=1`, ...).
    - at: read these sites as well or instead of the head; the result is then `Activations`.
    - grad: keep the graph, for training the blocks above.

    Returns the network's `ModelOutput`, or `Activations` when `at` is given."""
    sites = of(model)
    batch = acts.batch if isinstance(acts, Activations) else prepare(model, acts, side)
    extras = dict(acts.extras) if isinstance(acts, Activations) else {}
    if after == "embed" or (isinstance(after, str) and after.endswith(".embed")):
        tower, last = sites.towers.get(after.removesuffix("embed").removesuffix("."), sites.main), -1
    else:
        tower, last = sites.block(after)
    if state is None:
        state = _state(acts, tower, last)
    width = tower.width
    if state.dim() != 3 or state.shape[0] != batch.size or state.shape[-1] != width:
        raise BadInput(f"resume: the state must be [{batch.size}, token, {width}], was given {list(state.shape)}")
    if last < 0:
        # Padding keeps what it had: nothing reads it.
        given = state
        edits = [Apply(f"{tower.prefix}embed", function=lambda old: given.to(old)), *edits]
    elif not extras and sites.wiring[tower.name][0].tuple_output:
        names = [f"{tower.prefix}layers.{last}.resid_post"]
        extras = _read_one(model, sites, batch, names, [], False, {}).extras
    _check_features(sites, tower, last)
    names = sites.expand(list(at) if not isinstance(at, str) else at) if at is not None else []
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.set_grad_enabled(grad))
        stack.enter_context(skipping(sites, tower, last, state, extras))
        for other in _upstream(sites, tower):
            stack.enter_context(skipping(sites, other, len(other.blocks) - 1, None, {}))
        tape = stack.enter_context(recording(sites, batch, names, list(edits), stop=bool(names)))
        output = call(model, sites, batch, names, forward)
    if names:
        return Activations({n: tape.read[n] for n in names}, batch, {**extras, **tape.extras}, model.tokenizer)
    return output


def upper_cache(after: int) -> Any:
    """A cache for resumes after block `after`: those below keep nothing, so its length is that of the blocks that run.

    Given as `past_key_values` to `resume`, it is filled, and read by the next one. For networks whose blocks all attend
    to everything before them."""
    from transformers import DynamicCache

    class Upper(DynamicCache):
        def get_seq_length(self, layer_idx: int = 0) -> int:
            return super().get_seq_length(max(layer_idx, after + 1))

        def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
            return super().get_mask_sizes(query_length, max(layer_idx, after + 1))

    return Upper()


def _state(acts: Any, tower: Tower, last: int) -> Tensor:
    if not isinstance(acts, Activations):
        raise BadInput("resume: give activations from `read`, or inputs together with `state`")
    names = [f"{tower.prefix}layers.{last}.resid_post", f"{tower.prefix}layers.{last + 1}.resid_pre"]
    if last < 0:
        names.insert(0, f"{tower.prefix}embed")
    for name in names:
        if name in acts.tensors:
            return acts[name]
    raise BadInput(f"resume: read '{names[0]}' first (there is {', '.join(acts.sites[:4])})")


def _check_features(sites: SiteMap, tower: Tower, last: int) -> None:
    """LLaVA takes a middle layer of its vision tower: what is below that must run."""
    wanted = getattr(sites.network.config, "vision_feature_layer", None)
    if tower.name != "vision" or wanted is None:
        return
    count = len(tower.blocks)
    lowest = min(f % (count + 1) for f in ([wanted] if isinstance(wanted, int) else wanted))
    if lowest <= last:
        raise BadInput(
            f"resume: this network uses its vision tower's stream after block {lowest - 1}, so it can be resumed "
            f"after vision.layers.{lowest - 1} at the latest"
        )


def _upstream(sites: SiteMap, tower: Tower) -> list[Tower]:
    """Towers whose result only reaches `tower` through its embeddings (LLaVA's vision tower): not needed on resume."""
    others = [t for t in sites.towers.values() if t is not tower]
    crossed = any("cross_out" in w.taps for w in sites.wiring[tower.name])
    return [] if crossed or tower.head_root is None else [t for t in others if t.name == "vision"]


def unembed(model: Model, hidden: Tensor, *, tower: str | None = None) -> Tensor:
    """Logits [..., vocabulary] of residual states [..., width]: the network's own final norm, head, caps and scales.

    The state is taken as if the last block had given it (the logit lens: nostalgebraist 2020). Keeps the graph when
    `hidden` requires gradients. Raises `BadInput` for a network without an output embedding."""
    sites = of(model)
    where = sites.main if tower is None else sites.towers[tower]
    head = where.head_root
    if head is None:
        raise BadInput(f"{type(model.network).__name__} has no output embedding: its states cannot be read as tokens")
    if hidden.shape[-1] != where.width:
        raise BadInput(f"unembed: states must be [..., {where.width}], were given {list(hidden.shape)}")
    sites.expand(f"{where.prefix}layers.-1.resid_post")  # says why, where blocks work on something else
    flat = hidden.reshape(-1, 1, where.width)
    ids = torch.zeros(flat.shape[0], 1, dtype=torch.long, device=flat.device)
    kwargs: dict[str, Any] = {"input_ids": ids}
    if getattr(head.config, "is_encoder_decoder", False):
        from transformers.modeling_outputs import BaseModelOutput

        kwargs = {
            "decoder_input_ids": ids,
            "encoder_outputs": BaseModelOutput(last_hidden_state=torch.zeros_like(flat)),
        }
    if takes(head, "use_cache"):
        kwargs["use_cache"] = False
    graph = torch.is_grad_enabled() and hidden.requires_grad
    with torch.set_grad_enabled(graph), skipping(sites, where, len(where.blocks) - 1, flat, {}):
        logits = head(**kwargs).logits
    return logits.reshape(*hidden.shape[:-1], logits.shape[-1])


def batch_of(model: Model, inputs: Inputs, side: str = "right") -> Batch:
    """The batch `read` would feed: token ids, masks, positions."""
    return prepare(model, inputs, side)
