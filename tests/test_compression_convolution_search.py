"""Networks in a network: each is what it is by itself, budgets hold, and looking finds better than chance."""

import copy
import math
import random

import pytest
import torch
from torch import nn

import intarsia as ia
from intarsia.compression import search_filters
from intarsia.compression.convolution.channels import channels_of
from intarsia.compression.convolution.elastic import Choice, Elastic, blocks_that_can_go
from intarsia.compression.convolution.guessing import naswot, synflow
from intarsia.compression.convolution.networks import accuracy, all_answers, answers
from intarsia.compression.convolution.recovering import Lesson
from intarsia.compression.convolution.searching import Searched, Tried, crossed, latency, mutated, search_network
from intarsia.data import ImageText
from intarsia.measure.size import tensor_bytes
from intarsia.report import Finding, to_text
from tests.convolution_help import Mixed, digits, net, noise, resnet, trained
from tests.failing import fails


def test_blocks_that_go_past_themselves_are_found():
    assert blocks_that_can_go(net().eval(), noise()) == ["one", "three"]
    names = blocks_that_can_go(resnet("basic"), noise(2, 16))
    assert names == [f"resnet.encoder.stages.{stage}.layers.1" for stage in (0, 1)]


@pytest.mark.parametrize("make", [net, lambda: net(kernel=5), resnet, lambda: Mixed().eval()])
def test_each_network_inside_is_the_one_by_itself(make):
    torch.manual_seed(0)
    network, pixels = make(), noise(4, 16 if make is resnet else 8)
    elastic, chance = Elastic(network, pixels, multiple=2), random.Random(0)
    assert torch.allclose(elastic.answers(elastic.largest, pixels), all_answers(network, pixels), atol=1e-5)
    before = {n: t.clone() for n, t in elastic.network.state_dict().items()}
    for choice in (elastic.smallest, elastic.uniform(0.5), *(elastic.drawn(chance) for _ in range(4))):
        alone = elastic.network_of(choice)
        assert torch.allclose(elastic.answers(choice, pixels), all_answers(alone, pixels), atol=1e-5)
        assert tensor_bytes(alone) == elastic.bytes_of(choice)
    assert all(torch.equal(t, before[n]) for n, t in elastic.network.state_dict().items())
    assert torch.equal(elastic.answers(elastic.largest, pixels), elastic.answers(elastic.largest, pixels))
    assert elastic.bytes_of(elastic.smallest) < 0.5 * elastic.bytes_of(elastic.largest)


def test_a_narrow_group_is_within_a_wide_one_and_a_small_kernel_the_middle():
    elastic = Elastic(net(kernel=5), noise())
    wide, narrow = elastic.uniform(1.0), elastic.uniform(0.5)
    some = elastic.kept(narrow)
    ranks = {u: i for units in elastic.ranked for i, u in enumerate(units)}
    for use in channels_of(elastic.network, noise(), "test").uses:
        if (use.name, use.dim) in some:
            left = {int(use.units[i]) for i in some[use.name, use.dim]}
            assert max(ranks[u] for u in left) < min(
                (ranks[int(u)] for u in use.units if int(u) not in left), default=99
            )  # fmt: skip
    assert elastic.kept(wide) == {}
    at = elastic.kernels.index("one.first")
    small = Choice(wide.widths, wide.blocks, tuple(3 if i == at else s for i, s in enumerate(wide.kernels)))
    alone = elastic.network_of(small)
    assert torch.equal(alone.one.first.weight, elastic.network.one.first.weight[:, :, 1:4, 1:4])
    assert alone.one.first.padding == (1, 1) and elastic.network.one.first.padding == (2, 2)


def test_shared_weights_learn_for_small_networks_too():
    pixels, labels, test, right = digits()
    elastic = Elastic(trained(), pixels)
    choice = elastic.uniform(0.5)

    def worth():
        from intarsia.compression.convolution.normalising import reestimate

        small = elastic.network_of(choice)
        reestimate(small, pixels)
        return accuracy(small, test, right)

    before = worth()
    losses = elastic.train(pixels[:640], labels[:640], trained(), Lesson(epochs=3, learning_rate=3e-3), draws=1)
    assert worth() > before + 0.05
    assert len(losses) == 30


@pytest.mark.parametrize("by", ["evolution", "optuna"])
def test_a_search_keeps_its_budget_and_finds_more_than_the_first_it_tried(by):
    if by == "optuna":
        pytest.importorskip("optuna")
    pixels, labels, _, _ = digits()
    whole = copy.deepcopy(trained().state_dict())
    found = search_network(
        trained(), pixels[200:], labels[200:], pixels[:200], labels[:200], budget={"bytes": 0.5, "macs": 0.7},
        lesson=Lesson(epochs=1, learning_rate=3e-3), by=by, rounds=3, population=6, discard="synflow",
    )  # fmt: skip
    assert all(torch.equal(t, whole[n]) for n, t in trained().state_dict().items())
    assert tensor_bytes(found.best) <= 0.5 * tensor_bytes(trained())
    finding = found.finding
    assert len(finding.tried) >= 8 and all(t.bytes <= 0.5 * finding.full.bytes for t in finding.tried)
    assert all(t.macs <= 0.7 * finding.full.macs for t in finding.tried)
    best = finding.tried[finding.best]
    assert best.accuracy == max(t.accuracy for t in finding.tried) > 0.3
    assert accuracy(found.best, pixels[:200], labels[:200]) == pytest.approx(best.accuracy, abs=0.1)
    other = search_network(
        trained(), pixels[200:], labels[200:], pixels[:200], labels[:200], budget={"bytes": 0.3}, by=by, rounds=1,
        population=4, elastic=found.elastic,
    )  # fmt: skip
    assert other.losses == [] and tensor_bytes(other.best) <= 0.3 * tensor_bytes(trained())
    assert (finding.discarded > 0) == (by == "evolution")
    again = Finding.from_json(finding.to_json())
    assert isinstance(again, Searched) and again.front() == finding.front()
    assert "Pareto" in to_text(finding) and finding.figure().series[1].name == "Pareto front"


