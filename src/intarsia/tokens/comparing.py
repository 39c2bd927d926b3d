"""How `tokens.compare` goes about it: one method after another on one copy of the model, each against the dense one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from intarsia.errors import BadInput, did_you_mean
from intarsia.measure import count_macs, provenance
from intarsia.measure.speed import Lap, now, spread, take_turns
from intarsia.models import Model
from intarsia.sites.recomposing import installed, remove
from intarsia.tokens.compare import METHODS, CompareConfig, Compared, TokenComparison
from intarsia.tokens.macs import tower_macs
from intarsia.tokens.merge import MergeConfig
from intarsia.tokens.outcomes import (
    Asking,
    Outcome,
    agreements,
    cosines,
    divergences,
    mean,
    one_batch,
    outcome,
)
from intarsia.tokens.plan import Plan
from intarsia.tokens.planning import check, merged, plans_for, put, reader_macs
from intarsia.tokens.subjects import Subjects, subjects
from intarsia.tokens.towers import Towers, feature_block, shape_of, towers_of

MOST_FOR_SCHEDULE = 16  # pictures on which a schedule is measured


@dataclass
class Bench:
    """The dense model with its results, and what every candidate is measured on."""

    model: Model
    found: Subjects
    asking: Asking
    dense: Outcome
    macs: float
    rounds: int

    @classmethod
    def of(cls, model: Model, found: Subjects, asking: Asking, rounds: int) -> Bench:
        dense = outcome(model, found, asking, "dense")
        return cls(model, found, asking, dense, counted(model, found, asking), rounds)

    def reference(self) -> Compared:
        """The row of the dense model itself."""
        return Compared(
            method="dense",
            keep=1.0,
            gmacs=self.macs / 1e9,
            share=1.0,
            fidelity=1.0 if self.dense.vectors is not None else None,
            kl=0.0 if self.dense.logs is not None else None,
            agreement=1.0 if self.dense.said else None,
            accuracy=accuracies(self.dense, self.found),
        )

    def row(self, candidate: Model, method: str, keep: float, note: str = "") -> Compared:
        """Measure a candidate, all but its speed."""
        other = outcome(candidate, self.found, self.asking, f"{method} {keep:.0%}")
        macs = counted(candidate, self.found, self.asking)
        near = cosines(self.dense, other)
        return Compared(
            method=method,
            keep=keep,
            gmacs=macs / 1e9,
            share=macs / self.macs,
            fidelity=mean(near),
            worst=min(near) if near else None,
            kl=mean(divergences(self.dense, other)),
            agreement=mean(agreements(self.dense, other)),
            accuracy=accuracies(other, self.found),
            note=note,
        )

    def speed(self, candidate: Model) -> tuple[tuple[float, float, float], float]:
        """The candidate's speed as a ratio to the dense model's, in turns; and the dense model's own."""
        laps = take_turns({"dense": self._lap(self.model), "other": self._lap(candidate)}, self.rounds)
        pairs = zip(laps["other"], laps["dense"], strict=True)
        return spread([a.prefill / b.prefill for a, b in pairs]), spread([lap.prefill for lap in laps["dense"]])[0]

    def _lap(self, model: Model) -> Callable[[], Lap]:
        call, count = one_batch(model, self.found, self.asking)

        def lap() -> Lap:
            with torch.inference_mode():
                begin = now(model.network)
                call()
                return Lap(count / (now(model.network) - begin), None)

        return lap


def look(model: Model, config: CompareConfig, images: Any, texts: Any, seed: int) -> TokenComparison:
    """See `intarsia.tokens.compare.compare`."""
    for keep in config.keeps:
        if not 0 < keep <= 1:
            raise BadInput(f"keeps holds {keep:g}: give shares to keep, above 0 and at most 1")
    if not config.keeps:
        raise BadInput("keeps is empty: give at least one share to keep, as in --keeps 0.5")
    if installed(model.network):
        raise BadInput("this model's tokens are merged already: give the dense one (tokens.diff compares two models)")
    towers = towers_of(model)
    methods = methods_for(config.methods, towers, type(model.network).__name__)
    found = subjects(model, images, texts, most=config.max_pictures, seed=seed)
    bench = Bench.of(model, found, Asking(config.batch_size, config.new_tokens, config.template), config.rounds)
    work = model.copy()
    out = _empty("tokens.compare", bench, config.model_dump(mode="json"), seed)
    out.rows.append(bench.reference())
    for method in methods:
        for keep in config.keeps:
            settings, note = settings_for(method, keep, config, model, towers)
            try:
                plans = plans_for(model, settings, towers, _some(found))
            except BadInput as error:
                out.notes.append(f"{method} at {keep:.0%}: {error}.")
                continue
            with carried_out(work, plans):
                out.rows.append(bench.row(work, method, keep, note))
                _timed(out, bench, work)
            if note:
                out.notes.append(f"{method} at {keep:.0%}: {note}.")
    if len(out.rows) == 1:
        raise BadInput(f"none of the methods can be put on this model; {out.notes[0]}")
    out.summary = summary(out)
    return out


