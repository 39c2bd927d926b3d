"""The steps of `compression.search_architecture` and `compression.slice_width`."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

from intarsia.compression.calibration import embedded
from intarsia.compression.checking import check_plain, check_reads_text
from intarsia.compression.elastic.candidates import alone, even, seeds, uneven, within
from intarsia.compression.elastic.choices import Choice, Space
from intarsia.compression.elastic.costs import Costs, read_budget
from intarsia.compression.elastic.evolving import Problem, by_optuna, evolve
from intarsia.compression.elastic.finding import Architectures, Tested
from intarsia.compression.elastic.harms import Harms, sliced_width
from intarsia.compression.elastic.judging import Judge
from intarsia.compression.elastic.supernet import Supernet
from intarsia.compression.elastic.timing import HOLDS, Timing
from intarsia.compression.elastic.training import Sandwich
from intarsia.compression.statistics import WINDOW, windows_of
from intarsia.data import Dataset
from intarsia.errors import BadInput, MissingExtra, Note, OutOfBudget
from intarsia.measure import provenance
from intarsia.measure.energy import check_energy
from intarsia.measure.size import count_parameters
from intarsia.progress import track
from intarsia.training.lora import LoraConfig

if TYPE_CHECKING:
    from intarsia.compression.elastic.technique import SearchArchitectureConfig, SliceWidthConfig
    from intarsia.compression.searching.budgets import Budget
    from intarsia.data import Text
    from intarsia.models import Model

WHO = "compression.search_architecture"
SLICE = "compression.slice_width"
ROUNDS = 3  # of search, where time was measured to be more than the table says


def search(
    model: Model, config: SearchArchitectureConfig, calibration: Sequence[Text] | None, test: Sequence[Text] | None,
    seed: int,
) -> Model:  # fmt: skip
    """See `intarsia.compression.elastic.technique.search_architecture`."""
    budget = read_budget(config.budget, WHO)
    if config.by == "optuna":
        try:
            import optuna  # noqa: F401
        except ImportError:
            raise MissingExtra(f"{WHO} by optuna", "search") from None
    if budget.of("energy"):
        check_energy()
    check_plain(model, WHO)
    windows, held, data = _texts(model, config, calibration, test)
    check_reads_text(model, windows, WHO)
    supernet = Supernet(model, windows, narrower=config.width, who=WHO)
    space = space_of(supernet, config)
    _check_reachable(supernet, space, budget)
    losses: list[float] = []
    if config.train_steps:
        losses = Sandwich(
            supernet, space, windows, _lessons(config), adapters=config.tune == "lora", keep=config.keep, seed=seed
        ).go()
    timing = None
    if {"latency", "energy"} & {b.metric.name for b in budget.bounds}:
        timing = Timing(supernet, space, config.prompt_tokens, config.new_tokens, config.repeats)
        timing.measure()
    costs = Costs(supernet, budget, timing)
    error = _try(timing, seed)
    harms = Harms(
        supernet, space, windows, rank_tokens=config.rank_tokens, ridge=config.ridge,
        refits=config.refit and not losses, seed=seed,
    )  # fmt: skip
    judge = Judge(
        supernet, costs, windows, held, ridge=config.ridge if config.refit and not losses else None,
        rounds=config.repeats,
    )  # fmt: skip
    # No search ends below the best way to cut one part alone, and these tell what predictions are worth.
    for part, choice in track(list(alone(supernet, space, harms, costs).items()), "judging each part alone"):
        harms.learn(part, choice, judge(choice, harms(choice)).kl)
    looked: dict[Choice, None] = dict.fromkeys(judge.tested)
    for _ in range(ROUNDS if timing is not None else 1):
        costs.learn(judge.clocked())
        problem = Problem(supernet, space, harms, costs)
        some, by = _choices(problem, config, seed)
        looked |= dict.fromkeys(some)
        finalists = within(list(looked), harms, costs, config.finalists)
        if not finalists or costs.excess(finalists[0]) > 0:
            break
        made = [judge(choice, harms(choice)) for choice in track(finalists, "judging the best")]
        if not all(one.broken for one in made):
            break  # (else the table was too hopeful)
    tested = list(judge.tested.values())
    finding = Architectures(
        title=f"Architectures within {model.identity.source}", technique=WHO, tested=tested, full=dict(costs.base),
        predicted=[(harms(c), costs(c)["params"]) for c in looked], budget=budget.text, by=by, table_error=error,
        losses=losses, tokens=judge.tokens,
        provenance=provenance(seed=seed, settings=config.model_dump(mode="json", exclude={"keep"}), data=data),
    )  # fmt: skip
    finding.mark(list(dict.fromkeys(["params", *(n for n in costs.names if n != "bytes")])))
    best, small = judge.best, judge.network
    if best is None or small is None:
        nearest = min(tested, key=lambda one: (len(one.broken), one.kl))
        raise OutOfBudget(
            f"{WHO}: nothing that was measured keeps {budget.text}; nearest: {nearest.said}, which breaks "
            f"{', '.join(nearest.broken)}", finding,
        )  # fmt: skip
    best.taken = True
    finding.summary = (
        f"{best.said}: the next token moves by {best.kl:.3f} nats, with {best.params / costs.base['params']:.0%} of "
        f"the parameters ({len(looked):,} networks looked at, {len(tested)} made)."
    )
    settings = config.model_dump(mode="json", exclude={"keep"})
    out = model.with_network(small.network, technique=WHO, config=settings, seed=seed)
    out.extras[WHO] = best.model_dump() | {"full": dict(costs.base), "config": supernet.fields.changes(_choice(best))}
    out.finding = finding
    return out


def slice_width(model: Model, config: SliceWidthConfig, calibration: Sequence[Text] | None) -> Model:
    """See `intarsia.compression.elastic.technique.slice_width`."""
    from intarsia.compression.calibration import calibration_windows

    check_plain(model, SLICE)
    full = int(model.network.get_input_embeddings().weight.shape[1])
    wanted = max(1, round((1 - config.share) * full / config.multiple)) * config.multiple
    if wanted >= full:
        raise BadInput(
            f"{SLICE}: {1 - config.share:.0%} of a width of {full}, as a multiple of {config.multiple}, is {wanted}: "
            "nothing would go; give a smaller multiple or a larger share"
        )
    windows = calibration_windows(model, calibration, config.tokens)
    check_reads_text(model, windows, SLICE)
    supernet = Supernet(model, windows, narrower=True, who=SLICE)
    assert supernet.energy is not None
    if (width := supernet.fields.near_width(wanted)) != wanted:
        name = type(model.network).__name__
        warnings.warn(f"{SLICE}: the config of {name} takes no width of {wanted}: {width} is the nearest", Note, 3)
    small = sliced_width(supernet, width, config.ridge if config.refit else None)
    before, after = count_parameters(model.network)[0], count_parameters(small.network)[0]
    if after >= before:
        warnings.warn(
            f"{SLICE}: embedding and head were one table and are two now: {after:,} parameters, {before:,} before "
            f"(the body has {supernet.body(supernet.choice(width=width)) / supernet.body(supernet.largest):.0%})",
            Note, 3,
        )  # fmt: skip
    changed = model.with_network(small.network, technique=SLICE, config=config.model_dump(mode="json"))
    changed.extras[SLICE] = {
        "width": width, "full": full, "energy": float(supernet.energy[:width].sum()), "parameters": after,
        "parameters_before": before,
    }  # fmt: skip
    return changed


def space_of(supernet: Supernet, config: SearchArchitectureConfig) -> Space:
    """What the settings let vary."""
    count, neurons, heads, width = supernet.full

    def steps(full: int, multiple: int, least: float) -> tuple[int, ...]:
        every = {n for n in range(multiple, full, multiple) if n >= least * full}
        return tuple(sorted(every | {full}))

    some = steps(neurons, config.multiple, config.least) if config.neurons else (neurons,)
    groups = tuple(h for h in range(1, heads + 1) if h >= config.least * heads) if config.heads else (heads,)
    wide: tuple[int, ...] = (width,)
    if config.width:
        every = steps(width, config.width_multiple, config.least_width)
        wide = tuple(sorted({supernet.fields.near_width(w, groups) for w in every} | {width}))
    fewest = max(1, count - int(config.most_blocks * count))
    space = Space(some, groups, wide, fewest, config.uneven)
    if len(some) == len(groups) == len(wide) == 1 and fewest == count:
        raise BadInput(
            f"{WHO}: nothing may vary: of {neurons} neurons, {heads} key-value heads and {count} blocks no other "
            "number is allowed; give a smaller multiple, or a smaller least"
        )
    return space


def _texts(
    model: Model, config: SearchArchitectureConfig, calibration: Sequence[Text] | None, test: Sequence[Text] | None
) -> tuple[list[list[int]], list[list[int]], str]:
    """Windows to look at, windows to judge by, and the data's hash."""
    texts = list(calibration) if calibration is not None else embedded()
    data = Dataset({"calibration": list(texts)}).sha256 if calibration is not None else "python-docs"
    if test is not None:
        return (
            windows_of(model, [t.text for t in texts], config.tokens),
            windows_of(model, [t.text for t in test], config.quality_tokens), data,
        )  # fmt: skip
    total = config.tokens + config.quality_tokens
    # Of little text windows are shorter, so that there are some to look at and some to judge by.
    every = windows_of(model, [t.text for t in texts], total, max(2, min(WINDOW, total // 4)))
    if len(every) < 2:
        have = sum(map(len, every))
        raise BadInput(f"{WHO}: {have} tokens are too few to look at and to judge by: give more text, or test")
    count = min(len(every) - 1, max(1, math.ceil(len(every) * config.quality_tokens / total)))
    return every[:-count], every[-count:], data


def _check_reachable(supernet: Supernet, space: Space, budget: Budget) -> None:
    """What arithmetic tells, before any work."""
    smallest = space.smallest(supernet.full[0])
    some = [smallest, Choice(smallest.blocks, smallest.neurons, smallest.heads, supernet.full[3])]
    least = min(some, key=supernet.parameters)
    costs = Costs(supernet, _only(budget), None) if _only(budget).bounds else None
    if costs is not None and costs.excess(least) > 0:
        raise BadInput(
            f"{WHO}: {budget.text}: the smallest network ({least.said()}) has {_costs(costs, least)}: raise the "
            "budget, or let more go (least, most_blocks, heads, width)"
        )


def _only(budget: Budget) -> Budget:
    from intarsia.compression.searching.budgets import Budget

    return Budget(tuple(b for b in budget.bounds if b.metric.name in ("params", "bytes")), budget.text)


def _costs(costs: Costs, choice: Choice) -> str:
    found = costs(choice)
    return ", ".join(
        f"{found[name] / costs.base[name]:.2f}x the {name}" for name in costs.names if costs.base.get(name)
    )  # fmt: skip


def _lessons(config: SearchArchitectureConfig) -> LoraConfig:
    rate = config.learning_rate or (1e-3 if config.tune == "lora" else 5e-5)
    return LoraConfig(
        learning_rate=rate, rank=config.rank, alpha=2 * config.rank, batch_size=config.batch_size, epochs=1e9,
        max_steps=config.train_steps,
    )  # fmt: skip


def _try(timing: Timing | None, seed: int) -> float | None:
    """The error of the latency table; a note where it does not hold."""
    if timing is None:
        return None
    error = timing.tried(seed)
    if error > HOLDS:
        warnings.warn(
            f"{WHO}: the table of block times is off by {error:.0%} on whole networks (the machine may be busy): "
            "choices by it are guesses, and only what is measured at the end decides", Note, 3,
        )  # fmt: skip
    return error


def _choices(problem: Problem, config: SearchArchitectureConfig, seed: int) -> tuple[list[Choice], str]:
    """All choices that were looked at, and the way."""
    begin = seeds(problem.supernet, problem.space, problem.harms, problem.costs, config.population)
    by = config.by
    if by == "auto":
        by = "knapsack" if len(problem.costs.names) == 1 else "evolution"
    if by == "knapsack":
        some = even(problem.supernet, problem.space, problem.harms.order)
        if problem.space.uneven:
            some += uneven(problem.supernet, problem.space, problem.harms, problem.costs)
        return list(dict.fromkeys([*begin, *some])), by
    how = evolve if by == "evolution" else by_optuna
    return list(dict.fromkeys([*begin, *how(problem, begin, config.population, config.generations, seed)])), by


def _choice(one: Tested) -> Choice:
    return Choice(tuple(one.blocks), tuple(one.neurons), one.heads, one.width)
