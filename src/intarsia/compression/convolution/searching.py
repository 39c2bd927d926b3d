"""Looking for the best architecture that an elastic network holds, under budgets of bytes, work and measured time.

Every candidate is built, its batch norms' statistics are taken again, and its accuracy is that on pictures held out;
its time is measured beside the full network's, in turn. By evolution (Real et al. 2019, arXiv 1802.01548: parents by
tournament, children by mutation and crossing), or by Optuna's sampler (TPE)."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from pydantic import BaseModel, Field
from torch import Tensor, nn

from intarsia.compression.convolution.elastic import Choice, Elastic
from intarsia.compression.convolution.guessing import naswot, synflow
from intarsia.compression.convolution.networks import accuracy, answers, check_pixels, mode
from intarsia.compression.convolution.normalising import reestimate
from intarsia.compression.convolution.recovering import Lesson
from intarsia.errors import BadInput, MissingExtra
from intarsia.measure.counting import count_macs
from intarsia.measure.provenance import provenance
from intarsia.measure.scores import front
from intarsia.progress import track
from intarsia.report import Cell, Column, Figure, Finding, Series, Table

WHO = "compression.search_filters"
COSTS = ("bytes", "macs", "latency")
GUESSES: dict[str, Callable[[nn.Module, Tensor], float]] = {"synflow": synflow, "naswot": naswot}
ROUNDS = 5  # of timing a candidate beside the full network


class Tried(BaseModel):
    """One network that was tried. accuracy: on the pictures held out; bytes; macs: of a picture; latency: of a picture,
    over the full network's, None where no budget asked for it."""

    accuracy: float
    bytes: int
    macs: int
    latency: float | None = None
    widths: list[int]
    blocks: list[bool]
    kernels: list[int]


class Searched(Finding):
    """What a search tried. tried: all of it, in order; full: the network that holds them; best: the number of the one
    that was taken; budget: shares of the full network's costs. discarded: candidates that a guess put last."""

    volatile: ClassVar[frozenset[str]] = frozenset({"tried", "best"})

    tried: list[Tried] = Field(default_factory=list)
    full: Tried | None = None
    best: int = 0
    budget: dict[str, float] = Field(default_factory=dict)
    discarded: int = 0

    def front(self) -> list[Tried]:
        """Those that no other one beats in accuracy and bytes at once, the smallest first."""
        on = front([(t.accuracy, -t.bytes) for t in self.tried])
        return sorted((self.tried[i] for i in on), key=lambda t: t.bytes)

    def headline(self) -> dict[str, tuple[Cell | tuple[float, float, float], Column]]:
        if not self.tried:
            return {}
        best = self.tried[self.best]
        return {
            "accuracy": (best.accuracy, Column(name="accuracy", format=".1%", better="higher")),
            "bytes": (best.bytes, Column(name="size", format="bytes", better="lower")),
        }

    def tables(self) -> list[Table]:
        columns = [
            Column(name="accuracy", format=".1%", better="higher"), Column(name="size", format="bytes", better="lower"),
            Column(name="MACs", format=",d", better="lower"), Column(name="time", unit="of the full one", format=".2f"),
            Column(name="widths"), Column(name="blocks left out"), Column(name="kernels"),
        ]  # fmt: skip
        rows: list[list[Any]] = [
            [t.accuracy, t.bytes, t.macs, t.latency, " ".join(map(str, t.widths)), t.blocks.count(False),
             " ".join(map(str, t.kernels))]
            for t in self.front()
        ]  # fmt: skip
        return [Table(title="The Pareto front", columns=columns, rows=rows, note="Before the one taken learns alone.")]

    def figures(self) -> list[Figure]:
        def series(name: str, some: list[Tried]) -> Series:
            return Series(name=name, x=[t.bytes / 1e3 for t in some], y=[t.accuracy for t in some])

        many = [series("tried", self.tried), series("Pareto front", self.front())]
        if self.full is not None:
            many.append(series("full network", [self.full]))
        return [
            Figure(
                title="Accuracy and size of what was tried", kind="scatter", x="kB", y="accuracy", series=many,
                format=".3f", log_x=True,
            )
        ]  # fmt: skip