def merged_and_compared(model: Model, config: MergeConfig, images: Any, texts: Any) -> Model:
    """`tokens.merge` with pictures at hand: its `finding` is what merging costs and saves, the dense model first, then
    the merged one, then the usual baselines at the same share."""
    check(config)
    most = CompareConfig().max_pictures
    found = subjects(model, images, texts, most=most, seed=config.seed)
    done = merged(model, config, [found.seen(i) for i in range(len(found))])
    if not config.compare:
        return done
    bench = Bench.of(model, found, Asking(), 3)
    out = _empty("tokens.merge", bench, config.model_dump(mode="json"), config.seed)
    out.rows += [bench.reference(), bench.row(done, "this", config.keep)]
    _timed(out, bench, done)
    towers, work = towers_of(model), model.copy()
    for method, settings in _baselines(config, model, towers):
        try:
            plans = plans_for(model, settings, towers, _some(found))
        except BadInput as error:
            out.notes.append(f"{method}: {error}.")
            continue
        with carried_out(work, plans):
            out.rows.append(bench.row(work, method, config.keep))
            _timed(out, bench, work)
    out.summary = summary(out)
    done.finding = out
    return done


def _baselines(config: MergeConfig, model: Model, towers: Towers) -> Iterator[tuple[str, MergeConfig]]:
    plain = {"ensemble": "convex", "temperature": None, "norm": False, "proportional": True, "cross": False}
    for method in ("dominance", "bipartite", "random", "prune"):
        matcher, importance = _SETTINGS[method]
        if matcher != config.matcher:
            yield method, config.model_copy(update={**plain, "matcher": matcher, "importance": importance})
    if towers.decoder is not None and not config.removed:
        yield "llm-prune", settings_for("llm-prune", config.keep, CompareConfig(), model, towers)[0]


_SETTINGS: dict[str, tuple[str, str]] = {
    "dominance": ("dominance", "attention"),
    "dominance-unguided": ("dominance", "none"),
    "complete": ("complete", "attention"),
    "complete-unguided": ("complete", "none"),
    "bipartite": ("bipartite", "none"),
    "random": ("random", "none"),
    "prune": ("prune", "attention"),
    "llm-dominance": ("dominance", "question"),
    "llm-prune": ("prune", "attention"),
}


def methods_for(wanted: Sequence[str], towers: Towers, network: str) -> list[str]:
    """The methods to compare: those named, or all that the network has a place for."""
    inside = [name for name in wanted if name.startswith("llm-")]
    if inside and towers.decoder is None:
        raise BadInput(f"{inside[0]} works in a language model that reads pictures, which {network} does not have")
    for name in wanted:
        if name not in METHODS:
            raise BadInput(f"no method '{name}'{did_you_mean(name, METHODS)}; known: {', '.join(METHODS)}")
    if wanted:
        return list(dict.fromkeys(wanted))
    return [name for name in METHODS if towers.decoder is not None or not name.startswith("llm-")]


def settings_for(
    method: str, keep: float, config: CompareConfig, model: Model, towers: Towers
) -> tuple[MergeConfig, str]:
    """The settings of `tokens.merge` that are the method, and a word where the share asked for cannot be had."""
    matcher, importance = _SETTINGS[method]
    common: dict[str, Any] = {
        "matcher": matcher,
        "importance": importance,
        "schedule": config.schedule,
        "every": config.every,
        "strength": config.strength,
        "decoder_layer": config.decoder_layer,
    }
    if not method.startswith("llm-"):
        return MergeConfig(keep=keep, **common), ""
    # The vision tower works in full: the language model has to save its share as well.
    shape = shape_of(model.sites, towers.vision, last=feature_block(model.network, towers.vision))
    reader = shape_of(model.sites, towers.decoder)  # type: ignore[arg-type]
    tower = tower_macs(shape, (0,) * shape.layers)
    whole = reader_macs(reader, shape.tokens, shape.tokens)
    share = (keep * (tower + whole) - tower) / whole
    least = reader_macs(reader, shape.tokens, 1, config.decoder_layer) / whole
    note = ""
    if share < least:
        lowest = (tower + least * whole) / (tower + whole)
        note = f"the language model alone can bring the work down to {lowest:.0%} at the least, which is shown"
    return MergeConfig(keep=1.0, decoder_keep=min(max(share, least), 1.0), **{**common, "schedule": "constant"}), note


