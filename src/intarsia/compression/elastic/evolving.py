"""NSGA-II over choices: least harm and least costs at once, within a budget, where no knapsack is exact (several
bounds, any set of blocks).

What keeps the budget comes before what does not, and of the latter what exceeds it least; then by fronts and, within
one, by how lonely a point is.

Source: Deb et al. 2002, NSGA-II, doi 10.1109/4235.996017, §3 and §6 (constraints)."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from intarsia.compression.elastic.choices import Choice, Space
from intarsia.compression.elastic.costs import Costs
from intarsia.compression.elastic.harms import Harms
from intarsia.compression.elastic.supernet import Supernet
from intarsia.errors import MissingExtra
from intarsia.measure.scores import dominates
from intarsia.progress import track

RATE = 0.15  # of mutation


class Problem:
    """Values of choices, each told once."""

    def __init__(self, supernet: Supernet, space: Space, harms: Harms, costs: Costs):
        self.supernet, self.space, self.harms, self.costs = supernet, space, harms, costs
        self.known: dict[Choice, tuple[float, ...]] = {}

    def values(self, choice: Choice) -> tuple[float, ...]:
        """Lower is better: harm, and each cost that is bounded."""
        if choice not in self.known:
            found = self.costs(choice)
            self.known[choice] = (self.harms(choice), *(found[name] for name in self.costs.names))
        return self.known[choice]

    def excess(self, choice: Choice) -> float:
        """Beyond the budget."""
        return max(0.0, self.costs.excess(choice))


def evolve(problem: Problem, seeds: Sequence[Choice], population: int, generations: int, seed: int) -> list[Choice]:
    """All choices that were looked at. seeds: to begin with."""
    chance = random.Random(seed)
    people = list(dict.fromkeys(seeds))[:population]
    while len(people) < population:
        people.append(problem.space.drawn(problem.supernet.full[0], chance))
    for _ in track(range(generations), "evolving"):
        rank = _ranked(problem, people)
        children = []
        for _ in range(population):
            one, other = (min(chance.sample(people, 2), key=rank.__getitem__) for _ in range(2))
            children.append(mutated(crossed(one, other, problem, chance), problem, chance))
        every = list(dict.fromkeys([*people, *children]))
        rank = _ranked(problem, every)
        people = sorted(every, key=rank.__getitem__)[:population]
        while len(people) < 2:
            people.append(problem.space.drawn(problem.supernet.full[0], chance))
    return list(problem.known)


def sorted_fronts(points: Sequence[tuple[float, ...]], excess: Sequence[float]) -> list[list[int]]:
    """Numbers of the points by fronts: none in the first is dominated, none in the second but by one of the first..."""
    left, fronts = set(range(len(points))), list[list[int]]()
    beaten: list[set[int]] = [
        {j for j in range(len(points)) if _dominates(points[j], excess[j], points[i], excess[i])}
        for i in range(len(points))
    ]
    while left:
        front = sorted(i for i in left if not beaten[i] & left)
        fronts.append(front)
        left -= set(front)
    return fronts


def crowding(points: Sequence[tuple[float, ...]]) -> list[float]:
    """Of one front: how far the neighbours of each point are; those at the ends have all the room."""
    out = [0.0] * len(points)
    for axis in range(len(points[0])):
        order = sorted(range(len(points)), key=lambda i: points[i][axis])
        low, high = points[order[0]][axis], points[order[-1]][axis]
        out[order[0]] = out[order[-1]] = float("inf")
        if high > low:
            for before, i, after in zip(order, order[1:], order[2:], strict=False):
                out[i] += (points[after][axis] - points[before][axis]) / (high - low)
    return out


def _dominates(one: tuple[float, ...], beyond: float, other: tuple[float, ...], also: float) -> bool:
    if beyond or also:
        return beyond < also
    return dominates(other, one)  # (here the lower is the better)


def _ranked(problem: Problem, people: Sequence[Choice]) -> dict[Choice, tuple[int, float]]:
    """The lower, the better."""
    points, excess = [problem.values(c) for c in people], [problem.excess(c) for c in people]
    out: dict[Choice, tuple[int, float]] = {}
    for number, front in enumerate(sorted_fronts(points, excess)):
        for i, room in zip(front, crowding([points[i] for i in front]), strict=True):
            out[people[i]] = number, -room
    return out


def crossed(one: Choice, other: Choice, problem: Problem, chance: random.Random) -> Choice:
    """Each part from one of two."""
    mine, theirs = (dict(zip(c.blocks, c.neurons, strict=True)) for c in (one, other))
    kept = [b for b in range(problem.supernet.full[0]) if b in chance.choice((mine, theirs))]
    if len(kept) < problem.space.fewest:
        kept = list(chance.choice((one, other)).blocks)
    if problem.space.uneven:
        each = tuple(chance.choice([m[b] for m in (mine, theirs) if b in m]) for b in kept)
    else:
        each = (chance.choice((one, other)).neurons[0],) * len(kept)
    return Choice(
        tuple(kept), each, chance.choice((one.heads, other.heads)), chance.choice((one.width, other.width))
    )  # fmt: skip


def mutated(choice: Choice, problem: Problem, chance: random.Random) -> Choice:
    """Some parts drawn anew: a block back or away, other neurons, heads, width."""
    space, count = problem.space, problem.supernet.full[0]
    kept = dict(zip(choice.blocks, choice.neurons, strict=True))
    if chance.random() < RATE * 2 and space.fewest < count:
        block = chance.randrange(count)
        if block in kept and len(kept) > space.fewest:
            del kept[block]
        elif block not in kept:
            kept[block] = choice.neurons[0]
    blocks = tuple(sorted(kept))
    if space.uneven:
        each = tuple(chance.choice(space.neurons) if chance.random() < RATE else kept[b] for b in blocks)
    else:
        each = (chance.choice(space.neurons) if chance.random() < RATE else choice.neurons[0],) * len(blocks)
    made = replace(choice, blocks=blocks, neurons=each)
    if chance.random() < RATE:
        made = replace(made, heads=chance.choice(space.heads))
    return replace(made, width=chance.choice(space.widths)) if chance.random() < RATE else made


def by_optuna(problem: Problem, seeds: Sequence[Choice], population: int, generations: int, seed: int) -> list[Choice]:
    """The same by Optuna's NSGA-II. Raises `MissingExtra` without it."""
    try:
        import optuna
    except ImportError:
        raise MissingExtra("a search by optuna", "search") from None
    space, count = problem.space, problem.supernet.full[0]
    free = range(count) if space.fewest < count else range(0)
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)

    def constraints(trial: optuna.trial.FrozenTrial) -> Sequence[float]:
        return (trial.user_attrs["excess"],)

    sampler = optuna.samplers.NSGAIISampler(population_size=population, seed=seed, constraints_func=constraints)
    study = optuna.create_study(directions=["minimize"] * (1 + len(problem.costs.names)), sampler=sampler)
    try:
        for choice in seeds:
            study.enqueue_trial(_named(choice, space, count))
        for _ in track(range(population * generations), "searching by optuna"):
            trial = study.ask()
            some = {b: trial.suggest_categorical(f"block {b}", (True, False)) for b in free}
            kept = [b for b in range(count) if some.get(b, True)]
            if space.uneven:
                every = {b: trial.suggest_categorical(f"neurons {b}", space.neurons) for b in range(count)}
            else:
                every = dict.fromkeys(range(count), trial.suggest_categorical("neurons", space.neurons))
            heads = trial.suggest_categorical("heads", space.heads)
            width = trial.suggest_categorical("width", space.widths)
            if len(kept) < space.fewest:  # the blocks that are needed most come back
                gone = [b for b in problem.harms.order if b not in kept][::-1]
                rest = [b for b in range(count) if b not in kept and b not in gone]
                kept = sorted([*kept, *[*rest, *gone][: space.fewest - len(kept)]])
            choice = Choice(tuple(kept), tuple(every[b] for b in kept), heads, width)
            values = problem.values(choice)
            trial.set_user_attr("excess", problem.excess(choice))
            study.tell(trial, values)
    finally:
        optuna.logging.set_verbosity(before)
    return list(problem.known)


def _named(choice: Choice, space: Space, count: int) -> dict[str, int | bool]:
    kept = dict(zip(choice.blocks, choice.neurons, strict=True))
    named: dict[str, int | bool] = {"heads": choice.heads, "width": choice.width}
    if space.fewest < count:
        named |= {f"block {b}": b in kept for b in range(count)}
    if space.uneven:
        named |= {f"neurons {b}": kept.get(b, choice.neurons[0]) for b in range(count)}
    else:
        named["neurons"] = choice.neurons[0]
    return named
