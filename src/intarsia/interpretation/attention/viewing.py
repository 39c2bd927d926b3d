"""The computation behind `interpretation.attention`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from intarsia.errors import BadInput
from intarsia.interpretation import states
from intarsia.interpretation.attention.view import KINDS, AttentionConfig, AttentionPicture, AttentionView, HeadScores
from intarsia.interpretation.wording import percent, visible
from intarsia.progress import track
from intarsia.sites import read

if TYPE_CHECKING:
    from intarsia.models import Model


@torch.no_grad()
def look(model: Model, config: AttentionConfig, records: Sequence[Any] | None, seed: int) -> AttentionView:
    """Read the patterns of the texts one by one and average; see `interpretation.attention`."""
    what = "interpretation.attention"
    states.check_readable(model, what)
    if config.prompt is not None:
        records = [config.prompt]
    if not records:
        raise BadInput(f"{what}: no text was given: give texts, or one as prompt")
    layers = [i for i in range(states.layer_count(model)) if _site(model, i) in model.sites]
    if not layers:
        raise BadInput(f"{what}: no attention patterns can be read in {type(model.network).__name__}")
    if (config.layer is None) != (config.head is None):
        raise BadInput(f"{what}: layer and head belong together: give both, or neither")
    chosen = states.choose(records, config.max_texts, seed, what)
    texts = [states.text_of(record) for record in chosen]
    sums: dict[int, Tensor] = {}
    first: dict[int, Tensor] = {}
    ids: list[int] = []
    positions = 0
    causal = True
    for tokens in track(list(states.batches(model, texts, config.max_tokens, 1)), "reading attention"):
        found = _patterns(model, tokens.ids, layers)
        length = tokens.ids.shape[1]
        causal = causal and not bool(found[layers[0]].triu(1).any())
        if not first:
            first, ids = found, tokens.ids[0].tolist()
        if length < 3:
            continue
        positions += length - 2
        for layer in layers:
            sums[layer] = sums.get(layer, 0.0) + head_sums(found[layer], causal)
    if not positions:
        raise BadInput(f"{what}: every text is shorter than three tokens: there is nothing to look back at")
    induction = _induction(model, layers, config.repeated, seed) if causal else {}
    heads = []
    for layer in layers:
        for head, (entropy, previous, sink) in enumerate((sums[layer] / positions).tolist()):
            copies = float(induction[layer][head]) if causal else None
            heads.append(
                HeadScores(layer=layer, head=head, entropy=entropy, previous=previous, first=sink, induction=copies)
            )
    view = AttentionView(
        title=f"What the heads of {model.identity.source} attend to",
        technique=what,
        heads=heads,
        texts=len(texts),
        positions=positions,
        provenance={"seed": seed, "settings": config.model_dump(), "texts": len(texts), "positions": positions},
    )
    pictures = _pictures(model, config, view, first, ids)
    return view.model_copy(update={"pictures": pictures, "summary": summarise(view)})


def _site(model: Model, layer: int) -> str:
    return states.site_name(model.sites, layer, "pattern")


def _patterns(model: Model, ids: Tensor, layers: list[int]) -> dict[int, Tensor]:
    acts = read(model, ids.to(model.device), [_site(model, layer) for layer in layers])
    return {layer: acts[_site(model, layer)][0].transpose(0, 1).double().cpu() for layer in layers}


def head_sums(pattern: Tensor, causal: bool) -> Tensor:
    """[head, 3] sums over all positions but the first two of a pattern [head, query, key]: entropy as a share of the
    most there could be, attention to the previous token, attention to the first."""
    length = pattern.shape[-1]
    rows = pattern[:, 2:]
    seen = torch.arange(3, length + 1) if causal else torch.full((length - 2,), length)
    entropy = -torch.special.xlogy(rows, rows).sum(-1) / seen.double().log()
    previous = pattern.diagonal(-1, 1, 2)[:, 1:]
    return torch.stack([entropy.sum(-1), previous.sum(-1), rows[:, :, 0].sum(-1)], dim=-1)


def _induction(model: Model, layers: list[int], count: int, seed: int) -> dict[int, Tensor]:
    """[head] by layer: attention, on random tokens said twice, to what followed the same token the first time."""
    tokenizer = model.tokenizer
    special = set(tokenizer.all_special_ids)  # type: ignore[union-attr]
    plain = torch.tensor([i for i in range(len(tokenizer)) if i not in special])  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(seed)
    if model.context_length:
        count = min(count, (model.context_length - 1) // 2)
    once = plain[torch.randperm(len(plain), generator=generator)[:count]].tolist()
    start = [tokenizer.bos_token_id] if tokenizer.bos_token_id is not None else []  # type: ignore[union-attr]
    found = _patterns(model, torch.tensor([[*start, *once, *once]]), layers)
    # The query in the second half sits at start + count + i; what followed its token before is at start + i + 1.
    return {
        layer: pattern.diagonal(1 - len(once), 1, 2)[:, len(start) + 1 :].mean(-1) for layer, pattern in found.items()
    }


def _pictures(
    model: Model, config: AttentionConfig, view: AttentionView, found: dict[int, Tensor], ids: list[int]
) -> list[AttentionPicture]:
    name = states.Vocabulary(model)
    wanted: dict[tuple[int, int], str] = {}
    if config.layer is not None and config.head is not None:
        count = states.layer_count(model)
        layer = config.layer + count if config.layer < 0 else config.layer
        if layer not in found or config.head >= len(found[layer]):
            have = f"{count} layers of {len(next(iter(found.values())))} heads"
            raise BadInput(f"interpretation.attention: no head {config.head} in layer {config.layer}: there are {have}")
        wanted[layer, config.head] = "its pattern"
    else:
        for kind in ("induction", "previous", "first"):
            for head in view.top(kind, 1):
                wanted.setdefault((head.layer, head.head), f"the strongest of the kind '{KINDS[kind][0]}'")
        wanted = dict(list(wanted.items())[: config.pictures])
    shown = config.picture_tokens
    tokens = [visible(name(i)) for i in ids[:shown]]
    return [
        AttentionPicture(
            layer=layer, head=head, why=why, tokens=tokens, pattern=found[layer][head, :shown, :shown].tolist()
        )
        for (layer, head), why in wanted.items()
    ]


def summarise(view: AttentionView) -> str:
    """Which heads stand out, and where attention rests."""
    previous = view.top("previous", 1)[0]
    rest = sum(head.first for head in view.heads) / len(view.heads)
    text = (
        f"Head {previous.head} of layer {previous.layer} looks most at the previous token ({percent(previous.previous)}"
    )
    text += " of its attention)"
    if induction := view.top("induction", 1):
        best = induction[0]
        text += (
            f", head {best.head} of layer {best.layer} most repeats what came before ({percent(best.induction or 0)})"
        )
    text += f". On average {percent(rest)} of attention rests on the first token."
    return text + " Patterns show where heads look, not what matters: ablate a head to see."
