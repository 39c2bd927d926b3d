"""The ladder on a real model and real dialogues: its first rungs move the right way, and what is taken agrees."""

from __future__ import annotations

import numpy as np
import pytest

import intarsia as ia
from intarsia.adaptation import plan, take
from intarsia.data import load_data, shared_data
from intarsia.errors import IntarsiaError
from intarsia.measure import LabelTask, score_shots
from intarsia.measure.labelling import label_scores


@pytest.fixture(scope="module")
def model() -> ia.Model:
    try:
        ia.load("minilm")
        return ia.load("smollm2-135m")
    except IntarsiaError as error:
        pytest.skip(f"the models are not available: {error}")


@pytest.fixture(scope="module")
def meld() -> dict:
    if (folder := shared_data("dialogue/meld")) is None:
        pytest.skip("MELD is not there: put it into the folder of INTARSIA_DATA")
    return dict(load_data(folder))


@pytest.mark.real
@pytest.mark.slow
def test_the_first_rungs_of_meld(model, meld, tmp_path):
    found = plan(
        model, train=meld["train"], dev=meld["dev"], rungs=("zero-shot", "calibrated", "neighbours", "linear"),
        template="{text} (feels", past=0, train_limit=1000, dev_limit=150, latency_records=2, keep=tmp_path,
    )  # fmt: skip
    figures = {step.name: step.dev["weighted_f1"][0] for step in found.steps}
    # Raw likelihood lies below always answering "neutral"; calibration and memory are worth ten points each and more.
    assert figures["calibrated"] > figures["zero-shot"] + 0.1
    assert figures["neighbours"] > figures["calibrated"] and figures["linear"] > found.floor["weighted_f1"] + 0.1
    taken = take(model, keep=tmp_path, rung="neighbours")
    some = [turn for turn in meld["dev"] if turn.label][:20]
    assert np.isfinite(label_scores(taken, some).scores).all()
    assert found.latency["linear"] < found.latency["zero-shot"]


@pytest.mark.real
def test_sharing_demonstrations_changes_no_score(model, meld):
    turns = meld["train"][:40]
    task = LabelTask.from_records(turns, prior=False, template="{text} (feels")
    shots = [turns[:6]] * 4 + [turns[6:9]] * 2 + [[]]
    found = [score_shots(model, task, turns[-7:], shots, calibration="none", share=share) for share in (True, False)]
    np.testing.assert_allclose(found[0].raw, found[1].raw, atol=1e-3)
