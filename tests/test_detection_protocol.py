"""The protocol that all detectors are measured by."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from bench.detection.sets import DOMAINS, kinds_of, read_set
from intarsia.data import Document, shared_data
from intarsia.detection.evaluating.protocol import (
    auroc,
    auroc_interval,
    by_threshold,
    measure,
    split_by_domain,
)


def test_the_area_is_that_of_scikit_learn_ties_and_weights_too():
    draw = np.random.default_rng(0)
    people, machine = draw.integers(0, 6, 40).astype(float), draw.integers(1, 8, 30).astype(float)
    weights = draw.integers(0, 3, 40), draw.integers(1, 3, 30)
    truth = np.r_[np.zeros(40), np.ones(30)]
    for a, b in ((np.ones(40), np.ones(30)), weights):
        wanted = roc_auc_score(truth, np.r_[people, machine], sample_weight=np.r_[a, b])
        assert auroc(people, machine, np.asarray(a, float), np.asarray(b, float)) == pytest.approx(wanted)
    assert np.isnan(auroc(np.zeros(0), machine, np.zeros(0), np.ones(30)))


def test_its_interval_draws_topics_whole():
    draw = np.random.default_rng(1)
    people, machine = draw.normal(size=60), draw.normal(size=60) + 1
    alone = auroc_interval(people, machine, [str(i) for i in range(60)], [f"m{i}" for i in range(60)])
    topics = [str(i // 20) for i in range(60)]
    few = auroc_interval(people, machine + np.repeat([-2, 0, 2], 20), topics, topics)
    assert alone[1] < alone[0] < alone[2] and alone[2] - alone[1] < 0.25
    assert few[2] - few[1] > alone[2] - alone[1]


def document(number: int, machine: bool, **more) -> Document:
    return Document(f"text {number}", "machine" if machine else "human", f"t{number % 10}", domain="d", **more)


def test_no_topic_is_in_the_bank_and_judged():
    some = [document(i, False) for i in range(40)] + [document(i, True) for i in range(20)]
    (split,) = split_by_domain(some)
    assert not {d.group for d in split.bank} & {d.group for d in split.people}
    assert len(split.bank) == len(split.people) == 20 and len(split.machine) == 20
    said = [document(i, False, split=("train", "cal", "test")[i % 3]) for i in range(30)]
    said += [document(i, True, split=("train", "cal", "test")[i % 3]) for i in range(30)]
    (split,) = split_by_domain(said)
    assert {d.split for d in split.bank} == {"cal"} and {d.split for d in split.judged} == {"test"}


def test_thresholds_come_from_people_alone():
    some = [document(i, False) for i in range(40)] + [document(i, True) for i in range(20)]
    (split,) = split_by_domain(some)

    def score(documents):
        return np.array([10.0 if d.label == "machine" else float(d.text.split()[1]) / 10 for d in documents])

    whole, *kinds = measure("x", split, by_threshold(score), 0.05, kinds=lambda d: d.text[-1], draws=50)
    assert whole.auroc[0] == 1.0 and whole.found[0] == 1.0 and whole.false[0] <= 0.2 and len(kinds) == 10
    assert (whole.people, whole.machine, whole.bank) == (20, 20, 20)
    silent = measure("x", split, by_threshold(lambda documents: np.full(len(documents), np.nan)), 0.05, draws=10)[0]
    assert silent.found[0] == 0 and silent.auroc[0] == 0.5


@pytest.mark.real
@pytest.mark.parametrize("name", ["arxiv", "fdg_pubmed", "college"])
def test_the_benchmark_judges_nothing_it_has_seen(name):
    folder = shared_data("detect")
    if folder is None:
        pytest.skip("the data set detect is not there (INTARSIA_DATA)")
    one = read_set(folder, name)
    assert one.bank and one.people and one.machine and name in DOMAINS
    bank, judged = {d.text for d in one.bank}, {d.text for d in [*one.people, *one.machine]}
    assert not bank & judged and len(judged) == len(one.people) + len(one.machine)
    if name == "arxiv":  # with splits of its own
        assert {d.split for d in one.people} == {"test"} and not {d.group for d in one.bank} & {
            d.group for d in one.people
        }
        assert sum("polished" in kind for kind in kinds_of(one.machine)) == 90
    corpus = one.corpus()
    assert corpus.banked.sum() == sum(len(t.split()) > 9 for t in bank) and len(set(corpus.texts)) == len(corpus.texts)
