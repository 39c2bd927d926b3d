"""Site names and patterns: `layers.7.resid_post`, `vision.layers.*.mlp_out`, `layers.4:8.z`, `layers.-1.resid_post`."""

from __future__ import annotations

import re
from collections.abc import Iterable

from intarsia.errors import BadInput, did_you_mean

BLOCK_SITES = (
    "resid_pre", "attn_in", "q", "k", "v", "scores", "pattern", "z", "attn_out", "cross_out", "resid_mid",
    "mlp_in", "router", "router_weights", "router_experts", "mlp_act", "mlp_out", "resid_post",
)  # fmt: skip
TOWER_SITES = ("embed", "final_norm")
MEANINGS = {
    "embed": "the residual stream that enters the first block [batch, token, width]",
    "resid_pre": "the residual stream before the block [batch, token, width]",
    "resid_mid": "the residual stream between attention and MLP [batch, token, width]",
    "resid_post": "the residual stream after the block [batch, token, width]",
    "attn_in": "what attention reads: the normed stream [batch, token, width]",
    "mlp_in": "what the MLP reads: the normed stream [batch, token, width]",
    "attn_out": "what attention adds to the stream [batch, token, width]",
    "cross_out": "what cross-attention adds to the stream [batch, token, width]",
    "mlp_out": "what the MLP adds to the stream [batch, token, width]",
    "q": "queries after position encoding [batch, token, head, head width]",
    "k": "keys after position encoding [batch, token, key-value head, head width]",
    "v": "values [batch, token, key-value head, head width]",
    "scores": "scaled attention scores before mask and softmax [batch, query token, head, key token]",
    "pattern": "attention probabilities [batch, query token, head, key token]",
    "z": "each head's output before the output projection [batch, token, head, head width]",
    "mlp_act": "neurons: the input of the down projection [batch, token, neuron]",
    "router": "router logits [batch, token, expert]; read only",
    "router_weights": "weights of the chosen experts [batch, token, choice]",
    "router_experts": "indices of the chosen experts [batch, token, choice]",
    "final_norm": "the stream after the final norm [batch, token, width]",
    "logits": "the network's logits [batch, token, vocabulary]",
}
_PART = re.compile(r"^(?:(?P<tower>.+?)\.)?layers\.(?P<layers>[^.]+)\.(?P<site>[a-z_]+)$")


def expand(pattern: str, layers: dict[str, int], known: Iterable[str]) -> list[str]:
    """The site names a pattern selects, in block order.

    - layers: tower name ("" for the only one) -> number of blocks; known: all site names there are.

    Raises `BadInput` with the nearest names when nothing fits."""
    known = dict.fromkeys(known)
    if pattern in known:
        return [pattern]
    match = _PART.match(pattern)
    if not match:
        raise _unknown(pattern, known)
    wanted = match["tower"] or ""
    towers = [t for t in layers if wanted == "*" or t == wanted]
    if not towers:
        raise _unknown(pattern, known)
    names = []
    for tower in towers:
        prefix = f"{tower}." if tower else ""
        for index in _indices(match["layers"], layers[tower], pattern):
            name = f"{prefix}layers.{index}.{match['site']}"
            if name in known:
                names.append(name)
            elif "*" not in match["layers"] and ":" not in match["layers"]:
                raise _unknown(name, known)
    if not names:
        raise _unknown(pattern, known)
    return names


def _indices(text: str, count: int, pattern: str) -> list[int]:
    if text == "*":
        return list(range(count))
    try:
        if ":" in text:
            return list(range(count))[slice(*(int(part) if part else None for part in text.split(":")))]
        index = int(text)
    except ValueError:
        raise BadInput(f"site '{pattern}': '{text}' is no layer: give a number, a slice like 4:8, or *") from None
    if not -count <= index < count:
        raise BadInput(f"site '{pattern}': layer {index} of {count} does not exist (0 to {count - 1})")
    return [index % count]


def _unknown(name: str, known: dict[str, None]) -> BadInput:
    return BadInput(f"no site '{name}'{did_you_mean(name, known)}; print(model.sites) shows them all")
