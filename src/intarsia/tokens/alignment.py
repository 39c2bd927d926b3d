"""The loss that cross tokens learn from: each tower's guide says in the joint space what the other tower's says.

Source: Shi et al. 2024 (CrossGET), §3.2. Stop-gradients stand on everything but the offsets: a guide is its tower's
class row, detached, plus an offset; norms and projections are used with their weights detached."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from intarsia.errors import BadInput
from intarsia.models import wrap
from intarsia.models.seeing import vision_model
from intarsia.sites.inputs import Batch
from intarsia.sites.recomposing import Recomposed, installed
from intarsia.sites.sitemap import site_map
from intarsia.sites.tape import recording
from intarsia.sites.towers import Tower, image_token
from intarsia.tokens.merging import Merging

Form = Literal["js", "official"]
Map = Callable[[Tensor], Tensor]


def divergence(images: Tensor, texts: Tensor, form: Form = "js") -> Tensor:
    """How far two batches of rows [..., width] are apart as distributions over their width, the mean over all rows.

    With p, q their softmax and m the mean of both: `js` is the Jensen-Shannon divergence, (KL(p|m) + KL(q|m)) / 2;
    `official` what the authors' code computes, (KL(m|p) + KL(m|q)) / 2. Nats; both are 0 for equal rows. Gradients go
    through m. Computed in float32 at least."""
    kind = torch.promote_types(images.dtype, torch.float32)
    log_p, log_q = F.log_softmax(images.to(kind), dim=-1), F.log_softmax(texts.to(kind), dim=-1)
    log_m = torch.logaddexp(log_p, log_q) - torch.log(torch.tensor(2.0, dtype=kind, device=images.device))
    if form == "js":
        apart = log_p.exp() * (log_p - log_m) + log_q.exp() * (log_q - log_m)
    else:
        apart = log_m.exp() * (2 * log_m - log_p - log_q)
    return apart.sum(-1).mean() / 2


def stretched(blocks: int, most: int) -> list[int]:
    """Which of `blocks` stands beside each of `most` blocks: block i is repeated
    floor((i+1) most / blocks) - floor(i most / blocks) times."""
    return [i for i in range(blocks) for _ in range((i + 1) * most // blocks - i * most // blocks)]


def detached(module: nn.Module) -> Map:
    """The module as a function that its own weights do not learn from."""

    def call(rows: Tensor) -> Tensor:
        weights = {name: p.detach() for name, p in module.named_parameters()}
        return torch.func.functional_call(module, weights, (rows,))

    return call


def has_guides(network: nn.Module) -> bool:
    """Whether the network's vision tower has cross tokens."""
    return any(
        isinstance(owner.rule, Merging) and owner.rule.plan.kind == "vision" and owner.rule.offsets is not None
        for owner in installed(network).values()
    )


