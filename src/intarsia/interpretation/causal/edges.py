"""The computation behind `interpretation.circuit`."""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from intarsia.interpretation.causal.circuit import Circuit, CircuitConfig, Edge, Pruned
from intarsia.interpretation.causal.contrast import contrast
from intarsia.interpretation.causal.graph import Graph
from intarsia.interpretation.causal.patching import check_kinds
from intarsia.interpretation.evaluation.correlation import pearson
from intarsia.interpretation.wording import percent
from intarsia.measure import provenance
from intarsia.progress import track

if TYPE_CHECKING:
    from intarsia.models import Model

WHO = "interpretation.circuit"
PICTURED = 25  # edges in the picture


def find(model: Model, config: CircuitConfig, seed: int) -> Circuit:
    """Score, prune and check edges; see `interpretation.circuit`."""
    check_kinds(model, ["z", "attn_out", "mlp_out"], WHO)
    made = contrast(
        model, WHO, config.prompt, config.corrupt, answer=config.answer, foil=config.foil, metric=config.metric
    )
    graph = Graph(made, WHO)
    differences, slopes = graph.differences(), graph.slopes()
    effects = scores(differences, slopes, graph.allowed) / -made.difference
    total = int(graph.allowed.sum())
    order = effects.abs().masked_fill(~graph.allowed, -1).flatten().argsort(descending=True)[:total]
    width = effects.shape[1]

    circuits = []
    for size in track(sorted({min(s, total) for s in config.sizes if s > 0}), "trying circuits"):
        kept = torch.zeros_like(graph.allowed)
        kept.view(-1)[order[:size]] = True
        used = connected(graph, kept)
        nodes = {int(i) for i in used.nonzero()[:, 0]} | {int(j) + 1 for j in used.nonzero()[:, 1]}
        circuits.append(
            Pruned(
                edges=size,
                connected=int(used.sum()),
                nodes=len(nodes),
                faithfulness=(graph.metric_of(kept) - made.corrupt_value) / made.difference,
                without=(graph.metric_of(graph.allowed & ~kept) - made.corrupt_value) / made.difference,
            )
        )
    whole = (graph.metric_of(graph.allowed) - made.corrupt_value) / made.difference

    best = order[: config.check // 2].tolist()
    rest = order[config.check // 2 :].tolist()
    chosen = best + random.Random(seed).sample(rest, min(config.check - len(best), len(rest)))
    measured: dict[int, float] = {}
    for edge in track(chosen, "checking edges"):
        value = graph.metric_without(edge // width, edge % width, differences[edge // width])
        measured[edge] = (value - made.clean_value) / -made.difference

    listed = list(dict.fromkeys([*order[: max(config.show, config.check // 2)].tolist(), *chosen]))
    flat = effects.flatten()
    edges = [
        Edge(
            source=graph.sources[e // width].name,
            target=graph.targets[e % width].name,
            effect=float(flat[e]),
            measured=measured.get(e),
        )
        for e in listed
    ]
    r = pearson([float(flat[e]) for e in chosen], list(measured.values())) if len(chosen) > 2 else math.nan
    shown = order[:PICTURED].tolist()
    rows, columns = sorted({e // width for e in shown}), sorted({e % width for e in shown})
    pictured = set(shown)
    finding = Circuit(
        title=f"A circuit of {model.identity.source}",
        technique=WHO,
        contrast=made.told(),
        edges=edges,
        total=total,
        circuits=circuits,
        wanted=config.wanted,
        whole=whole,
        agreement=None if math.isnan(r) else r,
        shown=config.show,
        sources=[graph.sources[i].name for i in rows],
        targets=[graph.targets[j].name for j in columns],
        matrix=[[float(effects[i, j]) if i * width + j in pictured else None for j in columns] for i in rows],
        provenance=provenance(seed=seed, settings=config.model_dump()),
    )
    return finding.model_copy(update={"summary": summarise(finding)})


def scores(differences: Tensor, slopes: Tensor, allowed: Tensor) -> Tensor:
    """First-order change of the metric when an edge is corrupted, [source, target] float64; 0 where there "
    "is no edge."""
    product = differences.flatten(1).double() @ slopes.flatten(1).double().T
    return (product * allowed.to(product.device)).cpu()


def connected(graph: Graph, edges: Tensor) -> Tensor:
    """The edges that lie on a path from the embedding to the logits."""
    reached, used = {0}, torch.zeros_like(edges)
    for node in graph.targets:
        column = graph.index[node] - 1
        if any(s in reached for s in edges[:, column].nonzero()[:, 0].tolist()):
            reached.add(graph.index[node])
    wanted = {len(graph.nodes) - 1}
    for node in reversed(graph.targets):
        if graph.index[node] in wanted:
            column = graph.index[node] - 1
            for s in edges[:, column].nonzero()[:, 0].tolist():
                if s in reached:
                    used[s, column] = True
                    wanted.add(s)
    return used


def summarise(finding: Circuit) -> str:
    """The strongest edge, the smallest circuit, and how far to trust the ranking."""
    top = finding.edges[0]
    text = f"Of {finding.total:,} edges the strongest is {top.source} → {top.target} ({top.effect:.0%} of the change). "
    if (small := finding.smallest) is not None:
        text += (
            f"{small.edges} edges ({small.nodes} nodes on paths) recover {small.faithfulness:.0%} of the "
            f"metric with corrupt "
            f"values everywhere else; without them {small.without:.0%} are left. "
        )
    elif finding.circuits:
        last = finding.circuits[-1]
        text += f"Even {last.edges} edges recover only {last.faithfulness:.0%} of the metric. "
    if finding.agreement is not None:
        text += f"Approximate and measured effects correlate at {finding.agreement:.2f} (Pearson)"
        text += ". " if finding.agreement >= 0.7 else ": do not rely on the ranking. "
    if abs(finding.whole - 1) > 0.02:
        text += f"All edges together give {percent(finding.whole)}, which should be 100 %. "
    return text + "It holds for this pair of prompts."