@dataclass
class Search:
    """best: the network that was taken, by itself, its batch norms told anew; finding: all that was tried."""

    best: nn.Module
    choice: Choice
    finding: Searched
    elastic: Elastic
    losses: list[float] = field(default_factory=list)


def search_network(
    network: nn.Module, pixels: Tensor, labels: Tensor | None, held: Tensor, held_labels: Tensor, *,
    budget: Mapping[str, float], lesson: Lesson | None = None, by: str = "evolution", discard: str = "none",
    rounds: int = 8, population: int = 24, multiple: int = 4, seed: int = 0,
    elastic: Elastic | None = None,
) -> Search:  # fmt: skip
    """The most accurate network within the budget among those that an elastic copy of `network` holds.

    - pixels, labels: to teach the shared weights (`lesson`; epochs 0: not), and for batch norms. held, held_labels: to
      rank by; they should be none of the first.
    - budget: `bytes`, `macs`, `latency`: shares of the full network's (0.25: a quarter). Latency is measured here, in
      PyTorch, one picture.
    - by: evolution, or optuna (extra `search`); rounds times population networks are tried. discard: synflow or naswot;
      twice as many candidates are made and the guess throws away half of them.
    - elastic: of an earlier search (`Search.elastic`), whose weights have learnt: they are taught once for all budgets.

    Raises `BadInput` for an unknown cost, and where the smallest network is above the budget."""
    lesson = lesson or Lesson()
    _check(network, held, held_labels, budget, by, discard)
    taught = elastic is not None
    elastic = elastic or Elastic(network, pixels, multiple=multiple)
    judge = _Judge(elastic, pixels, held, held_labels, dict(budget), random.Random(seed))
    judge.check_feasible()
    losses: list[float] = []
    if lesson.epochs and not taught:
        losses = elastic.train(pixels, labels, network, lesson, seed)
    finding = Searched(
        title="Architecture search", technique=WHO, budget=dict(budget), provenance=provenance(seed=seed, by=by)
    )
    judge.guess = GUESSES.get(discard)
    if by == "optuna":
        _by_optuna(judge, rounds * population, seed)
    else:
        _by_evolution(judge, rounds, population)
    finding.tried = list(judge.tried.values())
    finding.full = judge.told(elastic.largest)
    finding.discarded = judge.discarded
    inside = [i for i, choice in enumerate(judge.tried) if judge.fits(choice)]
    finding.best = max(inside, key=lambda i: (finding.tried[i].accuracy, -finding.tried[i].bytes))
    best = finding.tried[finding.best]
    finding.summary = (
        f"{len(judge.tried)} networks were tried; the best within the budget has accuracy {best.accuracy:.1%} "
        f"(full: {finding.full.accuracy:.1%}) and {finding.full.bytes / best.bytes:.1f} times less memory."
    )
    choice = list(judge.tried)[finding.best]
    small = elastic.network_of(choice)
    reestimate(small, pixels)
    return Search(small.train(network.training), choice, finding, elastic, losses)


def _check(
    network: nn.Module, held: Tensor, labels: Tensor, budget: Mapping[str, float], by: str, discard: str
) -> None:
    if not budget or any(name not in COSTS for name in budget):
        raise BadInput(f"{WHO}: a budget is of {', '.join(COSTS)}, given {', '.join(budget) or 'none'}")
    if any(not 0 < share <= 1 for share in budget.values()):
        raise BadInput(f"{WHO}: a budget is a share of the full network's cost, above 0 and at most 1")
    if by not in ("evolution", "optuna"):
        raise BadInput(f"{WHO}: by is evolution or optuna, given '{by}'")
    if discard != "none" and discard not in GUESSES:
        raise BadInput(f"{WHO}: discard is none, {' or '.join(GUESSES)}, given '{discard}'")
    if by == "optuna":
        try:
            import optuna  # noqa: F401
        except ImportError:
            raise MissingExtra(f"{WHO} by optuna", "search") from None
    check_pixels(network, held, WHO, labels)


