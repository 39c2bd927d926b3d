"""States read behind the identity prompt, in batches; and the computation behind `interpretation.token_identity`."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from intarsia.errors import BadInput
from intarsia.interpretation import divergence
from intarsia.interpretation import states as reading
from intarsia.interpretation.patchscopes.operator import Source, Target, layer_list, patch, read_states
from intarsia.interpretation.patchscopes.prompts import Encoded, encode
from intarsia.interpretation.patchscopes.scoring import mean_interval
from intarsia.interpretation.patchscopes.token_identity import (
    PROMPTS,
    IdentityLayer,
    TokenIdentity,
    TokenIdentityConfig,
)
from intarsia.interpretation.wording import percent
from intarsia.progress import listening, track
from intarsia.sites.sweeping import Mapping

if TYPE_CHECKING:
    from intarsia.models import Model

CHUNK = 128  # states whose logits are held at a time


def identity_logits(
    model: Model,
    states: Tensor,
    layers: Sequence[int] | None = None,
    *,
    prompt: str = "paper",
    source_model: Model | None = None,
    mapping: Mapping | None = None,
) -> Tensor:
    """Next-token logits [state, layer, vocabulary] of states [state, layer, width] patched into their own layers.

    - layers: which layers the states are of; all by default.
    - prompt: `paper`, `sink`, or a target prompt of your own, patched at its last token."""
    source = source_model or model
    numbers = layer_list(layers, source, "source")
    parts = [
        patch(
            Source(source, "", layers=numbers, states=part),
            Target(model, PROMPTS.get(prompt, prompt), layers="same"),
            mapping=mapping,
            keep_logits=True,
        ).logits
        for part in states.split(CHUNK)
    ]
    return torch.cat([part for part in parts if part is not None])[:, :, 0]


def identity_log_probs(
    model: Model, states: Tensor, layers: Sequence[int] | None = None, *, prompt: str = "paper"
) -> Tensor:
    """`identity_logits` as log probabilities, [state, layer, vocabulary]."""
    return divergence.log_probabilities(identity_logits(model, states, layers, prompt=prompt))


def sample_positions(
    model: Model, records: Sequence[Any], positions: int, max_texts: int, max_tokens: int, seed: int, what: str
) -> list[tuple[int, Encoded, int]]:
    """Up to `positions` (text number, prompt, index) drawn by `seed` from texts, never the first token of one."""
    chosen = reading.choose(records, max_texts, seed, what)
    everything = []
    for number, record in enumerate(chosen):
        whole = encode(model, reading.text_of(record), "text", cut=True)
        prompt = Encoded(whole.ids[: max_tokens + 1], None, whole.own, whole.ends[: max_tokens + 1])
        everything += [(number, prompt, index) for index in range(1 + whole.own, len(prompt))]
    if not everything:
        raise BadInput(f"{what}: every text is a single token: wants texts of two tokens or more")
    picked = random.Random(seed).sample(range(len(everything)), min(positions, len(everything)))
    return [everything[i] for i in sorted(picked)]


@torch.no_grad()
def look(model: Model, config: TokenIdentityConfig, records: Sequence[Any], seed: int) -> TokenIdentity:
    """Precision@1 and surprisal by layer; see `interpretation.token_identity`."""
    what = "interpretation.token_identity"
    reading.check_readable(model, what)
    if not (reading.is_causal(model) and reading.has_head(model)):
        raise BadInput(f"{what}: {type(model.network).__name__} is no causal language model: load one that generates")
    layers = reading.spaced(reading.layer_count(model), config.stride)
    picks = sample_positions(model, records, config.positions, config.max_texts, config.max_tokens, seed, what)
    last = reading.layer_count(model) - 1
    wanted = sorted({*layers, last})
    states = read_states(model, [p for _, p, _ in picks], [i for *_, i in picks], wanted)
    of_layer = {layer: states[:, n] for n, layer in enumerate(wanted)}
    right: dict[str, list[Tensor]] = {"identity": [], "logit": []}
    surprise: dict[str, list[Tensor]] = {"identity": [], "logit": []}
    for part in track(list(torch.arange(len(picks)).split(CHUNK)), "reading states"):
        final = divergence.log_probabilities(reading.logits(model, of_layer[last][part]))
        with listening(None):
            patched = identity_logits(
                model, torch.stack([of_layer[i][part] for i in layers], 1), layers, prompt=config.prompt
            )
        tops = {"identity": patched.argmax(-1)}
        tops["logit"] = torch.stack([reading.logits(model, of_layer[i][part]).argmax(-1) for i in layers], 1)
        for name, top in tops.items():
            right[name].append(top == final.argmax(-1)[:, None])
            surprise[name].append(-final.gather(-1, top))
    p1 = {name: torch.cat(parts).double().cpu().numpy() for name, parts in right.items()}
    bits = {name: torch.cat(parts).double().cpu().numpy() for name, parts in surprise.items()}
    groups = [str(number) for number, *_ in picks]
    rows = []
    for n, layer in enumerate(layers):
        rows.append(
            IdentityLayer(
                layer=layer,
                agreement=mean_interval(p1["identity"][:, n], groups, seed),
                surprisal=mean_interval(bits["identity"][:, n], groups, seed),
                lens_agreement=float(p1["logit"][:, n].mean()),
                lens_surprisal=float(bits["logit"][:, n].mean()),
            )
        )
    finding = TokenIdentity(
        title=f"How early {model.identity.source} knows its next token",
        technique=what,
        prompt=PROMPTS.get(config.prompt, config.prompt),
        layers=rows,
        positions=len(picks),
        texts=len(set(groups)),
        mean_agreement=mean_interval(p1["identity"].mean(1), groups, seed),
        mean_surprisal=mean_interval(bits["identity"].mean(1), groups, seed),
        lens_mean_agreement=float(np.mean(p1["logit"])),
        gain=mean_interval((p1["identity"] - p1["logit"]).mean(1), groups, seed),
        provenance={"seed": seed, "settings": config.model_dump()},
    )
    return finding.model_copy(update={"summary": summarise(finding)})


def summarise(finding: TokenIdentity) -> str:
    """Two sentences on how early, and against the logit lens."""
    assert finding.mean_agreement and finding.gain
    half = next((row.layer for row in finding.layers if row.agreement[0] >= 0.5), None)
    text = f"Over all layers {percent(finding.mean_agreement[0])} of the states say the model's own next token"
    text += f" ({percent(finding.lens_mean_agreement)} through the logit lens)"
    text += f"; from layer {half} on at least half do." if half is not None else "; at no layer half of them do."
    mean, low, high = finding.gain
    if low <= 0 <= high:
        text += " Between this prompt and the logit lens there is no sure difference."
    else:
        text += f" The prompt reads {percent(abs(mean))} {'more' if mean > 0 else 'fewer'} of them than the lens."
    return text + f" Measured at {finding.positions:,} positions of {finding.texts} texts."
