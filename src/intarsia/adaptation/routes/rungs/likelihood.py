"""Rungs without learning: the labels' words as they are, and what their likelihood is worth once it is calibrated.

Source: Zhao et al. 2021, "Calibrate Before Use"; Fei et al. 2023, "Mitigating Label Biases", §3 (the mean of the
domain's own texts)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from intarsia.adaptation.routes.figures import log_softmax, shift
from intarsia.adaptation.routes.rung import Learned, Likelihood, Plain, biased
from intarsia.models.saved import Saved

if TYPE_CHECKING:
    from intarsia.adaptation.routes.bench import Bench
    from intarsia.adaptation.routes.setting import Setting


class ZeroShot(Plain):
    """The label whose words are likeliest after the prompt."""

    name = "zero-shot"
    what = "likelihood of the labels' words"

    def learn(self, bench: Bench) -> Learned:
        saved = Saved({}, {"bias": None})
        return Learned(saved, self.open(bench, saved), log_softmax(bench.raw()))

    def open(self, setting: Setting, saved: Saved) -> Likelihood:
        return Likelihood(setting.model, biased(setting.task, saved.note["bias"]))


class Calibrated(ZeroShot):
    """Minus the mean over dev, plus tau times the log share of each label in train, tau chosen on dev."""

    name = "calibrated"
    what = "zero-shot, minus its mean, plus the prior"
    reads = ("metric",)

    def learn(self, bench: Bench) -> Learned:
        bias, tau = calibration(bench, bench.raw())
        saved = Saved({}, {"bias": bias.tolist()})
        return Learned(saved, self.open(bench, saved), log_softmax(bench.raw() + bias), {"tau": tau})


def calibration(bench: Bench, raw: np.ndarray) -> tuple[np.ndarray, float]:
    """The bias [label] that takes the mean of raw scores off and puts tau * log prior in its place; and tau.

    The mean is that over dev, kept: a single text can be labelled later, and always in the same way."""
    mean = raw.mean(0)
    tau, _ = shift(bench.config.metric, raw - mean, bench.y_dev, bench.log_prior, 1.0)
    return tau * bench.log_prior - mean, tau