class _Judge:
    """Costs and accuracies, each network once."""

    def __init__(
        self, elastic: Elastic, pixels: Tensor, held: Tensor, labels: Tensor, budget: dict[str, float],
        chance: random.Random,
    ):  # fmt: skip
        self.elastic, self.pixels, self.held, self.labels = elastic, pixels, held, labels
        self.budget, self.chance = budget, chance
        self.tried: dict[Choice, Tried] = {}
        self.costs: dict[Choice, dict[str, float]] = {}
        self.guess: Callable[[nn.Module, Tensor], float] | None = None
        self.discarded = 0
        self.whole = {"bytes": float(elastic.bytes_of(elastic.largest))}
        if "macs" in budget:
            self.whole["macs"] = float(self._macs(elastic.network))

    def _macs(self, network: nn.Module) -> int:
        with mode(network, training=False):
            return count_macs(lambda: answers(network, self.pixels[:1])).macs

    def cost(self, choice: Choice) -> dict[str, float]:
        """Shares of the full network's costs, as far as the budget asks for them."""
        if choice not in self.costs:
            found = {"bytes": self.elastic.bytes_of(choice) / self.whole["bytes"]}
            if "macs" in self.budget or "latency" in self.budget:
                small = self.elastic.network_of(choice)
                if "macs" in self.budget:
                    found["macs"] = self._macs(small) / self.whole["macs"]
                if "latency" in self.budget:
                    found["latency"] = latency(small, self.elastic.network, self.pixels[:1])
            self.costs[choice] = found
        return self.costs[choice]

    def fits(self, choice: Choice) -> bool:
        # What is told from shapes comes first: the rest has to be measured.
        if (share := self.budget.get("bytes")) is not None:
            if self.elastic.bytes_of(choice) > share * self.whole["bytes"]:
                return False
            if len(self.budget) == 1:
                return True
        return all(self.cost(choice)[name] <= share for name, share in self.budget.items())

    def check_feasible(self) -> None:
        smallest = self.elastic.smallest
        if not self.fits(smallest):
            found = self.cost(smallest)
            name = next(n for n, share in self.budget.items() if found[n] > share)
            raise BadInput(
                f"{WHO}: the smallest network takes {found[name]:.3f} of the full one's {name}, and the budget is "
                f"{self.budget[name]:.3f}"
            )

    def shrunk(self, choice: Choice) -> Choice:
        """The choice, made smaller step by step, by chance, until it is within the budget."""
        while not self.fits(choice):
            moves = []
            for i, (width, every) in enumerate(zip(choice.widths, self.elastic.widths, strict=True)):
                if width > every[0]:
                    moves.append(("widths", i, every[every.index(width) - 1]))
            moves += [
                ("blocks", i, False) for i, there in enumerate(choice.blocks) if there and self.chance.random() < 0.2
            ]
            for i, (size, every) in enumerate(zip(choice.kernels, self.elastic.sizes, strict=True)):
                if size > every[0] and self.chance.random() < 0.2:
                    moves.append(("kernels", i, every[every.index(size) - 1]))
            if not moves:
                if choice == self.elastic.smallest:
                    return choice
                moves = [("blocks", i, False) for i, there in enumerate(choice.blocks) if there] or [
                    ("kernels", i, every[0]) for i, every in enumerate(self.elastic.sizes)
                ]
            what, i, value = self.chance.choice(moves)
            listed = list(getattr(choice, what))
            listed[i] = value
            choice = replace(choice, **{what: tuple(listed)})
        return choice

    def told(self, choice: Choice) -> Tried:
        """What one network is, built and tested."""
        small = self.elastic.network_of(choice)
        reestimate(small, self.pixels, most=512)
        return Tried(
            accuracy=accuracy(small, self.held, self.labels), bytes=self.elastic.bytes_of(choice),
            macs=self._macs(small), latency=self.costs.get(choice, {}).get("latency"), widths=list(choice.widths),
            blocks=list(choice.blocks), kernels=list(choice.kernels),
        )  # fmt: skip

    def test(self, choice: Choice) -> float:
        """Accuracy; remembered."""
        if choice not in self.tried:
            self.tried[choice] = self.told(choice)
        return self.tried[choice].accuracy

    def sifted(self, make: Callable[[], Choice], count: int) -> list[Choice]:
        """So many new choices; with a guess, the better half of twice as many."""
        found: dict[Choice, None] = {}
        wanted = count * (2 if self.guess else 1)
        for _ in range(20 * wanted):
            if len(found) == wanted:
                break
            choice = make()
            if choice not in self.tried:
                found[choice] = None
        if self.guess is None or len(found) <= count:
            return list(found)
        pixels = self.held[:32]
        values = {choice: self.guess(self.elastic.network_of(choice), pixels) for choice in found}
        best = sorted(found, key=lambda c: -values[c])[:count]
        self.discarded += len(found) - len(best)
        return best


