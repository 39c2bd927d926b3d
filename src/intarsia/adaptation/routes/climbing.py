"""Climbing: rung after rung, each learned, judged and kept, until one is good enough; then which one to take."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from intarsia.adaptation.routes.choosing import choose
from intarsia.adaptation.routes.figures import FIGURES, figures, value
from intarsia.adaptation.routes.finding import NAMES, RouteFinding, Step
from intarsia.adaptation.routes.judging import Judge
from intarsia.adaptation.routes.keeping import FORMAT
from intarsia.adaptation.routes.rung import Labeller, Likelihood, OutOfTime, Rung
from intarsia.adaptation.routes.rungs import RUNGS
from intarsia.adaptation.routes.technique import NAME
from intarsia.errors import BadInput, IntarsiaError
from intarsia.measure import provenance
from intarsia.progress import tell

if TYPE_CHECKING:
    from intarsia.adaptation.routes.bench import Bench
    from intarsia.adaptation.routes.examples import Example
    from intarsia.measure.quality_parts import Interval


class Climb:
    """One climb."""

    def __init__(self, bench: Bench, rungs: Sequence[Rung], test: list[Example]):
        self.bench, self.rungs, self.test = bench, rungs, test
        self.config = bench.config
        self.steps: list[Step] = []
        self.times: dict[str, dict[str, float]] = {"minutes": {}, "judging": {}, "latency": {}}
        self.keys: dict[str, str] = {}
        self.labellers: dict[str, Labeller] = {}  # of the best teacher, and of no other: networks are large
        self.judge = Judge(bench)

    def go(self) -> RouteFinding:
        """Climb, choose, test."""
        bench, config = self.bench, self.config
        for number, rung in enumerate(self.rungs):
            tell("climbing", number, len(self.rungs), rung=rung.name)
            step = self._climbed(rung)
            self.steps.append(step)
            if config.stop and config.target is not None and self._reaches(step):
                break
        tell("climbing", len(self.rungs), len(self.rungs), finished=True)
        done = [step for step in self.steps if step.state == "done"]
        if not done:
            raise IntarsiaError(f"{NAME}: no rung could be climbed: {self.steps[0].note}")
        take, why = choose(
            done, self.times["minutes"], config.metric, config.target, bench.y_dev, len(bench.labels), bench.groups,
            bench.seed,
        )  # fmt: skip
        test = self.judge.on_test(self.keys[take], lambda: self._labeller(take), self.test) if self.test else {}
        finding = self._finding(take, why, test)
        bench.kept.keep_ladder(
            {"format": FORMAT, "task": bench.task.model_dump(mode="json"), "weights": bench.weights,
             "config": config.model_dump(mode="json", exclude={"keep"}), "seed": bench.seed, "take": take,
             "rungs": {step.name: self.keys[step.name] for step in done}}
        )  # fmt: skip
        return finding

    def _reaches(self, step: Step) -> bool:
        target = self.config.target
        return step.state == "done" and target is not None and step.dev[self.config.metric][0] >= target

    def _climbed(self, rung: Rung) -> Step:
        bench = self.bench
        self._choose_teacher()
        more = [self.keys[bench.teacher[0]]] if rung.name == "distil" and bench.teacher is not None else []
        if rung.changes:
            more.append(self.judge.general_mark())
        key = self.keys[rung.name] = bench.mark(rung.name, rung.reads, *more)
        if (found := bench.kept.result(key)) is not None:
            for name, times in self.times.items():
                times[rung.name] = found[name]
            if rung.changes:
                self.judge.as_it_is()
            return Step.model_validate(found["step"])
        bench.start()
        try:
            rung.possible(bench)
            learned = rung.learn(bench)
        except OutOfTime as error:
            return self._failed(rung, "out of time", error)
        except BadInput as error:
            return self._failed(rung, "not possible", error)
        except IntarsiaError as error:  # a loss that is no number, say: the other rungs may do better
            return self._failed(rung, "failed", error)
        minutes = bench.spent()
        begun = time.monotonic()
        scores = learned.labeller(bench.dev) if learned.dev is None else learned.dev
        size = bench.kept.keep_learned(key, learned.saved)
        answers = scores.argmax(1).tolist()
        after = None
        if rung.changes:
            assert isinstance(learned.labeller, Likelihood)
            self.judge.as_it_is()
            after = self.judge.perplexity(learned.labeller.model)
        step = Step(
            name=rung.name, what=rung.what, access=rung.access, answers=answers, perplexity=after, bytes=size,
            dev=figures(answers, bench.y_dev, len(bench.labels), bench.groups, bench.seed), facts=learned.facts,
        )  # fmt: skip
        latency = self.judge.latency(learned.labeller)
        times = {"minutes": minutes, "judging": (time.monotonic() - begun) / 60, "latency": latency}
        for name, seconds in times.items():
            self.times[name][rung.name] = seconds
        bench.kept.keep_result(key, {"step": step.model_dump(mode="json"), **times})
        if rung.teaches and self._best_teacher([*self.steps, step]) == rung.name:
            self.labellers = {rung.name: learned.labeller}
        return step

    def _failed(self, rung: Rung, state: str, error: Exception) -> Step:
        return Step(name=rung.name, what=rung.what, access=rung.access, state=state, note=str(error))

    def _best_teacher(self, steps: Sequence[Step]) -> str | None:
        able = [step for step in steps if step.state == "done" and RUNGS[step.name].teaches]
        return max(able, key=lambda step: step.dev[self.config.metric][0]).name if able else None

    def _choose_teacher(self) -> None:
        name = self._best_teacher(self.steps)
        self.bench.teacher = None if name is None else (name, lambda examples: self._labeller(name)(examples))

    def _labeller(self, name: str) -> Labeller:
        """Of a finished rung, opened again where it is not at hand."""
        if name not in self.labellers:
            self.labellers = {name: RUNGS[name].open(self.bench, self.bench.kept.learned(self.keys[name]))}
        return self.labellers[name]

    def _finding(self, take: str, why: str, test: dict[str, Interval]) -> RouteFinding:
        bench, config = self.bench, self.config
        most = np.zeros((len(bench.y_dev), len(bench.labels)))
        most[:, int(np.bincount(bench.y).argmax())] = 1
        records = {"train": len(bench.train), "dev": len(bench.dev)}
        chosen = next(step for step in self.steps if step.name == take)
        figure = NAMES[config.metric]
        summary = f"Take {take}: {why}. {figure[:1].upper()}{figure[1:]} on dev is {chosen.dev[config.metric][0]:.1%}"
        summary += f", on test {test[config.metric][0]:.1%}." if test else "."
        return RouteFinding(
            title=f"Ways to specialise {bench.model.identity.source} to {len(bench.labels)} labels",
            summary=summary, technique=NAME,
            provenance=provenance(
                seed=bench.seed, config=config.model_dump(mode="json", exclude={"keep"}),
                task=bench.task.model_dump(mode="json"),
            ),
            steps=self.steps, not_climbed=[rung.name for rung in self.rungs[len(self.steps) :]], metric=config.metric,
            target=config.target, records=records, general=self.judge.before,
            floor={name: value(name, most, bench.y_dev) for name in FIGURES},
            general_name=bench.general.name if self.judge.before and bench.general else "",
            take=take, why=why, test=test, test_records=self.judge.tested, folder=str(bench.kept.folder), **self.times,
        )  # fmt: skip
