"""The computation behind `interpretation.sae_features`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from intarsia.errors import BadInput
from intarsia.interpretation import divergence, states
from intarsia.interpretation.causal.contributions import frozen_norm
from intarsia.interpretation.features.fit_sae import FitSAEConfig
from intarsia.interpretation.features.sae import SAE
from intarsia.interpretation.features.sae_features import Feature, Place, SAEFeatures, SAEFeaturesConfig
from intarsia.interpretation.wording import percent
from intarsia.measure import provenance
from intarsia.progress import track
from intarsia.sites import Apply, read, unembed

if TYPE_CHECKING:
    from intarsia.models import Model

WHO = "interpretation.sae_features"
WORDS = 6
WRITES = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")  # states that are part of the stream


def look(model: Model, config: SAEFeaturesConfig, records: Sequence[Any], seed: int) -> SAEFeatures:
    """Read the texts through the SAE; see `interpretation.sae_features`."""
    states.check_readable(model, WHO)
    chosen = [states.text_of(r) for r in states.choose(records, config.max_texts, seed, WHO)]
    sae = SAE.load(config.sae, config.at) if config.sae is not None else _small(model, chosen, config, seed)
    sae = sae.to(model.device)
    (at,) = model.sites.expand(f"{model.sites.main.prefix}{sae.site}" if sae.site.startswith("layers.") else sae.site)
    parts = list(states.batches(model, chosen, config.max_tokens, config.batch_size))
    if bad := [f for f in config.features if not 0 <= f < sae.features]:
        raise BadInput(f"{WHO}: feature {bad[0]} does not exist, there are {sae.features} (0 to {sae.features - 1})")

    seen = _Seen(sae.features, config.examples)
    for tokens in track(parts, "reading features"):
        found = _flat(read(model, _inputs(tokens), at)[at], at)
        if found.shape[-1] != sae.width:
            raise BadInput(f"{WHO}: the SAE has width {sae.width}, and states at {at} have {found.shape[-1]}")
        seen.add(sae, found, tokens)
    if not seen.positions:
        raise BadInput(f"{WHO}: every text is a single token: wants texts of two tokens or more")
    numbers = config.features or seen.writing(sae).topk(min(config.most, sae.features)).indices.tolist()
    losses = _losses(model, sae, at, parts) if states.is_causal(model) and states.has_head(model) else None
    features = [_feature(model, seen, number, parts, config) for number in numbers]
    if states.has_head(model) and at.rpartition(".")[2] in WRITES:
        _words(model, sae, features, parts[0])
    if config.ablate and states.has_head(model):
        for feature in track(features, "taking features out"):
            _ablate(model, sae, at, feature, seen, parts)
    name = states.Vocabulary(model)
    maps = []
    for feature in features:
        if feature.largest > 0:
            text, _ = seen.place(feature.number, 0)
            tokens = next(t for t in reversed(parts) if t.first <= text)
            row = tokens.ids[text - tokens.first][tokens.mask[text - tokens.first]]
            found = _flat(read(model, row[None], at)[at], at)[0]
            values = sae.encode(found)[:, feature.number].float().tolist()
            maps.append((feature.number, [name(int(i)) for i in row], [0.0, *values[1:]]))
    explained, active, dead = seen.quality()
    finding = SAEFeatures(
        title=f"Sparse features of {model.identity.source} at {at}",
        technique=WHO,
        site=at,
        count=sae.features,
        explained=explained,
        active=active,
        dead=dead,
        positions=seen.positions,
        texts=len(chosen),
        features=features,
        maps=maps,
        fitted_here=config.sae is None,
        provenance=provenance(seed=seed, settings=config.model_dump()),
        **(losses or {}),
    )
    return finding.model_copy(update={"summary": summarise(finding)})


def _small(model: Model, texts: list[str], config: SAEFeaturesConfig, seed: int) -> SAE:
    from intarsia.interpretation.features.training import fit

    settings = FitSAEConfig(
        steps=config.steps, batch_states=128, expansion=4, max_tokens=config.max_tokens, batch_size=config.batch_size
    )
    return fit(model, settings, texts, None, seed)


def _inputs(tokens: states.Tokens) -> dict[str, Tensor]:
    return {"input_ids": tokens.ids, "attention_mask": tokens.mask.long()}


def _flat(state: Tensor, at: str) -> Tensor:
    return state.flatten(-2) if at.endswith(".z") else state


class _Seen:
    """Sums over all positions, and the most active places of every feature."""

    def __init__(self, count: int, examples: int):
        self.positions = 0
        self.active = torch.zeros(count, dtype=torch.long)
        self.mass = torch.zeros(count, dtype=torch.float64)
        self.best = torch.zeros(examples, count)
        self.where = torch.full((examples, count), -1, dtype=torch.long)
        self.error = self.square = 0.0
        self.sum: Tensor | float = 0.0
        self.texts: list[int] = []
        self.at: list[int] = []

    def add(self, sae: SAE, found: Tensor, tokens: states.Tokens) -> None:
        """One batch of states [text, token, width]."""
        keep = tokens.position > 0
        x = found[tokens.mask][keep]
        back, features = sae.reconstruct(x)
        x, back, features = x.double().cpu(), back.double().cpu(), features.float().cpu()
        self.error += float((x - back).pow(2).sum())
        self.square += float(x.pow(2).sum())
        self.sum = self.sum + x.sum(0)
        self.active += (features > 0).sum(0)
        self.mass += features.double().sum(0)
        number = torch.arange(self.positions, self.positions + len(x))
        values = torch.cat([self.best, features])
        names = torch.cat([self.where, number[:, None].expand(-1, features.shape[1])])
        top = values.topk(len(self.best), dim=0)
        self.best, self.where = top.values, names.gather(0, top.indices)
        self.texts += tokens.row[keep].tolist()
        self.at += tokens.position[keep].tolist()
        self.positions += len(x)

    def place(self, feature: int, rank: int) -> tuple[int, int]:
        """(text, position) of a feature's most active places."""
        number = int(self.where[rank, feature])
        return self.texts[number], self.at[number]

    def writing(self, sae: SAE) -> Tensor:
        """How much each feature writes in all: activation times the length of its direction."""
        return self.mass * sae.directions.norm(dim=-1).double().cpu()

    def quality(self) -> tuple[float, float, float]:
        """(variance explained, active features a position, share that never fires)."""
        spread = self.square - float(torch.as_tensor(self.sum).pow(2).sum()) / self.positions
        return (
            1 - self.error / spread,
            float(self.active.sum()) / self.positions,
            float((self.active == 0).double().mean()),
        )