class Alignment:
    """The alignment loss of one merged network.

    - dual encoders (CLIP, SigLIP): the text tower's guide is its end row plus an offset, and both guides are seen
      through the norm and projection (SigLIP: the pooling head) that their tower's result goes through.
    - networks whose decoder reads the rows (LLaVA): the image guide goes through the projector and meets the decoder's
      row of the first word of the prompt that is no picture, as the block gets it. Nothing is overwritten there.
    - cross-attention (BLIP): the image guide, as the text tower's block would read it (value and output maps of its
      cross-attention; BLIP for retrieval: the joint space), meets that block's first row.

    Raises `BadInput` for a network without cross tokens, or one whose two towers have no space in common."""

    def __init__(self, network: nn.Module, form: Form = "js"):
        if not has_guides(network):
            raise BadInput("this model has no cross tokens to align: merge it with cross (merge(model, cross=True))")
        self.network, self.form = network, form
        owners = installed(network)
        self.vision = next(o for o in owners.values() if o.rule.plan.kind == "vision")  # type: ignore[union-attr]
        self.text: Recomposed | None = next(
            (o for o in owners.values() if o.rule.plan.kind == "text"),  # type: ignore[union-attr]
            None,
        )
        self._read: dict[str, Tensor] = {}
        self._ids: Tensor | None = None
        self._mask: Tensor | None = None
        self._reader: Tower | None = None
        if self.text is None:
            self._reader = _reader(network)
            self.sites = site_map(network)

    @contextlib.contextmanager
    def aligning(self) -> Iterator[None]:
        """Inside, every forward has all guides; after, the rules are as they were."""
        rules = [o.rule for o in (self.vision, self.text) if o is not None and isinstance(o.rule, Merging)]
        before = [rule.aligning for rule in rules]
        for rule in rules:
            rule.aligning = True
        try:
            yield
        finally:
            for rule, was in zip(rules, before, strict=True):
                rule.aligning = was

    @contextlib.contextmanager
    def watching(self, batch: Mapping[str, Any]) -> Iterator[None]:
        """Around one forward of the network, called with `batch` or parts of it: what `loss` needs is noted."""
        self._read = {}
        if self._reader is None:
            yield
            return
        self._ids, self._mask = batch.get("input_ids"), batch.get("attention_mask")
        given = {name: value for name, value in batch.items() if isinstance(value, Tensor)}
        names = [f"{self._reader.prefix}layers.{i}.resid_pre" for i in range(len(self._reader.blocks))]
        with recording(self.sites, Batch(given, None), names) as tape:
            yield
        self._read = {name: tape.read[name].detach() for name in names if name in tape.read}

    def loss(self) -> Tensor:
        """Of the last forward, the mean over blocks and samples. Towers of different depth: the shallower's blocks are
        repeated. Only the offsets get gradients."""
        images = self._guides(self.vision)
        maps, texts = self._text_side()
        most = max(len(images), len(texts))
        beside = zip(stretched(len(images), most), stretched(len(texts), most), strict=True)
        parts = []
        for i, j in beside:
            row, said = images[i], texts[j]
            if self._reader is not None and image_token(self.network.config) is not None:
                said = said.repeat_interleave(self._pictures(len(row)), dim=0)
            elif len(said) != len(row):  # several questions about each picture
                row = row.repeat_interleave(len(said) // len(row), dim=0)
            parts.append(divergence(maps[j](row), said, self.form))
        return torch.stack(parts).mean()

    def _guides(self, owner: Recomposed) -> list[Tensor]:
        flow = owner.flow
        if flow is None or not flow.facts.get("cross"):
            raise BadInput("no forward with cross tokens has run: call the network inside aligning()")
        return flow.facts["cross"]

    def _text_side(self) -> tuple[list[Map], list[Tensor]]:
        """By text block: what the image guide goes through, and the row it is held against."""
        network: Any = self.network
        if self.text is not None:
            seen, said = dual_maps(network)
            rows = self._guides(self.text)
            return [seen] * len(rows), [said(row) for row in rows]
        assert self._reader is not None
        streams = list(self._read.values())
        if image_token(network.config) is not None:
            projector = detached(_found(network, "multi_modal_projector"))
            rows = [self._first_word(stream, i) for i, stream in enumerate(streams)]
            return [projector] * len(rows), rows
        norm = detached(vision_model(wrap(network)).post_layernorm)
        if hasattr(network, "vision_proj"):
            seen, said = detached(network.vision_proj), detached(network.text_proj)
            return [lambda row: seen(norm(row))] * len(streams), [said(stream[:, 0]) for stream in streams]

        def reading(block: Any) -> Map:
            value, out = detached(block.crossattention.self.value), detached(block.crossattention.output.dense)
            return lambda row: out(value(norm(row)))

        return [reading(block) for block in self._reader.blocks], [stream[:, 0] for stream in streams]

    def _first_word(self, stream: Tensor, index: int) -> Tensor:
        """[batch, width]: the row of the prompt's first real token that is no picture's, before block `index`."""
        assert self._ids is not None
        word = self._ids != image_token(self.network.config)
        if self._mask is not None:
            word = word & (self._mask > 0)
        place = word.int().argmax(dim=1, keepdim=True)
        owner = installed(self.network).get(self._reader.name)  # type: ignore[union-attr]
        flow = owner.flow if owner is not None else None
        before = [t for t in flow.traces if t.index < index] if flow is not None else []
        if before and stream.shape[1] == before[-1].sizes.shape[1]:
            place = before[-1].owner.gather(1, place)
        return stream.gather(1, place[..., None].expand(-1, 1, stream.shape[2]))[:, 0]

    def _pictures(self, count: int) -> Tensor:
        """[prompt]: how many of the batch's pictures lie in each prompt."""
        assert self._ids is not None
        places = (self._ids == image_token(self.network.config)).sum(1)
        return places // (int(places.sum()) // count)


def dual_maps(network: Any) -> tuple[Map, Map]:
    """From a row of the vision tower and from one of the text tower to the joint space, weights detached."""
    vision, text = network.vision_model, network.text_model
    norms = detached(vision.post_layernorm), detached(text.final_layer_norm)
    if hasattr(network, "visual_projection"):
        heads = detached(network.visual_projection), detached(network.text_projection)
    elif hasattr(vision, "head") and hasattr(text, "head"):
        # The head pools rows by a probe: over one row it gives what that row alone would give.
        pool = detached(vision.head)
        heads = (lambda row: pool(row[:, None])), detached(text.head)
    else:
        raise BadInput(f"{type(network).__name__} has no projections into a joint space: its guides cannot be aligned")
    return (lambda row: heads[0](norms[0](row))), (lambda row: heads[1](norms[1](row)))


def _found(network: Any, name: str) -> nn.Module:
    for owner in (network, getattr(network, "model", None)):
        if owner is not None and (module := getattr(owner, name, None)) is not None:
            return module
    raise BadInput(f"{type(network).__name__} has no {name}: its guides cannot be aligned with its language model")


def _reader(network: nn.Module) -> Tower:
    """The tower that reads the pictures: the language model, or the first that looks at them by cross-attention."""
    sites = site_map(network)
    others = [tower for tower in sites.towers.values() if tower.name != "vision"]
    if image_token(network.config) is not None:
        _found(network, "multi_modal_projector")
        return sites.main
    crossing = [tower for tower in others if hasattr(tower.blocks[0], "crossattention")]
    if not crossing:
        raise BadInput(f"{type(network).__name__} has no tower of words that its guides could be aligned with")
    return crossing[0]
