"""The computation behind `interpretation.tuning_effect`."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from intarsia.errors import BadInput
from intarsia.interpretation import averages, divergence, states
from intarsia.interpretation.continuing import asked, encode
from intarsia.interpretation.model_diff.compare import CHUNK, check_tokenizers
from intarsia.interpretation.model_diff.report import name_both
from intarsia.interpretation.model_diff.token_kinds import kind_of
from intarsia.interpretation.model_diff.tuning_effect import (
    SHIFTS,
    Joined,
    KindShift,
    TokenShift,
    TuningEffect,
    TuningEffectConfig,
)
from intarsia.interpretation.wording import percent
from intarsia.interpretation.writing import write
from intarsia.measure.likelihood import check_causal
from intarsia.progress import track
from intarsia.report import TokenMap
from intarsia.sites import Activations, read, resume

if TYPE_CHECKING:
    from intarsia.models import Model

WHO = "interpretation.tuning_effect"
BINS = ((1, 1), (2, 2), (3, 4), (5, 8), (9, 16), (17, 32), (33, 64), (65, 128), (129, 10**6))


def look(base: Model, tuned: Model, config: TuningEffectConfig, records: Sequence[Any], seed: int) -> TuningEffect:
    """Compare the tuned model's tokens with the base model's; see `interpretation.tuning_effect`."""
    for model in (base, tuned):
        states.check_readable(model, WHO)
        check_causal(model)
        if model.tokenizer is None:
            raise BadInput(f"{WHO}: both models need their tokenizer: wrap(network, tokenizer)")
    chosen = states.choose(records, config.max_texts, seed, WHO)
    prompts = [asked(tuned, states.text_of(record), config.chat) for record in chosen]
    check_tokenizers(base, tuned, prompts)
    room = min((n for m in (base, tuned) if (n := m.context_length)), default=10**9) - config.new_tokens
    if room < 2:
        raise BadInput(f"{WHO}: new_tokens is {config.new_tokens}, and the context only {room + config.new_tokens}")
    ids = [encode(tuned, prompt) for prompt in prompts]
    limit = min(config.max_tokens, room)
    # An answer hangs on a prompt's end (the cue of a template, too), so it is the beginning that goes.
    cut = sum(len(row) > limit for row in ids)
    ids = [row[-limit:] if config.new_tokens else row[:limit] for row in ids]
    states.tell_cut(cut, len(ids), limit)
    rows, starts = _rows(tuned, ids, config)
    comparison = _Comparison(base, tuned, config)
    for start in track(range(0, len(rows), config.batch_size), "comparing the answers"):
        comparison.add(rows[start : start + config.batch_size], starts[start : start + config.batch_size], start)
    return comparison.finding([getattr(r, "group", None) for r in chosen], seed)


def _rows(tuned: Model, ids: list[list[int]], config: TuningEffectConfig) -> tuple[list[list[int]], list[int]]:
    """Token ids of what is read, and the first position of each whose prediction counts."""
    if not config.new_tokens:
        if all(len(row) < 2 for row in ids):
            raise BadInput(f"{WHO}: every text is a single token: wants texts of two tokens or more")
        return [row for row in ids if len(row) > 1], [1 for row in ids if len(row) > 1]
    rows, starts = [], []
    for row in track(ids, "answering"):
        written = write(tuned, row, max_new_tokens=config.new_tokens)[0].ids
        rows.append([*row, *written[:-1]])
        starts.append(len(row) - 1)
    return rows, starts


class _Comparison:
    """Both models at the same positions: tops, ranks, divergences, and networks joined at a layer."""

    def __init__(self, base: Model, tuned: Model, config: TuningEffectConfig):
        self.base, self.tuned, self.config = base, tuned, config
        self.columns: dict[str, list[Tensor]] = defaultdict(list)
        depths = [states.layer_count(m) for m in (base, tuned)]
        widths = [m.sites.main.width for m in (base, tuned)]
        alike = depths[0] == depths[1] and widths[0] == widths[1]
        self.depth = depths[1]
        last = self.depth - 2  # above the last block there is nothing to join
        count = min(config.layers, self.depth - 1) if alike else 0
        self.layers = sorted({round(v) for v in np.linspace(0, last, count)}) if count else []
        self.hits = {layer: [0, 0] for layer in self.layers}
        self.differ = 0

    def add(self, rows: list[list[int]], starts: list[int], first: int) -> None:
        """Read a batch of token ids; positions from `starts` on count."""
        layers = [*self.layers, self.depth - 1]
        acts = [
            read(m, rows, [states.site_name(m.sites, min(layer, states.layer_count(m) - 1), "resid_post") for layer in
                           (layers if self.layers else [states.layer_count(m) - 1])])
            for m in (self.base, self.tuned)
        ]  # fmt: skip
        counts = [
            (i, p) for i, (row, start) in enumerate(zip(rows, starts, strict=True)) for p in range(start, len(row))
        ]
        where = tuple(torch.tensor(part) for part in zip(*counts, strict=True))
        tops = self._measure([self._last(m, a)[where] for m, a in zip((self.base, self.tuned), acts, strict=True)])
        self.columns["text"].append(where[0] + first)
        self.columns["place"].append(torch.tensor([p - starts[i] + 1 for i, p in counts]))
        parted = tops[0] != tops[1]
        self.differ += int(parted.sum())
        if self.layers and bool(parted.any()):
            there = tuple(part[parted] for part in where)
            for layer in self.layers:
                for order, (low, high) in enumerate(((0, 1), (1, 0))):
                    top = self._joined(acts, low, high, layer, there)
                    self.hits[layer][order] += int((top == tops[1][parted]).sum())

    @staticmethod
    def _last(model: Model, acts: Activations) -> Tensor:
        return acts[states.site_name(model.sites, states.layer_count(model) - 1, "resid_post")]

    @torch.no_grad()
    def _measure(self, streams: list[Tensor]) -> list[Tensor]:
        pieces: dict[str, list[Tensor]] = defaultdict(list)
        for chunk in torch.arange(len(streams[0])).split(CHUNK):
            both = [states.logits(m, s[chunk]) for m, s in zip((self.base, self.tuned), streams, strict=True)]
            width = min(x.shape[-1] for x in both)
            log_p, log_q = (divergence.log_probabilities(x[..., :width].to(both[0].device)) for x in both)
            top = log_q.argmax(-1)
            pieces["kl"].append(divergence.kl(log_p, log_q))
            pieces["rank"].append(divergence.rank(log_p, top))
            pieces["before"].append(log_p.argmax(-1))
            pieces["after"].append(top)
        found = {name: torch.cat(values).cpu() for name, values in pieces.items()}
        for name, values in found.items():
            self.columns[name].append(values)
        return [found["before"], found["after"]]

    def _joined(self, acts: list[Activations], low: int, high: int, layer: int, there: tuple[Tensor, ...]) -> Tensor:
        """Top tokens when the blocks of one model up to `layer` run below those of the other."""
        models = (self.base, self.tuned)
        upper = models[high]
        state = acts[low][states.site_name(models[low].sites, layer, "resid_post")].to(upper.device, upper.dtype)
        name = states.site_name(upper.sites, self.depth - 1, "resid_post")
        after = f"{upper.sites.main.prefix}layers.{layer}"
        stream = resume(upper, acts[high], after=after, state=state, at=name)[name]
        return torch.cat([states.logits(upper, part).argmax(-1).cpu() for part in stream[there].split(CHUNK)])

    def finding(self, groups: list[str | None], seed: int) -> TuningEffect:
        """Sums over all batches."""
        c = {name: torch.cat(values).numpy() for name, values in self.columns.items()}
        config, name = self.config, states.Vocabulary(self.tuned)
        shift = np.where(c["rank"] == 1, 0, np.where(c["rank"] <= config.marginal, 1, 2))
        of_text = [groups[int(t)] or f"text {int(t)}" for t in c["text"]]
        base, tuned = name_both(self.base, self.tuned)
        found = TuningEffect(
            title=f"What tuning changed from {base} to {tuned}",
            technique=WHO,
            shares={s: averages.mean(shift == i, of_text, seed=seed) for i, s in enumerate(SHIFTS)},
            kl=averages.mean(c["kl"], of_text, seed=seed),
            kl_by={s: float(c["kl"][shift == i].mean()) for i, s in enumerate(SHIFTS) if (shift == i).any()},
            positions=len(shift),
            texts=len(groups),
            base=base,
            tuned=tuned,
            answers=bool(config.new_tokens),
            marginal=config.marginal,
            kinds=_kinds([name(int(t)) for t in c["after"]], shift, c["kl"]),
            tokens=_tokens(c, shift, name, config.examples),
            joined=[
                Joined(layer=layer, tuned_above=hits[0] / self.differ, tuned_below=hits[1] / self.differ)
                for layer, hits in self.hits.items()
            ] if self.differ else [],
            provenance={"seed": seed, "settings": config.model_dump(), "positions": len(shift)},
        )  # fmt: skip
        if config.new_tokens:
            for low, high in BINS:
                mine = (c["place"] >= low) & (c["place"] <= high)
                if mine.any():
                    top = min(high, int(c["place"].max()))
                    found.by_position.append((low, top, float((shift[mine] > 0).mean())))
        for text in range(min(config.maps, len(groups))):
            mine = np.flatnonzero(c["text"] == text)
            found.token_maps.append(
                TokenMap(
                    title="The tuned model's own words" if config.new_tokens else "What the tuned model would say next",
                    tokens=[name(int(t)) for t in c["after"][mine]], values=[float(shift[i]) for i in mine], maximum=2,
                    tips=[f"rank before: {int(c['rank'][i])}; then: {name(int(c['before'][i]))!r}" for i in mine],
                    meaning="0 unshifted, 1 marginal, 2 shifted", format=".0f",
                )
            )  # fmt: skip
        return found.model_copy(update={"summary": summarise(found)})


def _kinds(tokens: list[str], shift: np.ndarray, kl: np.ndarray) -> list[KindShift]:
    kinds = np.array([kind_of(token) for token in tokens])
    rows = []
    for kind in dict.fromkeys(kinds.tolist()):
        mine = kinds == kind
        rows.append(
            KindShift(kind=kind, count=int(mine.sum()), marginal=float((shift[mine] == 1).mean()),
                      shifted=float((shift[mine] == 2).mean()), kl=float(kl[mine].mean()))
        )  # fmt: skip
    return sorted(rows, key=lambda r: (-(r.shifted + r.marginal), -r.count))


def _tokens(c: dict[str, np.ndarray], shift: np.ndarray, name: states.Vocabulary, most: int) -> list[TokenShift]:
    """Tokens that are not the base model's first choice, the most frequent first."""
    moved = np.flatnonzero(shift > 0)
    counts = Counter(int(c["after"][i]) for i in moved)
    rows = []
    for token, count in counts.most_common(most):
        mine = [i for i in moved if int(c["after"][i]) == token]
        instead = Counter(int(c["before"][i]) for i in mine).most_common(1)[0][0]
        rank = float(np.median([c["rank"][i] for i in mine]))
        rows.append(TokenShift(token=name(token), count=count, instead=name(instead), rank=rank))
    return rows


def summarise(found: TuningEffect) -> str:
    """How many tokens shift, of which kind, and which layers carry it."""
    same, low, high = found.shares["unshifted"]
    where = "of the tuned model's words" if found.answers else "of its next tokens"
    text = (
        f"{percent(same)} {where} ({percent(low)} to {percent(high)}) are what {found.base} would have said too; "
        f"{percent(found.shares['marginal'][0])} are among its first {found.marginal}, "
        f"{percent(found.shares['shifted'][0])} further down."
    )
    often = [k for k in found.kinds if k.count >= max(5, found.positions / 50)]
    if often and often[0].shifted + often[0].marginal > 0:
        text += f" Most often moved: {often[0].kind} ({percent(often[0].shifted + often[0].marginal)})."
    crossing = next((j.layer for j in found.joined if j.tuned_below > j.tuned_above), None)
    if found.joined and crossing is not None:
        text += f" Up to layer {crossing} the tuned model's blocks carry more of the change than those above it."
    elif found.joined:
        text += " The blocks of the top carry most of the change."
    return text + f" Measured at {found.positions:,} positions of {found.texts} texts."
