"""What is measured of a rung beside dev: general text, the time of one record, and test, once."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from intarsia.adaptation.routes.examples import Example, some_of
from intarsia.adaptation.routes.figures import figures
from intarsia.adaptation.routes.keeping import mark
from intarsia.measure.windows import perplexity

if TYPE_CHECKING:
    from intarsia.adaptation.routes.bench import Bench
    from intarsia.adaptation.routes.rung import Labeller
    from intarsia.measure.quality_parts import Interval
    from intarsia.models import Model


class Judge:
    """- before: perplexity of the model as it is, once a rung was compared with it. tested: records of test."""

    def __init__(self, bench: Bench):
        self.bench = bench
        self.before: Interval | None = None
        self.tested = 0

    def general_mark(self) -> str:
        """Of the general texts, and how much of them is read."""
        general = self.bench.general
        assert general is not None
        return mark([t.text for t in (*general.measured, *general.replayed)], self.bench.config.general_tokens)

    def as_it_is(self) -> None:
        """Measure the model as it is, or find what was measured before."""
        if self.before is not None:
            return
        key = self.bench.mark("general", (), self.general_mark())
        if (found := self.bench.kept.result(key)) is None:
            found = {"perplexity": self.perplexity(self.bench.model)}
            self.bench.kept.keep_result(key, found)
        value, low, high = found["perplexity"]
        self.before = value, low, high

    def perplexity(self, model: Model) -> Interval:
        """Of the half of the general texts that is never replayed."""
        general = self.bench.general
        assert general is not None
        return perplexity(
            model, [t.text for t in general.measured], [t.group for t in general.measured],
            max_tokens=self.bench.config.general_tokens, seed=self.bench.seed,
        ).perplexity  # fmt: skip

    def latency(self, labeller: Labeller) -> float:
        """Milliseconds: the median over dev records that are labelled one by one, after one to warm up."""
        taken = []
        for example in self.bench.dev[: self.bench.config.latency_records + 1]:
            begun = time.perf_counter()
            with self.bench.afresh():
                labeller([example])
            taken.append(1000 * (time.perf_counter() - begun))
        return float(np.median(taken[1:] or taken))

    def on_test(self, key: str, labeller: Callable[[], Labeller], test: list[Example]) -> dict[str, Interval]:
        """Figures of one rung on test; of a rung that was judged there before, what was found then."""
        bench = self.bench
        test = some_of(test, bench.config.test_limit, bench.seed)
        key = f"test-{mark(key, [[e.text, e.label, e.group, e.context] for e in test])}"
        if (found := bench.kept.result(key)) is None:
            answers = labeller()(test).argmax(1).tolist()
            true = np.array(bench.task.index(test, "test"))
            values = figures(answers, true, len(bench.labels), [example.group for example in test], bench.seed)
            found = {"figures": values}
            bench.kept.keep_result(key, found)
        self.tested = len(test)
        return {name: tuple(values) for name, values in found["figures"].items()}
