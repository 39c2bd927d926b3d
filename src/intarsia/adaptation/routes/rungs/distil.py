"""A small student of the best rung so far: softmax over sentence embeddings, taught by labels and by what the teacher
finds likely.

Source: Hinton et al. 2015, "Distilling the Knowledge in a Neural Network", §2: (1 - w) CE + w T^2 KL."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from intarsia.adaptation.dialogue.linear import STRENGTHS, Linear
from intarsia.adaptation.label_tuning import fit_temperature
from intarsia.adaptation.routes.figures import log_softmax, value
from intarsia.adaptation.routes.rung import Learned, OutOfTime
from intarsia.adaptation.routes.rungs.linear import Embedded, OfEmbeddings, to_saved
from intarsia.progress import track

if TYPE_CHECKING:
    from intarsia.adaptation.routes.bench import Bench
    from intarsia.adaptation.routes.examples import Example

TEMPERATURE, WEIGHTS = 2.0, (0.5, 0.9)
CHUNK = 64  # texts that the teacher labels between two looks at the clock


class Student(OfEmbeddings):
    """Fitted to both; strength and weight are chosen on dev."""

    name = "distil"
    what = "softmax of sentence embeddings, taught by the best rung so far"

    def learn(self, bench: Bench) -> Learned:
        if bench.teacher is None:
            raise OutOfTime("no rung that could teach is finished")
        name, teacher = bench.teacher
        some, mine, held = bench.featured()
        y = bench.y[: len(some)]
        temperature = fit_temperature(teacher(bench.dev), bench.y_dev)  # the teacher has seen its training texts
        taught = self._taught(bench, some)
        best: tuple[float, Linear, float, float] | None = None
        for weight in WEIGHTS:
            for strength in STRENGTHS:
                fitted = fit(
                    mine, y, len(bench.labels), taught / temperature, weight=weight, temperature=TEMPERATURE,
                    strength=strength,
                )  # fmt: skip
                figure = value(bench.config.metric, fitted.scores(held), bench.y_dev)
                if best is None or figure > best[0]:
                    best = figure, fitted, weight, strength
            if bench.left() <= 0:
                break
        assert best is not None
        labeller = Embedded(best[1], bench)
        facts = {"teacher": name, "taught": len(taught), "texts": len(some), "weight": best[2], "strength": best[3]}
        return Learned(to_saved(best[1]), labeller, best[1].scores(held), facts)

    def _taught(self, bench: Bench, some: list[Example]) -> np.ndarray:
        """[text, label]: the teacher's log probabilities of as many training texts as two thirds of the time left
        allow, one chunk at least."""
        assert bench.teacher is not None
        until, out = bench.left() / 3, []
        for start in track(range(0, len(some), CHUNK), "asking the teacher"):
            if start and bench.left() <= until:
                break
            out.append(bench.teacher[1](some[start : start + CHUNK]))
        return np.concatenate(out)


def fit(
    features: np.ndarray, labels: np.ndarray, count: int, taught: np.ndarray, *, weight: float, temperature: float,
    strength: float, steps: int = 100,
) -> Linear:  # fmt: skip
    """Minimise the mean of (1 - w) CE(y) + w T^2 KL(teacher || student) over records, plus |W|^2 / (2 strength n); of
    records that the teacher was not asked about, CE alone.

    - features: [record, width]; labels: [record]. taught: [record, label] log probabilities of the first records."""
    import torch

    mean = features.mean(0, dtype=np.float64).astype(np.float32)
    spread = np.full(features.shape[1], max(1e-6, float((features - mean).std())), np.float32)
    x = torch.from_numpy(((features - mean) / spread).astype(np.float32))
    y = torch.from_numpy(np.asarray(labels, np.int64))
    soft = torch.from_numpy(np.exp(log_softmax(taught / temperature)).astype(np.float32))
    n, known = len(y), len(taught)
    hard_weight = torch.ones(n)
    hard_weight[:known] = 1 - weight
    matrix = torch.zeros(count, x.shape[1], requires_grad=True)
    bias = torch.zeros(count, requires_grad=True)
    optimiser = torch.optim.LBFGS(
        [matrix, bias], max_iter=steps, history_size=10, line_search_fn="strong_wolfe", tolerance_change=1e-7
    )

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        z = x @ matrix.T + bias
        hard = (torch.nn.functional.cross_entropy(z, y, reduction="none") * hard_weight).sum()
        student = torch.log_softmax(z[:known] / temperature, 1)
        kl = torch.nn.functional.kl_div(student, soft, reduction="sum")
        loss = (hard + weight * temperature**2 * kl) / n + matrix.square().sum() / (2 * strength * n)
        loss.backward()
        return loss

    optimiser.step(closure)
    return Linear(matrix.detach().numpy(), bias.detach().numpy(), mean, spread)
