"""What `moe.plan` and `moe.place` do: count, place, judge."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from intarsia.errors import BadInput
from intarsia.measure.provenance import provenance
from intarsia.moe.affinity_measures import conditional
from intarsia.moe.placement.arrays import Devices
from intarsia.moe.placement.balance import Point, pareto
from intarsia.moe.placement.baselines import baselines
from intarsia.moe.placement.placement import Placement
from intarsia.moe.placement.problem import Problem, crossing, crossings
from intarsia.moe.placement.replicas import replicas
from intarsia.moe.placement.solving import Solution, solve
from intarsia.moe.placement.staged import solve_grouped, solve_staged
from intarsia.moe.placement.traffic import traffic
from intarsia.moe.plan import Balanced, Judged, PlaceConfig, Plan, PlanConfig
from intarsia.moe.routing import Counts, Trace
from intarsia.moe.routing.trace import TraceFacts
from intarsia.report import Figure

if TYPE_CHECKING:
    from intarsia.models import Model

TOGETHER = (0.5, 1.0, 2.0)  # weights of experts used together that are tried


def plan_for(model: Model, config: PlanConfig, text: list[Any] | None, seed: int) -> Plan:
    """Record, or take the traces that are given, then `plan_of`."""
    from intarsia.moe.routing.recording import facts_of, record, texts_of, unfinished

    groups = getattr(model.config, "n_group", None) or 1
    config = config if config.groups > 1 else config.model_copy(update={"groups": groups})
    if bool(config.trace) == bool(text):
        raise BadInput("moe.plan wants either a text to run, or traces of this model (trace)")
    facts = facts_of(model)
    if config.trace:
        trace = Trace.open(config.trace)
        if trace.facts.router_sha256 and trace.facts.router_sha256 != facts.router_sha256:
            raise BadInput(
                f"{config.trace[0]}: recorded with another model ({trace.facts.name}) than {model.identity.source}; "
                "its routers have other weights"
            )
    else:
        _possible(config, (len(facts.layers), facts.experts))
        _comparable(config, facts)
        trace = record(
            model, texts_of(text or []), length=config.length, max_tokens=config.max_tokens,
            batch_size=config.batch_size, folder=unfinished(),
        )  # fmt: skip
    return plan_of(trace, config, seed)


def _possible(config: PlaceConfig, size: tuple[int, int]) -> None:
    """Refuse what cannot be placed before anything is run."""
    layers, experts = size
    if layers < 2:
        raise BadInput("the model has one routed layer: there is no step between layers to save")
    Problem(np.zeros((layers - 1, experts, experts)), config.devices, config.nodes)
    if config.to is not None and config.to.expanduser().exists():
        raise BadInput(f"{config.to} is there already: give another name for the placement")
    one = -(-experts // config.devices) == 1
    if config.max_load is not None and (config.nodes > 1 or config.groups > 1 or config.devices == 1 or one):
        raise BadInput("max_load is for one node of several devices with several experts each: leave it out here")
    if experts % config.groups:
        raise BadInput(f"{experts} experts are not in {config.groups} equal groups")
    if config.groups > 1 and config.nodes > 1:
        raise BadInput("groups of experts and nodes at once are not placed: leave out nodes")
    if experts % config.nodes:
        raise BadInput(f"{experts} experts cannot stand on {config.nodes} equal nodes; take nodes that divide them")


def _comparable(config: PlaceConfig, facts: TraceFacts) -> list[Trace]:
    """The traces to judge by beside the held-out text."""
    others = [Trace.open(name) for name in config.others]
    for other in others:
        if (other.facts.experts, other.facts.layers, other.facts.k) != (facts.experts, facts.layers, facts.k):
            raise BadInput(f"{other.facts.name}: recorded with another model than {facts.name}")
    return others


def plan_of(trace: Trace, config: PlaceConfig, seed: int) -> Plan:
    """The plan for a trace."""
    facts = trace.facts
    _possible(config, (len(facts.layers), facts.experts))
    known = trace.sha256
    others = _comparable(config, facts)
    for other in others:
        if other.sha256 == known:
            raise BadInput(f"{other.facts.name}: the trace that is planned from; give one of other text to judge by")
    train, test = trace.split(1 - config.hold_out)
    counts = Counts.of(train)
    problem = Problem(
        counts.flow(), config.devices, config.nodes, config.far, mates=counts.mates(), load=counts.shares()
    )
    problem, solution, node_bound, words = _placed(problem, train, config, seed)
    points = _points(problem, solution, config, seed)
    chosen = _taken(points, config) if points else None
    rows = chosen.device_of if chosen else solution.device_of
    first = chosen is None or chosen is points[0]
    copies = replicas(train, rows, config.devices, config.replicas) if config.replicas else ()
    made = Placement(rows, config.devices, config.nodes, copies, facts.layers, k=facts.k)
    named = {"plan": made} | {
        name: replace(made, device_of=table, replicas=()) for name, table in baselines(problem, seed).items()
    }
    judged = list(_judged(named, {"held out": test} | _named(others)))
    held = Counts.of(test).flow()
    plan = Plan(
        title=f"Placement of {facts.experts} experts x {len(facts.layers)} layers on {config.devices} devices",
        technique="moe.place", experts=facts.experts, layers=list(facts.layers), k=facts.k, devices=config.devices,
        nodes=config.nodes, model=facts.model, router_sha256=facts.router_sha256, device_of_expert=rows.tolist(),
        replicas=[[list(d) for d in layer] for layer in copies], planned=crossing(problem.flow, rows),
        bound=solution.bound, node_bound=node_bound,
        optimal=first and solution.proof == "optimal" and problem.nodes == 1 and not words,
        solver=solution.solver + words, seconds=solution.seconds, tokens=counts.tokens, judged=judged,
        balanced=[Balanced(crossing=p.crossing, load=p.load, taken=p is chosen) for p in points],
        by_step={
            "plan": crossings(held, rows).tolist(),
            "contiguous": crossings(held, named["contiguous"].device_of).tolist(),
        },
        picture=_picture(problem, rows, facts.layers),
        provenance=provenance(seed=seed, settings=config.model_dump(mode="json"), trace=known),
    )  # fmt: skip
    plan = plan.model_copy(update={"summary": _summary(plan)})
    if config.to is not None:
        plan.placement.save(config.to.expanduser())
    return plan


def _placed(
    problem: Problem, train: Trace, config: PlaceConfig, seed: int
) -> tuple[Problem, Solution, float | None, str]:
    """(the problem with the goal's weights, its solution, the bound of changing node, what to add to the solver's
    name)."""
    rows = config.goal == "rows" or (config.goal == "auto" and train.facts.k > 1)
    free = problem.devices > 1 and config.groups == 1
    weights = TOGETHER if rows and train.facts.k > 1 and free and problem.slots > 1 else (0.0,)
    found: list[tuple[float, float, Solution, float | None]] = []
    for weight in weights:
        one = replace(problem, together=weight)
        effort = max(1, config.effort // len(weights))
        if config.groups > 1:
            solution, node_bound = solve_grouped(one, config.groups, effort=effort, seed=seed), None
        elif config.nodes > 1:
            solution, node_bound = solve_staged(one, effort=effort, seed=seed)
        else:
            solution, node_bound = solve(one, effort=effort, seed=seed), None
        sent = traffic(train, Placement(solution.device_of, config.devices, config.nodes)).coherent if rows else 0.0
        found.append((sent, weight, solution, node_bound))
    _, weight, best, node_bound = min(found, key=lambda f: f[:2])
    total = sum(f[2].seconds for f in found)
    words = f", with experts used together (weight {weight:g})" if weight else ""
    best = replace(best, seconds=total)
    if config.prove and best.proof != "optimal" and not problem.empty and config.groups == 1:
        from intarsia.moe.placement.programme import aggregated

        proved = aggregated(problem, config.prove)
        if not weight and problem.plain and proved.device_of is not None and proved.value < best.value - 1e-9:
            best = replace(best, device_of=proved.device_of, value=proved.value, solver="integer programme")
        bound = min(best.value, max(best.bound, proved.bound))
        best = replace(best, bound=bound, proof="optimal" if best.value <= bound + 1e-9 else "bound")
    return replace(problem, together=weight), best, node_bound, words


def _points(problem: Problem, solution: Solution, config: PlaceConfig, seed: int) -> list[Point]:
    if problem.devices == 1 or problem.nodes > 1 or problem.slots == 1 or config.groups > 1:
        return []
    effort = max(1, config.effort // 10)
    return pareto(problem, solution.device_of, within=config.max_load, effort=effort, seed=seed)


def _taken(points: list[Point], config: PlaceConfig) -> Point:
    """The first placement, unless a load is asked for: then the least crossing within it."""
    if config.max_load is None:
        return points[0]
    within = [p for p in points if p.load <= config.max_load]
    if not within:
        least = min(p.load for p in points)
        raise BadInput(
            f"no placement was found whose fullest device has at most {config.max_load:g} times the mean load "
            f"(the evenest has {least:.3f}): give a greater max_load"
        )
    return min(within, key=lambda p: p.value)


def _named(others: list[Trace]) -> dict[str, Trace]:
    """By corpus, where that tells them apart."""
    names = [t.facts.corpus or t.facts.name for t in others]
    single = [name if names.count(name) == 1 else f"{name} {i + 1}" for i, name in enumerate(names)]
    return dict(zip(single, others, strict=True))


def _judged(placements: dict[str, Placement], texts: dict[str, Trace]) -> Iterator[Judged]:
    for text, trace in texts.items():
        for name, placement in placements.items():
            found = asdict(traffic(trace, placement))
            found.pop("tokens")
            yield Judged(name=name, text=text, **found)


def _summary(plan: Plan) -> str:
    mine, plain = plan.of("plan"), plan.of("contiguous")
    saved = 1 - mine.crossing / plain.crossing if plain.crossing else 0.0
    proof = (
        "which is proved to be the least possible"
        if plan.optimal
        else f"where no placement could be below {plan.bound:.1%}"
    )
    return (
        f"On text it was not planned from, {mine.crossing:.1%} of steps change device, contiguous "
        f"{plain.crossing:.1%}: {saved:.0%} less. On the text planned from {plan.planned:.1%}, {proof}."
    )


def _picture(problem: Problem, rows: Devices, layers: tuple[int, ...]) -> Figure | None:
    """The middle step's P(next | expert), experts in the order of their devices: what stays is in the blocks."""
    if problem.experts > 128:
        return None
    i = len(problem.flow) // 2
    left, right = np.argsort(rows[i], kind="stable"), np.argsort(rows[i + 1], kind="stable")
    table = conditional(problem.flow[i])[left][:, right]
    return Figure(
        title=f"Layer {layers[i]} to {layers[i + 1]}: next expert, given the expert, both in the order of devices",
        kind="heatmap", x=f"expert of layer {layers[i + 1]}", y=f"expert of layer {layers[i]}", matrix=table.tolist(),
        row_names=[f"{e} (device {rows[i, e]})" for e in left], column_names=[f"{e}" for e in right], format=".0%",
        note="Tokens in the blocks on the diagonal stay on their device.",
    )  # fmt: skip
