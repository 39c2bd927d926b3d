"""What `moe.run` does."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from intarsia.errors import BadInput
from intarsia.measure.provenance import provenance
from intarsia.moe.checkpoint import Checkpoint
from intarsia.moe.placement.placement import Placement
from intarsia.moe.routing import Trace
from intarsia.moe.routing.recording import texts_of
from intarsia.moe.run import Checked, ExpertRun, Moved, Ran, RankHeld, RunConfig
from intarsia.moe.runtime import Engine, Totals, totals, verify
from intarsia.moe.runtime.counters import Counters, Traffic
from intarsia.progress import tell

SEQUENCES, TOKENS = 16, 32  # of a trace, that mode auto counts on


def start(checkpoint: Checkpoint, config: RunConfig, seed: int = 0) -> Engine:
    """Ranks with the model on them."""
    placement = Placement.open(config.placement) if config.placement is not None else None
    routing = _routing(config) if config.trace is not None else None
    return Engine.start(
        checkpoint.folder, placement, routing=routing, ranks=config.ranks, mode=config.mode,
        deterministic=config.deterministic, dtype=_type(config), device=config.accelerator, seed=seed,
    )  # fmt: skip


def _routing(config: RunConfig) -> tuple[Any, Any]:
    """(expert ids [token, layer, choice], sequence [token]) of a few sequences of the trace, for the cost model."""
    trace = Trace.open(config.trace)
    some = trace.of_sequences(trace.sequences[:SEQUENCES])
    ids, seq = some.whole(), some.whole("seq")
    keep = np.concatenate([np.flatnonzero(seq == s)[:TOKENS] for s in np.unique(seq)])
    return ids[keep].astype(np.int64), seq[keep]


def _type(config: RunConfig) -> Any:
    import torch

    return "auto" if config.torch_type == "auto" else getattr(torch, config.torch_type)


def run_on_ranks(checkpoint: Checkpoint, config: RunConfig, text: list[Any], seed: int) -> ExpertRun:
    """Start, run all prompts together, count, stop; then compare, where that is asked for."""
    prompts = texts_of(text)[: config.max_prompts]
    if not prompts:
        raise BadInput("there is no prompt to run")
    with start(checkpoint, config, seed) as engine:
        if engine.tokenizer is None:
            raise BadInput(f"{checkpoint.name} has no tokenizer: prompts of text cannot be run")
        begun = time.perf_counter()
        streams = engine.submit_all(prompts, config.max_new_tokens, temperature=config.temperature)
        made = []
        for number, (prompt, stream) in enumerate(zip(prompts, streams, strict=True)):
            done = stream.result()
            made.append(Ran(prompt=prompt, text=done.text or "", tokens=list(done.tokens)))
            tell("generating", number + 1, len(prompts))
        seconds = time.perf_counter() - begun
        report, placement, mode = engine.report(), engine.placement, engine.mode
        reason = engine.choice.reason if engine.choice is not None else ""
    moved = totals([traffic_of(row) for row in report])
    checked = []
    if config.check:
        found = verify(
            checkpoint.folder, placement, prompts, modes=[mode], new_tokens=config.max_new_tokens, dtype=_type(config),
            deterministic=config.deterministic,
        )  # fmt: skip
        checked = [Checked(**{k: getattr(v, k) for k in Checked.model_fields}) for v in found]
    steps = max(1, max(len(r.tokens) for r in made) - 1)
    summary = (
        f"{sum(len(r.tokens) for r in made)} tokens for {len(made)} prompts on {placement.devices} ranks, mode {mode}: "
        f"{moved.rows:.2f} hidden states and {moved.bytes:,.0f} bytes between ranks a token."
    )
    return ExpertRun(
        title=f"{checkpoint.name} on {placement.devices} ranks", summary=summary, technique="moe.run",
        ranks=placement.devices, mode=mode, reason=reason, seconds=seconds, made=made,
        held=[_held(row) for row in report], moved=_moved(moved, steps), checked=checked,
        provenance=provenance(seed=seed, settings=config.model_dump(mode="json")),
    )  # fmt: skip


def traffic_of(row: dict[str, Any]) -> Traffic:
    """One rank's traffic, out of its report."""
    told = row["traffic"]
    return Traffic(
        Counters(**told["prefill"]), Counters(**told["decode"]), told["prompt_tokens"], told["new_tokens"]
    )  # fmt: skip


def _held(row: dict[str, Any]) -> RankHeld:
    traffic = traffic_of(row)
    return RankHeld(
        rank=row["rank"], experts=row["expert_bytes"], replicated=row["replicated_bytes"], contexts=row["cache_bytes"],
        resident=row["resident_bytes"], sent=traffic.prefill.bytes + traffic.decode.bytes,
    )  # fmt: skip


def _moved(found: Totals, steps: int) -> Moved:
    return Moved(
        collectives=found.collectives / steps, messages=found.messages, rows=found.rows, payload=found.payload_bytes,
        metadata=found.metadata_bytes, contexts=found.kv_bytes, padding=found.padding_bytes,
    )  # fmt: skip
