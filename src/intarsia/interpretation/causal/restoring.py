"""The computation behind `interpretation.patch_back`.

No module is exchanged: the part of one network is run, by `resume`, on the stream of the other, and what it adds is
written there. That equals swapping its weights (and the norm before it), and works for quantized and adapted networks
whose modules have nothing in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from intarsia.errors import BadInput
from intarsia.interpretation import divergence, states
from intarsia.interpretation.causal.cells import below, resumed, site
from intarsia.interpretation.causal.patch_back import NAMES, Behaviour, PatchBack, PatchBackConfig, Restored
from intarsia.interpretation.model_diff.compare import check_tokenizers
from intarsia.interpretation.model_diff.prompts import prompts
from intarsia.interpretation.wording import percent
from intarsia.measure import provenance
from intarsia.progress import tell
from intarsia.sites import Activations, Replace, read, unembed

if TYPE_CHECKING:
    from intarsia.models import Model

WHO = "interpretation.patch_back"
TASK = "putting parts back"
CHUNK = 128  # positions whose logits are held at a time
OUT = {"attention": ["attn_out"], "mlp": ["mlp_out"], "block": ["attn_out", "mlp_out"]}


def put_back(changed: Model, original: Model, config: PatchBackConfig, records: Sequence[Any], seed: int) -> PatchBack:
    """Put every part back; see `interpretation.patch_back`."""
    _check(changed, original)
    chosen = states.choose(records, config.max_texts, seed, WHO)
    items, as_prompts = prompts(chosen, original, changed, None, config.max_tokens)
    check_tokenizers(original, changed, [item.text for item in items])
    limit = None if as_prompts else config.max_tokens
    batches = list(states.batches(changed, [item.text for item in items], limit, config.batch_size))
    layers = states.spaced(states.layer_count(changed), config.stride)
    jobs: list[tuple[str, int]] = [("embedding", -1)]
    jobs += [(part, layer) for layer in layers for part in config.parts]
    jobs += (
        [("stream", layer) for layer in layers] if config.by == "activations" else [("head", len(changed.sites.blocks))]
    )

    sums: dict[tuple[str, int, str], _Sum] = {}
    whole = {"original": _Sum(), "changed": _Sum()}
    total = len(jobs) * len(batches) * (2 if config.reverse else 1)
    done = 0
    for tokens in batches:
        cues = torch.tensor([-1 if item.cue is None else item.cue for item in items])
        said = _Said(original, changed, tokens, cues if as_prompts else None, config.by)
        whole["original"].add(said.measure(said.runs["original"]["final"], "original"))
        whole["changed"].add(said.measure(said.runs["changed"]["final"], "changed"))
        for part, layer in jobs:
            for way, host in (("restored", "changed"), ("transplanted", "original")):
                if way == "transplanted" and not config.reverse:
                    continue
                tell(TASK, done, total)
                final, head = said.put(part, layer, host)
                sums.setdefault((part, layer, way), _Sum()).add(said.measure(final, head))
                done += 1
    tell(TASK, done, total, finished=True)

    behaviour = {name: total.behaviour() for name, total in whole.items()}
    if behaviour["changed"].kl <= 0:
        raise BadInput(f"{WHO}: both models say exactly the same on these texts: there is no change to undo")
    found = []
    for part, layer in jobs:
        restored = sums[part, layer, "restored"].behaviour()
        other = sums[part, layer, "transplanted"].behaviour() if config.reverse else None
        inside = 0 <= layer < len(changed.sites.blocks)
        found.append(
            Restored(
                name=f"{NAMES[part]} {layer}" if inside else part,
                part=part,
                layer=layer if inside else None,
                undone=1 - restored.kl / behaviour["changed"].kl,
                carried=1 - other.back / behaviour["original"].back if other else None,
                restored=restored,
                transplanted=other,
            )
        )
    finding = PatchBack(
        title=f"Which part of {changed.identity.source} did it",
        technique=WHO,
        by=config.by,
        original=behaviour["original"],
        changed=behaviour["changed"],
        parts=found,
        texts=len(items),
        positions=whole["changed"].positions,
        labelled=behaviour["changed"].label is not None,
        provenance=provenance(seed=seed, settings=config.model_dump(), against=original.identity.source),
    )
    return finding.model_copy(update={"summary": summarise(finding)})


def _check(changed: Model, original: Model) -> None:
    shapes = []
    for model in (changed, original):
        states.check_readable(model, WHO)
        if model.tokenizer is None or not states.has_head(model):
            raise BadInput(f"{WHO}: both must be language models with their tokenizer and a head over their vocabulary")
        shapes.append((len(model.sites.blocks), model.sites.main.width))
        for kind in ("attn_out", "mlp_out"):
            for layer in range(shapes[-1][0]):
                model.sites.expand(site(model, layer, kind))
    if shapes[0] != shapes[1]:
        raise BadInput(
            f"{WHO}: the models have {shapes[0][0]} layers of width {shapes[0][1]} and {shapes[1][0]} of width "
            f"{shapes[1][1]}: parts can be put back only where both have the same shape"
        )
    if changed.sites.wiring[changed.sites.main.name][0].form != original.sites.wiring[original.sites.main.name][0].form:
        raise BadInput(f"{WHO}: the blocks of the two models are wired differently")


class _Said:
    """A batch of texts in both models: their states, and what any mixture of them says."""

    def __init__(self, original: Model, changed: Model, tokens: states.Tokens, cues: Tensor | None, by: str):
        self.models, self.tokens, self.by = {"original": original, "changed": changed}, tokens, by
        inputs = {"input_ids": tokens.ids, "attention_mask": tokens.mask.long()}
        self.runs: dict[str, dict[str, Any]] = {}
        kept = torch.nonzero(tokens.mask & (torch.arange(tokens.ids.shape[1], device=tokens.ids.device) > 0))
        # An encoder predicts the token itself; there is no next one to be right about.
        following = tokens.ids.new_full(tokens.ids.shape, -1)
        if states.is_causal(changed):
            following[:, :-1] = torch.where(tokens.mask[:, 1:], tokens.ids[:, 1:], -1)
        self.where, self.next = kept, following[kept[:, 0], kept[:, 1]]
        self.label = None
        if cues is not None:
            mine = cues[tokens.first : tokens.first + len(tokens.ids)].to(kept.device)
            self.label = (mine[kept[:, 0]] >= 0) & (kept[:, 1] >= mine[kept[:, 0]]) & (self.next >= 0)
        count = len(changed.sites.blocks)
        for name, model in self.models.items():
            fed = {key: value.to(model.device) for key, value in inputs.items()}
            at = [site(model, layer, kind) for layer in range(count) for kind in ("attn_out", "mlp_out")]
            at += [below(model, layer) for layer in range(count + 1)]
            with torch.no_grad():
                acts = read(model, fed, at)
            final = acts[below(model, count)][kept[:, 0], kept[:, 1]]
            self.runs[name] = {"acts": acts, "final": final}
        for name in self.models:
            self.runs[name]["log_p"] = [
                divergence.log_probabilities(states.logits(self.models[name], part)).cpu()
                for part in self.runs[name]["final"].split(CHUNK)
            ]

    @torch.no_grad()
    def put(self, part: str, layer: int, host: str) -> tuple[Tensor, str]:
        """The final states [position, width] of `host` with one part of the other model in it, and whose head reads
        them."""
        guest = "original" if host == "changed" else "changed"
        model, acts, theirs = self.models[host], self.runs[host]["acts"], self.runs[guest]["acts"]
        if part == "head":
            return self.runs[host]["final"], guest
        if part == "embedding":
            return self._on(model, acts, 0, state=theirs[below(self.models[guest], 0)]), host
        if part == "stream":
            return self._on(model, acts, layer + 1, state=theirs[below(self.models[guest], layer + 1)]), host
        new = self._theirs(part, layer, host, guest)
        return self._on(model, acts, layer, [Replace(site(model, layer, k), value=v) for k, v in new.items()]), host

    def _theirs(self, part: str, layer: int, host: str, guest: str) -> dict[str, Tensor]:
        """What the guest's part adds in the host's layer, by kind of site."""
        other, acts = self.models[guest], self.runs[host]["acts"]
        names = {kind: site(other, layer, kind) for kind in OUT[part]}
        if self.by == "activations":
            return {kind: self.runs[guest]["acts"][name] for kind, name in names.items()}
        stream = acts[below(self.models[host], layer)].to(other.device, other.dtype)
        edits = []
        if part == "mlp":
            # The guest's MLP reads what the host's attention left.
            edits = [Replace(site(other, layer, "attn_out"), value=acts[site(self.models[host], layer, "attn_out")])]
        rows = list(range(len(stream)))
        found = resumed(other, self.runs[guest]["acts"], layer, rows, edits, stream, at=list(names.values()))
        return {kind: found[name] for kind, name in names.items()}

    def _on(
        self, model: Model, acts: Activations, layer: int, edits: Sequence[Replace] = (), state: Tensor | None = None
    ) -> Tensor:
        count = len(model.sites.blocks)
        stream = acts[below(model, layer)] if state is None else state.to(model.device, model.dtype)
        if layer < count:
            name = below(model, count)
            stream = resumed(model, acts, layer, list(range(len(stream))), list(edits), stream, at=name)[name]
        where = self.where.to(stream.device)
        return stream[where[:, 0], where[:, 1]]

    @torch.no_grad()
    def measure(self, final: Tensor, head: str) -> dict[str, Tensor]:
        """Sums over the positions of what final states [position, width] say through a model's own norm and head."""
        columns: dict[str, list[Tensor]] = {"kl": [], "back": [], "loss": []}
        model = self.models[head]
        for number, part in enumerate(final.split(CHUNK)):
            log_p = divergence.log_probabilities(unembed(model, part.to(model.device, model.dtype))).cpu()
            columns["kl"].append(divergence.kl(self.runs["original"]["log_p"][number], log_p))
            columns["back"].append(divergence.kl(self.runs["changed"]["log_p"][number], log_p))
            following = self.next[number * CHUNK : number * CHUNK + len(part)].cpu()
            columns["loss"].append(-log_p.gather(-1, following.clamp_min(0)[:, None])[:, 0].double())
        values = {name: torch.cat(parts) for name, parts in columns.items()}
        known = (self.next >= 0).cpu()
        out = {"kl": values["kl"], "back": values["back"], "loss": values["loss"][known]}
        if self.label is not None:
            rows = self.where[:, 0].cpu()[self.label.cpu()]
            words = torch.zeros(len(self.tokens.ids), dtype=torch.float64)
            words.index_add_(0, rows, -values["loss"][self.label.cpu()])
            out["label"] = words[rows.unique()]  # one sum a text: log p of all of its label's words
        return out