def _feature(model: Model, seen: _Seen, number: int, parts: list[states.Tokens], config: SAEFeaturesConfig) -> Feature:
    name = states.Vocabulary(model)
    places = []
    for rank in range(config.examples):
        if float(seen.best[rank, number]) <= 0:
            break
        text, position = seen.place(number, rank)
        tokens = next(t for t in reversed(parts) if t.first <= text)
        ids = tokens.ids[text - tokens.first][tokens.mask[text - tokens.first]].tolist()
        shown = [name(i) for i in ids[max(0, position - config.context) : position + 1]]
        places.append(Place(tokens=shown, active=float(seen.best[rank, number])))
    return Feature(
        number=number,
        density=float(seen.active[number]) / seen.positions,
        largest=float(seen.best[0, number]),
        places=places,
    )


@torch.no_grad()
def _words(model: Model, sae: SAE, features: list[Feature], tokens: states.Tokens) -> None:
    """The tokens whose logits a direction moves most, with the final norm held as it is for a typical state."""
    site = f"{model.sites.main.prefix}final_norm"
    head = model.network.get_output_embeddings()
    directions = sae.directions[[f.number for f in features]].double()
    if site in model.sites:
        last = states.site_name(model.sites, states.layer_count(model) - 1, "resid_post")
        typical = read(model, _inputs(tokens), last)[last][tokens.mask][tokens.position > 0]
        gain, centred, _ = frozen_norm(model.sites.tap(site).module, typical[len(typical) // 2])
        directions = (directions - directions.mean(-1, keepdim=True) if centred else directions) * gain
    moved = directions.to(head.weight.dtype) @ head.weight.T
    name = states.Vocabulary(model)
    for feature, row in zip(features, moved, strict=True):
        feature.up = [name(int(i)) for i in row.topk(WORDS).indices]
        feature.down = [name(int(i)) for i in (-row).topk(WORDS).indices]


def _without_first(tokens: states.Tokens) -> Tensor:
    keep = tokens.mask.clone()
    keep[:, 0] = False
    return keep


def _written(sae: SAE, at: str, keep: Tensor, new: Callable[[Tensor], Tensor]) -> Apply:
    """An edit that writes `new(states [n, width])` at the kept positions."""

    def function(state: Tensor) -> Tensor:
        flat = _flat(state, at)
        written = flat.clone()
        written[keep] = new(flat[keep]).to(flat.dtype)
        return written.reshape(state.shape)

    return Apply(at, function=function)


@torch.no_grad()
def _losses(model: Model, sae: SAE, at: str, parts: list[states.Tokens]) -> dict[str, float]:
    """The loss a token as it is, with reconstructions, and with zeros."""
    sums = torch.zeros(3, dtype=torch.float64)
    count = 0
    for tokens in track(parts, "putting reconstructions back"):
        keep = _without_first(tokens)
        ways = [
            [],
            [_written(sae, at, keep, lambda x: sae.reconstruct(x)[0])],
            [_written(sae, at, keep, torch.zeros_like)],
        ]
        following = tokens.following()
        known = (following >= 0) & (tokens.position > 0)
        for i, edits in enumerate(ways):
            log_p = _log_p(model, tokens, edits)[known]
            sums[i] += float(-log_p.gather(-1, following[known][:, None]).double().sum())
        count += int(known.sum())
    if not count:
        return {}
    loss, with_sae, without = (sums / count).tolist()
    recovered = (without - with_sae) / (without - loss) if without != loss else float("nan")
    return {"loss": loss, "with_sae": with_sae, "without": without, "recovered": recovered}


def _log_p(model: Model, tokens: states.Tokens, edits: list[Apply]) -> Tensor:
    """Log probabilities [valid, vocabulary] after edits."""
    last = states.site_name(model.sites, states.layer_count(model) - 1, "resid_post")
    found = read(model, _inputs(tokens), last, edits=edits)[last][tokens.mask]
    return torch.cat([divergence.log_probabilities(unembed(model, part)) for part in found.split(256)])


@torch.no_grad()
def _ablate(model: Model, sae: SAE, at: str, feature: Feature, seen: _Seen, parts: list[states.Tokens]) -> None:
    """Take one feature's contribution out of the texts where it is most active, and measure there."""
    texts = sorted({seen.place(feature.number, rank)[0] for rank in range(len(feature.places))})
    kls, losses = [], []
    for text in texts:
        tokens = next(t for t in reversed(parts) if t.first <= text)
        row = slice(text - tokens.first, text - tokens.first + 1)
        length = int(tokens.mask[row].sum())
        one = states.Tokens(tokens.ids[row, :length], tokens.mask[row, :length], 0)
        keep = _without_first(one)

        def minus(x: Tensor) -> Tensor:
            return x - sae.encode(x)[:, [feature.number]].to(x) * sae.directions[feature.number].to(x)

        active = sae.encode(_flat(read(model, _inputs(one), at)[at], at)[0])[:, feature.number] > 0
        active[0] = False
        before, after = (_log_p(model, one, edits) for edits in ([], [_written(sae, at, keep, minus)]))
        kls.append(divergence.kl(before, after)[active])
        following = one.following()
        known = active & (following >= 0)
        change = before - after
        losses.append(change[known].gather(-1, following[known][:, None])[:, 0].double())
    if kls and sum(map(len, kls)):
        feature.kl = float(torch.cat(kls).mean())
        if states.is_causal(model) and sum(map(len, losses)):
            feature.loss = float(torch.cat(losses).mean())


def summarise(finding: SAEFeatures) -> str:
    """How far the autoencoder can be trusted, and its strongest feature."""
    text = (
        f"{finding.count:,} features explain {percent(max(finding.explained, 0.0))} of the variance at "
        f"{finding.positions:,} positions with {finding.active:.1f} active at a time; "
        f"{percent(finding.dead)} never fire here. "
    )
    if finding.recovered is not None and finding.without > finding.loss:  # type: ignore[operator]
        kept, fair = percent(max(finding.recovered, 0.0)), finding.recovered > 0.9
        text += f"With reconstructions in place of the states the model keeps {kept} of what these states are worth: "
        text += "a fair picture. " if fair else "much is lost, so read features with care. "
    known = [f for f in finding.features if f.kl is not None]
    if known:
        best = max(known, key=lambda f: f.kl or 0.0)
        text += f"Of those shown, feature {best.number} matters most to the output (KL {best.kl:.3g} without it). "
    if finding.fitted_here:
        text += "The autoencoder was fitted to these very texts: a look, no more."
    return text.strip()