@contextmanager
def carried_out(work: Model, plans: Mapping[str, Plan]) -> Iterator[None]:
    """Plans on a model inside the block; afterwards it is dense again."""
    put(work, plans)
    try:
        yield
    finally:
        remove(work.network)


def counted(model: Model, found: Subjects, asking: Asking) -> float:
    """Multiply-accumulates for one picture (question), counted over one batch."""
    call, count = one_batch(model, found, asking)
    return count_macs(call).macs / count


def accuracies(result: Outcome, found: Subjects) -> dict[str, float]:
    """Shares that are known to be right, by what was asked."""
    if result.right is None:
        return {}
    if found.kind == "answer":
        return {"answers right": mean(result.right) or 0.0}
    if found.kind == "class":
        return {"class right": mean(result.right) or 0.0}
    if result.back is None:
        return {"label right": mean(result.right) or 0.0}
    return {
        "image→text R@1": mean(result.right) or 0.0,
        "text→image R@1": sum(rank == 1 for rank in result.back) / len(result.back),
    }


def _empty(technique: str, bench: Bench, settings: dict[str, Any], seed: int) -> TokenComparison:
    found = bench.found
    return TokenComparison(
        title="Dense against fewer tokens",
        technique=technique,
        provenance=provenance(settings=settings, seed=seed),
        kind=found.kind,
        count=len(found),
        asked=len(found.asked),
        unread=found.unread,
        unused=found.unused,
    )


def _timed(out: TokenComparison, bench: Bench, candidate: Model) -> None:
    if bench.rounds:
        row = out.rows[-1]
        out.speeds[f"{row.method} {row.keep:g}"], out.rate = bench.speed(candidate)


def _some(found: Subjects) -> list[Any]:
    """Pictures to measure a schedule on: some that could be read."""
    return [found.seen(i) for i in range(min(len(found), MOST_FOR_SCHEDULE))]


def summary(found: TokenComparison) -> str:
    """What the table says, and how far to trust it."""
    rows = found.rows[1:]
    middle = min((row.keep for row in rows), key=lambda keep: abs(keep - 0.5))
    here = [row for row in rows if row.keep == middle]
    text = ""
    if any(row.fidelity is not None for row in here):
        ordered = sorted((row for row in here if row.fidelity is not None), key=lambda row: -(row.fidelity or 0))
        said = ", ".join(f"{row.method} {row.fidelity:.4f}" for row in ordered)
        text = f"Asked to keep {middle:.0%} of the work, the embeddings' mean cosine to the dense model's is: {said}."
    elif any(row.kl is not None for row in here):
        ordered = sorted((row for row in here if row.kl is not None), key=lambda row: row.kl or 0.0)
        said = ", ".join(f"{row.method} {row.kl:.3g} nats ({row.agreement:.0%} the same)" for row in ordered)
        text = f"Asked to keep {middle:.0%} of the work, the first word's distribution moves by: {said}."
    fast = [(row, found.speed_of(row)) for row in here]
    best = max(((row, ratio) for row, ratio in fast if ratio), key=lambda pair: pair[1][0], default=None)
    if best is not None:
        text += f" The fastest is {best[0].method}: {best[1][0]:.2f} times the dense speed at {best[0].share:.0%} of "
        text += "the GMACs."
    accuracy = next(iter(found.rows[0].accuracy.items()), None)
    if accuracy is not None:
        rows_asked = found.asked or found.count
        error = math.sqrt(max(accuracy[1] * (1 - accuracy[1]), 1e-12) / rows_asked)
        text += (
            f" The dense model's {accuracy[0]} is {accuracy[1]:.1%} with a standard error of {error:.1%}: smaller "
            "differences in accuracy mean little here, those in fidelity more."
        )
    return text.strip()