@dataclass
class _Sum:
    """Sums over batches."""

    values: dict[str, list[Tensor]] = field(default_factory=dict)

    def add(self, columns: dict[str, Tensor]) -> None:
        for name, column in columns.items():
            self.values.setdefault(name, []).append(column)

    @property
    def positions(self) -> int:
        return sum(len(column) for column in self.values["kl"])

    def behaviour(self) -> Behaviour:
        joined = {name: torch.cat(parts) for name, parts in self.values.items()}
        if not len(joined["kl"]):
            raise BadInput(f"{WHO}: every text is a single token: wants texts of two tokens or more")
        return Behaviour(**{name: float(column.mean()) for name, column in joined.items() if len(column)})


def summarise(finding: PatchBack) -> str:
    """What undoes most, and whether it also makes the change."""
    best = finding.ranked()
    where = f"{finding.positions} positions of {finding.texts} texts"
    text = f"The change is {finding.changed.kl:.3g} nats of KL a position ({where}). "
    one = "the original's weights of one part" if finding.by == "weights" else "what one part gave in the original"
    parts = ", ".join(f"the {p.name} ({percent(max(p.undone, 0.0))})" for p in best[:3])
    text += f"Putting back {one} undoes at most: {parts}. "
    top = best[0]
    if top.carried is not None:
        text += f"The changed {top.name} alone takes the original {percent(max(top.carried, 0.0))} of the way. "
    if top.undone < 0.2:
        text += "No single part explains it: the change is spread over the network."
    elif top.carried is not None and top.carried < 0.5 * top.undone:
        text += "It is needed for the change, but does not make it alone."
    else:
        text += "Shares of parts do not add up: they work together."
    return text
