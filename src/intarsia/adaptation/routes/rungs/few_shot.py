"""Few-shot prompting by retrieval: the training texts most like the one at hand stand before it, with their labels.

Source: Liu et al. 2022, "What Makes Good In-Context Examples for GPT-3?"; maximal marginal relevance, Carbonell &
Goldstein 1998."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from intarsia.adaptation.routes.examples import Example
from intarsia.adaptation.routes.figures import log_softmax, value
from intarsia.adaptation.routes.rung import Learned, OutOfTime, Plain
from intarsia.adaptation.routes.rungs.likelihood import calibration
from intarsia.errors import BadInput
from intarsia.measure.demonstrations import nearest
from intarsia.measure.shots import score_shots
from intarsia.models.saved import Saved

if TYPE_CHECKING:
    from intarsia.adaptation.routes.bench import Bench
    from intarsia.adaptation.routes.setting import Setting


@dataclass
class Prompted:
    """- pool, vectors: what demonstrations are taken from; count: how many. bias: [label], added to the likelihoods."""

    setting: Setting
    pool: list[Example]
    vectors: np.ndarray
    count: int
    bias: np.ndarray

    def __call__(self, examples: Sequence[Example]) -> np.ndarray:
        return log_softmax(self.raw(examples) + self.bias)

    def raw(self, examples: Sequence[Example]) -> np.ndarray:
        """Without the bias. Demonstrations of the example's own dialogue are never taken."""
        chosen = nearest(
            self.pool, self.vectors, examples, self.setting.said(examples), self.count,
            relevance=self.setting.config.relevance,
        )  # fmt: skip
        shots = [[self.pool[i] for i in numbers] for numbers in chosen]
        return score_shots(self.setting.model, self.setting.task, examples, shots, calibration="none").raw


class FewShot(Plain):
    """The number of demonstrations is chosen on dev, among those there is time to try."""

    name = "few-shot"
    what = "nearest training texts as demonstrations"
    reads = ("embedder", "minutes", "metric", "shots", "relevance")

    def check(self, setting: Setting) -> None:
        counts = setting.config.shots
        if not counts or min(counts) < 1:
            raise BadInput(f"shots: numbers from 1 up (given: {', '.join(map(str, counts)) or 'none'})")

    def learn(self, bench: Bench) -> Learned:
        import torch

        some, mine, _ = bench.embedded()
        vectors = mine.astype(np.float16)
        prompt = sum(map(len, bench.written.ids)) / len(bench.written.ids)
        best: tuple[float, Prompted, np.ndarray, float] | None = None
        tried = []
        for count in sorted(set(bench.config.shots)):
            wanted = len(bench.dev) * (count + 1) * prompt * bench.pace() / 60
            if wanted > bench.left():
                if best is None:
                    raise OutOfTime(
                        f"{count} demonstrations for each of {len(bench.dev)} texts of dev would take about "
                        f"{wanted:.1f} minutes, and {max(0.0, bench.left()):.1f} are left"
                    )
                break
            prompted = Prompted(bench, some, vectors.astype(np.float32), count, np.zeros(len(bench.labels)))
            raw = prompted.raw(bench.dev)
            prompted.bias, tau = calibration(bench, raw)
            figure = value(bench.config.metric, raw + prompted.bias, bench.y_dev)
            tried.append(count)
            if best is None or figure > best[0]:
                best = figure, prompted, log_softmax(raw + prompted.bias), tau
        assert best is not None
        prompted = best[1]
        note = {"count": prompted.count, "bias": prompted.bias.tolist(), "pool": [asdict(e) for e in some]}
        facts = {"k": prompted.count, "tried": tried, "tau": best[3]}
        return Learned(Saved({"vectors": torch.from_numpy(vectors)}, note), prompted, best[2], facts)

    def open(self, setting: Setting, saved: Saved) -> Prompted:
        pool = [_example(fields) for fields in saved.note["pool"]]
        vectors = saved.tensors["vectors"].float().numpy()
        return Prompted(setting, pool, vectors, saved.note["count"], np.array(saved.note["bias"]))


def _example(fields: dict) -> Example:
    """As it was: JSON has lists for tuples."""
    return Example(**{name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()})