def _by_evolution(judge: _Judge, rounds: int, population: int) -> None:
    elastic, chance = judge.elastic, judge.chance
    first = [judge.shrunk(elastic.uniform(s / 10)) for s in range(10, 0, -1)]
    first = list(dict.fromkeys(first))[: population // 2]
    first += judge.sifted(lambda: judge.shrunk(elastic.drawn(chance)), population - len(first))
    facts: dict[str, float | str] = {}
    for turn in track(range(rounds), "searching", facts=facts):
        if turn:

            def child() -> Choice:
                one, other = (
                    max(chance.sample(list(judge.tried), min(4, len(judge.tried))), key=judge.test) for _ in range(2)
                )
                return judge.shrunk(mutated(crossed(one, other, chance), elastic, chance))

            first = judge.sifted(child, population)
        for choice in first:
            judge.test(choice)
        facts["accuracy"] = max(t.accuracy for t in judge.tried.values())


def crossed(one: Choice, other: Choice, chance: random.Random) -> Choice:
    """Each part from one of two."""

    def mix(a: tuple, b: tuple) -> tuple:
        return tuple(chance.choice(pair) for pair in zip(a, b, strict=True))

    return Choice(mix(one.widths, other.widths), mix(one.blocks, other.blocks), mix(one.kernels, other.kernels))


def mutated(choice: Choice, elastic: Elastic, chance: random.Random, rate: float = 0.2) -> Choice:
    """Some parts drawn anew."""
    drawn = elastic.drawn(chance)

    def mix(a: tuple, b: tuple) -> tuple:
        return tuple(new if chance.random() < rate else old for old, new in zip(a, b, strict=True))

    return Choice(
        mix(choice.widths, drawn.widths), mix(choice.blocks, drawn.blocks), mix(choice.kernels, drawn.kernels)
    )


def _by_optuna(judge: _Judge, trials: int, seed: int) -> None:
    import optuna

    elastic = judge.elastic
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
    try:
        for _ in track(range(trials), "searching"):
            trial = study.ask()
            choice = Choice(
                tuple(trial.suggest_categorical(f"width {i}", w) for i, w in enumerate(elastic.widths)),
                tuple(trial.suggest_categorical(f"block {i}", (True, False)) for i in range(len(elastic.blocks))),
                tuple(trial.suggest_categorical(f"kernel {i}", s) for i, s in enumerate(elastic.sizes)),
            )
            # Above the budget, it is told what the nearest network within it is worth.
            study.tell(trial, judge.test(judge.shrunk(choice)))
    finally:
        optuna.logging.set_verbosity(before)


@torch.no_grad()
def latency(network: nn.Module, full: nn.Module, pixel: Tensor, rounds: int = ROUNDS) -> float:
    """Time of one picture [1, channel, height, width] over that of the full network: the median of rounds in turn."""
    ratios = []
    with mode(network, training=False), mode(full, training=False):
        for turn in range(rounds + 1):
            seconds = []
            for one in (network, full):
                begin = time.perf_counter()
                for _ in range(3):
                    answers(one, pixel)
                seconds.append(time.perf_counter() - begin)
            if turn:  # the first is to warm up
                ratios.append(seconds[0] / seconds[1])
    return statistics.median(ratios)