def test_the_front_is_what_nothing_beats():
    def one(accuracy, size):
        return Tried(accuracy=accuracy, bytes=size, macs=1, widths=[], blocks=[], kernels=[])

    finding = Searched(tried=[one(0.8, 10), one(0.9, 30), one(0.7, 20), one(0.9, 40), one(0.85, 10)])
    assert [(t.accuracy, t.bytes) for t in finding.front()] == [(0.85, 10), (0.9, 30)]


def test_children_are_of_their_parents():
    elastic, chance = Elastic(net(), noise(), multiple=2), random.Random(1)
    one, other = elastic.largest, elastic.smallest
    child = crossed(one, other, chance)
    for mine, a, b in zip(child.widths, one.widths, other.widths, strict=True):
        assert mine in (a, b)
    assert mutated(one, elastic, chance, rate=0.0) == one
    assert mutated(one, elastic, chance, rate=1.0) != one


def test_time_is_measured_against_the_full_network():
    small, full = net(4), net(64)
    assert 0 < latency(small, full, noise(1)) < 5


def test_guesses_are_the_papers_formulas():
    network, pixels = net(4), noise(5)
    plain = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.Flatten(), nn.Linear(8, 3, bias=False))
    w, v = plain[0].weight.detach().abs().double().flatten(), plain[2].weight.detach().abs().double()
    # R = sum_k sum_(c, place) v w_c; each layer's flow is R itself
    total = sum(float(v[:, 4 * c : 4 * c + 4].sum() * w[c]) for c in range(2))
    value = synflow(plain, torch.zeros(2, 1, 2, 2))
    assert value == pytest.approx(math.log(2 * total), rel=1e-9)
    codes = []
    for name in ("stem_norm", "one.first_norm"):
        assert dict(network.named_modules())[name]
    from intarsia.compression.convolution.recovering import outputs_of

    names = [n for n, m in network.named_modules() if isinstance(m, nn.BatchNorm2d)]
    with torch.no_grad():
        seen = outputs_of(network, names, pixels)
    codes = torch.cat([(t > 0).flatten(1) for t in seen.values()], 1)
    kernel = torch.tensor([[float((a == b).sum()) for a in codes] for b in codes], dtype=torch.float64)
    assert naswot(network, pixels) == pytest.approx(float(torch.linalg.slogdet(kernel)[1]), rel=1e-9)
    assert naswot(network, pixels[:1].repeat(3, 1, 1, 1)) == -float("inf")
    fails(lambda: naswot(nn.Sequential(nn.Conv2d(1, 2, 1)), pixels), "has none")


def test_what_cannot_be_searched_is_said_first():
    network, pixels, labels = net(), noise(20), torch.arange(20) % 10
    given = (network, pixels, labels, pixels, labels)
    fails(lambda: search_network(*given, budget={}), "given none")
    fails(lambda: search_network(*given, budget={"size": 0.5}), "given size")
    fails(lambda: search_network(*given, budget={"bytes": 1.5}), "at most 1")
    fails(lambda: search_network(*given, budget={"bytes": 0.001}), "the smallest network takes")
    fails(lambda: search_network(*given, budget={"bytes": 0.5}, by="chance"), "evolution or optuna")
    fails(lambda: search_network(*given, budget={"bytes": 0.5}, discard="magic"), "none, synflow or naswot")
    with torch.no_grad():
        assert answers(network, pixels).shape == (20, 10)


def test_the_technique_leaves_a_network_that_loads(tmp_path):
    import transformers as tf
    from PIL import Image

    records = []
    for i in range(20):
        path = tmp_path / f"{i}.png"
        Image.effect_noise((16, 16), 12 * i + 9).convert("RGB").save(path)
        records.append(ImageText(str(path), label=f"LABEL_{i % 10}"))
    processor = tf.ViTImageProcessor(size={"height": 16, "width": 16}, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    model = ia.wrap(resnet(), processor=processor)
    small = search_filters(
        model, train=records, test=records, times=4, rounds=1, population=4, epochs=1, shared_epochs=0.5
    )
    assert small.finding is not None and "times less memory" in small.finding.summary
    facts = small.extras["compression.search_filters"]
    assert facts["after"]["bytes"] * 4 <= facts["before"]["bytes"]
    small.save(tmp_path / "model")
    again = ia.load(tmp_path / "model")
    assert torch.equal(all_answers(again.network, noise(3, 16)), all_answers(small.network, noise(3, 16)))
    fails(lambda: search_filters(model, train=records, times=None), "give a budget")
    fails(lambda: search_filters(model, train=[ImageText(r.image) for r in records]), "have no label")
