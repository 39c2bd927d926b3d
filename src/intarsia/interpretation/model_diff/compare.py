"""The computation behind `interpretation.diff`: one pass over the texts, both models side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from intarsia.errors import BadInput
from intarsia.interpretation import divergence, states
from intarsia.interpretation.model_diff import report as diff_report
from intarsia.interpretation.model_diff import similarity, weights
from intarsia.interpretation.model_diff.facts import check_facts, facts_diff
from intarsia.interpretation.model_diff.finding import Diff, LayerDiff, WeightDiff
from intarsia.interpretation.model_diff.prompts import prompts
from intarsia.interpretation.model_diff.technique import DiffConfig
from intarsia.progress import track

if TYPE_CHECKING:
    from intarsia.models import Model

WHO = "interpretation.diff"
CHUNK = 128  # positions whose logits are held at a time
TOP = 5


def compare(
    before: Model, after: Model, config: DiffConfig, records: Sequence[Any], facts: Sequence[Any] | None, seed: int
) -> Diff:
    """Compare two models on the same texts; see `interpretation.diff`."""
    for model in (before, after):
        states.check_readable(model, WHO)
    if states.is_causal(before) != states.is_causal(after):
        raise BadInput(f"{WHO}: one model is a decoder and the other an encoder: wants two of a kind")
    if before.tokenizer is None or after.tokenizer is None:
        raise BadInput(f"{WHO}: both models need their tokenizer: wrap(network, tokenizer)")
    chosen = states.choose(records, config.max_texts, seed, WHO)
    items, as_prompts = prompts(chosen, before, after, config.as_prompts, config.max_tokens)
    check_tokenizers(before, after, [item.text for item in items])
    check_facts(before, after, facts or [], config.facts_lens)

    limit = None if as_prompts else config.max_tokens
    parts = list(states.batches(after, [item.text for item in items], limit, config.batch_size))
    counted = torch.cat([part.position.cpu() > 0 for part in parts])
    if not counted.any():
        raise BadInput(f"{WHO}: every text is a single token: wants texts of two tokens or more")
    # The same positions are drawn whatever the batch size.
    order = counted.nonzero()[:, 0]
    order = order[torch.randperm(len(order), generator=torch.Generator().manual_seed(seed))]

    inside = _Inside(before, after, config, in_sample=_mask(order[: config.sample], len(counted)))
    output = lenses = None
    if states.has_head(before) and states.has_head(after):
        output = Output(before, after)
        quota = -(-2 * config.lens_sample // len(parts))
        lenses = _Lenses(before, after, inside.pairs, _mask(order[: config.lens_sample], len(counted)), quota)

    first = 0
    for tokens in track(parts, "comparing the models"):
        here = slice(first, first := first + len(tokens.flat))
        streams = inside.add(tokens, here)
        if output is not None and lenses is not None:
            output.add(tokens, *(stream[-1] for stream in streams))
            if config.lens_sample:
                differs = ~output.columns["agreement"][-1].bool() & (tokens.position.cpu() > 0)
                lenses.add(*streams, here, differs)
    layers = inside.rows()
    if output is not None and lenses is not None and config.lens_sample:
        lenses.fill(layers, output)

    found, unmatched = _weights(before, after) if config.weights else ([], 0)
    finding = Diff(
        technique=WHO,
        texts=len(items),
        prompts=as_prompts,
        causal=states.is_causal(after),
        layers=layers,
        parted_at=inside.parted_at(),
        weights=found,
        unmatched=unmatched,
        facts=facts_diff(before, after, facts, config.facts_top, config.facts_lens) if facts else None,
        **inside.cka(),
    )
    return diff_report.complete(finding, before, after, config, items, output, seed)


def check_tokenizers(before: Model, after: Model, texts: Sequence[str]) -> None:
    """Raise `BadInput` unless both models cut the texts into the same token ids."""
    a, b = before.tokenizer, after.tokenizer
    if a is b:
        return
    assert a is not None and b is not None
    for text in texts:
        one, other = a(text)["input_ids"], b(text)["input_ids"]
        if one != other:
            at = next(
                (i for i, (x, y) in enumerate(zip(one, other, strict=False)) if x != y), min(len(one), len(other))
            )
            raise BadInput(
                f"{WHO}: the two models cut texts into different tokens (first at token {at} of {text[:30]!r}), so "
                "their positions and vocabularies do not correspond: compare models that share a tokenizer, such as a "
                "model and what was tuned or compressed from it, or compare different families by measure.quality"
            )


def _mask(indices: Tensor, count: int) -> Tensor:
    mask = torch.zeros(count, dtype=torch.bool)
    mask[indices] = True
    return mask


def _pairs(before: int, after: int, stride: int) -> list[tuple[int, int]]:
    """Layers (before, after) to compare: each with its own number, or the nearest relative depth."""
    # Depth counts finished blocks, so that the last always goes with the last.
    return [(max(round((j + 1) * before / after), 1) - 1, j) for j in states.spaced(after, stride)]


class _Inside:
    """What is compared at every pair of layers."""

    def __init__(self, before: Model, after: Model, config: DiffConfig, in_sample: Tensor):
        self.models = (before, after)
        counts = [states.layer_count(m) for m in self.models]
        self.pairs = _pairs(counts[0], counts[1], config.stride)
        self.all_layers = [
            sorted({b for b, _ in self.pairs} | set(states.spaced(counts[0], config.stride))),
            [a for _, a in self.pairs],
        ]
        known = [states.kinds_of(m) for m in self.models]
        self.kinds = [kind for kind in known[0] if kind in known[1]]
        self.in_sample = in_sample
        self.samples: list[list[Tensor]] = [[], []]
        self.columns: dict[str, list[Tensor]] = {}
        self.counted: list[Tensor] = []

    def add(self, tokens: states.Tokens, here: slice) -> list[list[Tensor]]:
        """Compare one batch; gives the streams of both models at the paired layers."""
        mine, counted = self.in_sample[here], tokens.position.cpu() > 0
        self.counted.append(counted)
        read = [states.states(m, tokens, la, self.kinds) for m, la in zip(self.models, self.all_layers, strict=True)]
        for side, found in enumerate(read):
            self.samples[side].append(torch.stack([h[mine.to(h.device)].float().cpu() for h in found["resid_post"]]))
        slots = [self.all_layers[0].index(b) for b, _ in self.pairs]
        paired = [{kind: [found[kind][i] for i in slots] for kind in self.kinds} for found in read[:1]] + [read[1]]
        streams = [p["resid_post"] for p in paired]
        if streams[0][0].shape == streams[1][0].shape:
            for kind in self.kinds:
                self._distances(kind, paired[0][kind], paired[1][kind], streams[0])
        return streams

    def _distances(self, kind: str, before: list[Tensor], after: list[Tensor], stream: list[Tensor]) -> None:
        gaps, cosines, added = [], [], []
        for b, a, s in zip(before, after, stream, strict=True):
            a = a.to(b.device)
            gaps.append(similarity.relative_l2(b, a))
            if kind == "resid_post":
                cosines.append(similarity.cosine(b, a))
            else:
                # Equal outputs give 0 even where the stream is zero.
                gap = (a.double() - b.double()).norm(dim=-1)
                added.append(gap / s.double().norm(dim=-1).clamp_min(1e-300))
        for name, values in ((kind, gaps), ("cosine", cosines), (f"{kind}.added", added)):
            if values:
                self.columns.setdefault(name, []).append(torch.stack(values).cpu())

    def _median(self, name: str, first: bool = False) -> list[float | None]:
        if name not in self.columns:
            return [None] * len(self.pairs)
        values, counted = torch.cat(self.columns[name], 1), torch.cat(self.counted)
        return values[:, ~counted if first else counted].median(dim=1).values.tolist()

    def rows(self) -> list[LayerDiff]:
        """One row a pair of layers."""
        matrix = self._matrix()
        columns = {
            "stream": self._median("resid_post"),
            "first": self._median("resid_post", first=True),
            "cosine": self._median("cosine"),
            "attention": self._median("attn_out"),
            "mlp": self._median("mlp_out"),
            "attention_added": self._median("attn_out.added"),
            "mlp_added": self._median("mlp_out.added"),
        }
        rows = []
        for i, (b, a) in enumerate(self.pairs):
            cka = matrix[self.all_layers[0].index(b)][i] if matrix else None
            rows.append(LayerDiff(before=b, after=a, cka=cka, **{name: column[i] for name, column in columns.items()}))
        return rows

    def parted_at(self) -> int | None:
        """The first layer at which any state of any token differs."""
        if "resid_post" not in self.columns:
            return None
        differs = (torch.cat(self.columns["resid_post"], 1) > 0).any(1)
        return next((a for (_, a), part in zip(self.pairs, differs.tolist(), strict=True) if part), None)

    def _matrix(self) -> list[list[float | None]]:
        if not hasattr(self, "_cka"):
            x, y = (torch.cat(sample, 1) for sample in self.samples)
            cka = similarity.linear_cka(x, y).tolist() if x.shape[1] > 3 else []
            self._cka = [[None if v != v else v for v in row] for row in cka]
        return self._cka

    def cka(self) -> dict[str, Any]:
        """The fields of `Diff` that hold the CKA matrix."""
        if not self._matrix():
            return {}
        return {"cka": self._matrix(), "cka_before": self.all_layers[0], "cka_after": self.all_layers[1]}


class Output:
    """Measures of the predictions at every position, first positions of texts included."""

    def __init__(self, before: Model, after: Model):
        self.models = (before, after)
        self.causal = states.is_causal(after)
        self.columns: dict[str, list[Tensor]] = {}
        self.mass: list[Tensor] = []

    def add(self, tokens: states.Tokens, before: Tensor, after: Tensor) -> None:
        """Compare the predictions of one batch, from the last streams, [valid, width] each."""
        following = tokens.following() if self.causal else torch.full_like(tokens.flat, -1)
        self._put(text=tokens.row, position=tokens.position, token=tokens.flat, following=following)
        counted = tokens.position > 0
        pieces: dict[str, list[Tensor]] = {}
        for chunk in torch.arange(len(tokens.flat)).split(CHUNK):
            known, mass = self._measure(before[chunk], after[chunk], following[chunk], counted[chunk])
            for name, values in known.items():
                pieces.setdefault(name, []).append(values)
            self.mass = [old + new for old, new in zip(self.mass, mass, strict=True)] if self.mass else mass
        self._put(**{name: torch.cat(values) for name, values in pieces.items()})

    def _put(self, **columns: Tensor) -> None:
        for name, values in columns.items():
            self.columns.setdefault(name, []).append(values.cpu())

    def __getitem__(self, name: str) -> Tensor:
        """One measure over all positions of all texts, in order."""
        return torch.cat(self.columns[name])

    @torch.no_grad()
    def _measure(
        self, before: Tensor, after: Tensor, following: Tensor, counted: Tensor
    ) -> tuple[dict[str, Tensor], list[Tensor]]:
        both = [states.logits(m, h) for m, h in zip(self.models, (before, after), strict=True)]
        # A resized or padded vocabulary: compare over the tokens that both have.
        width = min(x.shape[-1] for x in both)
        log_p, log_q = (divergence.log_probabilities(x[..., :width].to(both[0].device)) for x in both)
        p, q = log_p.exp(), log_q.exp()
        (top_p, ids_p), (top_q, ids_q) = p.topk(min(TOP, width)), q.topk(min(TOP, width))
        known = {
            "kl": divergence.kl_terms(p, log_p, log_q),
            "total_variation": divergence.total_variation(p, q),
            "agreement": (ids_p[:, 0] == ids_q[:, 0]).double(),
            "overlap": divergence.top_overlap(ids_p, ids_q),
            "entropy_before": divergence.entropy(p, log_p),
            "entropy_after": divergence.entropy(q, log_q),
            "top_before": ids_p,
            "top_after": ids_q,
            "top_before_p": top_p,
            "top_after_p": top_q,
        }
        ids = following.to(log_p.device).clamp(0, width - 1)[:, None]
        known["loss_before"], known["loss_after"] = (-x.gather(-1, ids)[:, 0].double() for x in (log_p, log_q))
        mine = counted.to(p.device)
        return known, [x[mine].sum(0, dtype=torch.float64).cpu() for x in (p, q)]


class _Lenses:
    """Where the logit lenses of the two models part."""

    def __init__(self, before: Model, after: Model, pairs: list[tuple[int, int]], in_sample: Tensor, quota: int):
        self.models, self.in_sample, self.quota = (before, after), in_sample, quota
        self.parts = torch.zeros(len(pairs))
        self.agreement = torch.zeros(len(pairs))
        self.sampled = 0

    def _agree(self, before: Tensor, after: Tensor) -> Tensor:
        agree = []
        for b, a in zip(before.split(CHUNK), after.split(CHUNK), strict=True):
            tops = [states.logits(m, h).argmax(-1).cpu() for m, h in zip(self.models, (b, a), strict=True)]
            agree.append(tops[0] == tops[1])
        return torch.cat(agree)

    def add(self, before: list[Tensor], after: list[Tensor], here: slice, differs: Tensor) -> None:
        """`differs` marks the positions of this batch whose final top tokens are not the same."""
        sample = self.in_sample[here].nonzero()[:, 0]
        if len(sample):
            self.agreement += torch.stack(
                [self._agree(b[sample], a[sample]).float().sum() for b, a in zip(before, after, strict=True)]
            )
            self.sampled += len(sample)
        # Evenly spaced over the batch, when there are more than can be afforded.
        active = differs.nonzero()[:, 0]
        if len(active) > self.quota:
            active = active[torch.linspace(0, len(active) - 1, self.quota).round().long()]
        # From the last layer down: a position leaves as soon as the lenses agree, so most cost a few layers only.
        for layer in range(len(before) - 2, -1, -1):
            if not len(active):
                break
            agree = self._agree(before[layer][active], after[layer][active])
            self.parts[layer + 1] += agree.sum()
            active = active[~agree]
        self.parts[0] += len(active)

    def fill(self, layers: list[LayerDiff], output: Output) -> None:
        """Write the shares into the layers' rows."""
        differing = 1 - float(output["agreement"][output["position"] > 0].mean())
        examined = float(self.parts.sum())
        for i, row in enumerate(layers):
            row.lens_parts = differing * float(self.parts[i]) / examined if examined else 0.0
            row.lens_agreement = float(self.agreement[i]) / self.sampled if self.sampled else None


def _weights(before: Model, after: Model) -> tuple[list[WeightDiff], int]:
    """Every weight's change: inside the blocks by layer, then outside. Nothing where the depths differ."""
    counts = [states.layer_count(m) for m in (before, after)]
    if counts[0] != counts[1]:
        return [], abs(counts[0] - counts[1])
    blocks = [list(m.sites.blocks) for m in (before, after)]
    changes: list[WeightDiff] = []
    unmatched = 0
    for i, pair in enumerate(track(list(zip(*blocks, strict=True)), "comparing the weights")):
        found, missing = weights.compare(*(weights.tensors(block) for block in pair), layer=i)
        changes += found
        unmatched += missing
    networks = (before.network, after.network)
    outside = [weights.tensors(network, skip) for network, skip in zip(networks, blocks, strict=True)]
    found, missing = weights.compare(*outside)
    return changes + found, unmatched + missing
