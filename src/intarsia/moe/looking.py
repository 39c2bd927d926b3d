"""What `moe.affinity` does."""

from __future__ import annotations

import numpy as np

from intarsia.errors import BadInput
from intarsia.measure.provenance import provenance
from intarsia.moe import affinity_measures as measures
from intarsia.moe.affinity import Affinity, AffinityConfig, StepAffinity, TraceAffinity
from intarsia.moe.routing import Counts, Trace
from intarsia.progress import track
from intarsia.report import Figure


def look(trace: Trace, config: AffinityConfig) -> Affinity:
    facts = trace.facts
    if len(facts.layers) < 2:
        raise BadInput("the trace has one routed layer: there is no step between layers to look at")
    traces = [trace, *(Trace.open(name) for name in config.against)]
    for other in traces[1:]:
        if (other.facts.experts, other.facts.layers) != (facts.experts, facts.layers):
            raise BadInput(
                f"{other.facts.name}: {len(other.facts.layers)} layers of {other.facts.experts} experts; the first "
                f"trace has {len(facts.layers)} of {facts.experts}: give traces of one network"
            )
    slots = -(-facts.experts // config.devices)
    counts = [Counts.of(t, range(1, config.lags + 1)) for t in track(traces, "counting")]
    found = [_of(t, c, slots, counts[0]) for t, c in zip(traces, counts, strict=True)]
    first = found[0]
    bits, chance = first.mean("bits"), first.mean("chance")
    summary = (
        f"An expert says {bits:.2f} bits about the next one ({first.mean('share'):.0%} of what there is to know): "
        f"{first.mean('favourites'):.0%} of tokens go on to one of the {slots} likeliest, {chance:.0%} would by chance."
    )
    return Affinity(
        title=f"Expert affinity: {facts.name}", summary=summary, technique="moe.affinity", experts=facts.experts,
        k=facts.k, traces=found, pictures=_pictures(counts[0], facts.layers, config.pictures),
        provenance=provenance(settings=config.model_dump(mode="json"), traces=[t.sha256 for t in traces]),
    )  # fmt: skip


def _of(trace: Trace, counts: Counts, slots: int, first: Counts) -> TraceAffinity:
    layers, flow = trace.facts.layers, counts.flow()
    steps = []
    for i, table in enumerate(flow):
        bits = measures.mutual_information(table, counts.tokens)
        total = measures.entropy(table.sum(0))
        load = counts.first[i + 1]
        steps.append(
            StepAffinity(
                before=layers[i], after=layers[i + 1], bits=bits, share=bits / total if total else 0.0,
                favourites=measures.top_mass(table, slots),
                chance=measures.top_mass(np.outer(table.sum(1), table.sum(0)), slots),
                load=float(load.max() / load.mean()), entropy=measures.entropy(load),
            )
        )  # fmt: skip
    lags = [
        float(np.mean([measures.mutual_information(table, counts.tokens) for table in counts.flow(lag)]))
        for lag in counts.steps
    ]
    like = None if counts is first else float(
        np.mean([measures.likeness(a, b) for a, b in zip(first.flow(), flow, strict=True)])
    )  # fmt: skip
    return TraceAffinity(name=trace.facts.name, tokens=counts.tokens, steps=steps, by_lag=lags, likeness=like)


def _pictures(counts: Counts, layers: tuple[int, ...], most: int) -> list[Figure]:
    """P(next | expert) of a few steps, spread over the network, the later layer's experts in the order of who leads to
    them, so that affinity shows as a diagonal."""
    from scipy.optimize import linear_sum_assignment

    flow = counts.flow()
    figures = []
    for i in np.unique(np.linspace(0, len(flow) - 1, min(most, len(flow))).round().astype(int)) if most else ():
        table = measures.conditional(flow[i])
        _, order = linear_sum_assignment(flow[i], maximize=True)
        figures.append(
            Figure(
                title=f"Layer {layers[i]} to {layers[i + 1]}: next expert, given the expert", kind="heatmap",
                x=f"expert of layer {layers[i + 1]}", y=f"expert of layer {layers[i]}",
                matrix=table[:, order].tolist(), row_names=[str(e) for e in range(len(table))],
                column_names=[str(e) for e in order], format=".0%",
            )
        )  # fmt: skip
    return figures
