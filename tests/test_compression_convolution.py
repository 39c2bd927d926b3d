"""Convolutional networks: statistics taken anew, codes, and filters that go with all that knows of them."""

import copy

import pytest
import torch
from torch import nn

from intarsia.compression.convolution.channels import channels_of
from intarsia.compression.convolution.coded import CodedConv2d
from intarsia.compression.convolution.formats import FORMATS, bits_of, decode, encode, rounded
from intarsia.compression.convolution.narrowing import bytes_without, cut, least, prune_network, unit_scores
from intarsia.compression.convolution.networks import accuracy, all_answers, answers, convolutions
from intarsia.compression.convolution.normalising import reestimate
from intarsia.compression.convolution.quantizing import practise, quantize_network, second_terms, settle
from intarsia.compression.convolution.recovering import Lesson, jittered, outputs_of, recover
from intarsia.compression.convolution.zeroing import bytes_at_rest, zero_network
from intarsia.measure.size import tensor_bytes
from tests.convolution_help import Mixed, digits, lively, net, noise, resnet, trained
from tests.failing import fails


def test_statistics_taken_anew_are_the_naive_ones():
    network, pixels = net(), noise(40)
    assert reestimate(network, pixels, batch=20) == 8
    with torch.no_grad():
        given = network.stem(pixels).double()
    means, variances = zip(
        *((p.transpose(0, 1).flatten(1).mean(1), p.transpose(0, 1).flatten(1).var(1)) for p in given.split(20)),
        strict=True,
    )
    assert torch.allclose(network.stem_norm.running_mean.double(), sum(means) / 2, atol=1e-6)
    assert torch.allclose(network.stem_norm.running_var.double(), sum(variances) / 2, atol=1e-6)
    # And further up, on what the batch's own statistics make of it.
    whole = copy.deepcopy(network)
    reestimate(whole, pixels, batch=64)
    seen = {}
    double = copy.deepcopy(network).double().train()
    with torch.no_grad():
        seen = outputs_of(double, ["one.first"], pixels.double())
    wanted = seen["one.first"].transpose(0, 1).flatten(1)
    assert torch.allclose(whole.one.first_norm.running_mean.double(), wanted.mean(1), atol=1e-5)
    assert torch.allclose(whole.one.first_norm.running_var.double(), wanted.var(1), atol=1e-5)


def test_taking_statistics_anew_changes_nothing_else():
    network, pixels = net(), noise(40)
    network.drop = nn.Dropout(0.5)
    network.one.train()
    before = {n: p.clone() for n, p in network.named_parameters()}
    modes = [m.training for m in network.modules()]
    reestimate(network, pixels)
    assert all(torch.equal(p, before[n]) for n, p in network.named_parameters())
    assert [m.training for m in network.modules()] == modes
    assert network.stem_norm.momentum == 0.1
    assert reestimate(nn.Sequential(nn.Conv2d(1, 2, 3)), pixels) == 0


@pytest.mark.parametrize("format", FORMATS)
def test_codes_round_trip_and_are_as_small_as_said(format):
    weight = torch.randn(10, 37, generator=torch.Generator().manual_seed(0))
    weight[3] = 0
    second = torch.arange(10) % 3 == 0 if format == "power" else None
    conv = nn.Conv2d(37, 10, 1)
    conv.weight.data = weight.view(10, 37, 1, 1).clone()
    coded = CodedConv2d(conv, format, 4 if second is not None else 0)
    coded.fill(conv.weight, second)
    near = rounded(weight, format, second)
    assert torch.equal(coded.weight.flatten(1), near)
    assert int(encode(weight, format)[0].max()) < 2 ** bits_of(format)
    again = CodedConv2d(nn.Conv2d(37, 10, 1), format, 4 if second is not None else 0)
    again.load_state_dict(coded.state_dict())
    assert torch.equal(again.weight, coded.weight)
    assert coded.codes.nbytes <= 10 * (37 * bits_of(format) / 8 + bits_of(format))
    if format != "binary":
        assert torch.equal(near[3], torch.zeros(37))
    x = noise(2).repeat(1, 37, 1, 1)
    conv.weight.data = near.view_as(conv.weight)
    assert torch.allclose(coded(x), conv(x), atol=1e-5)


def test_ternary_and_binary_are_the_papers_formulas():
    row = torch.tensor([[1.0, -2.0, 0.1, 3.0, -0.2, 0.0]])
    # mean|w| 1.05: the threshold is 0.735, the scale the mean of 1, 2 and 3
    assert torch.equal(rounded(row, "ternary"), torch.tensor([[2.0, -2.0, 0, 2.0, 0, 0]]))
    assert torch.allclose(rounded(row, "binary"), 1.05 * torch.tensor([[1.0, -1, 1, 1, -1, 1]]))


def test_powers_are_powers_and_a_second_term_comes_nearer():
    weight = torch.randn(20, 50, generator=torch.Generator().manual_seed(1))
    one, two = rounded(weight, "power"), rounded(weight, "power", torch.ones(20, dtype=torch.bool))
    exponents = one[one != 0].abs().log2()
    assert torch.equal(exponents, exponents.round())
    assert int(exponents.max() - exponents.min()) <= 8
    assert (two - weight).norm() < 0.4 * (one - weight).norm()
    codes, scales, _ = encode(weight, "power")
    assert torch.equal(decode(codes, scales, "power"), one)
    layers = {"a": nn.Conv2d(4, 10, 3), "b": nn.Conv2d(4, 30, 3)}
    chosen = second_terms(layers, 1.25)
    assert sum(int(c.sum()) for c in chosen.values()) == 10
    gaps = {
        n: (rounded(m.weight.detach().flatten(1), "power") - m.weight.detach().flatten(1)).norm(dim=1)
        / m.weight.detach().flatten(1).norm(dim=1)
        for n, m in layers.items()
    }
    assert min(gaps[n][chosen[n]].min() for n in gaps if chosen[n].any()) >= max(
        gaps[n][~chosen[n]].max() for n in gaps
    )


def test_edges_keep_eight_bits_and_skipped_layers_stay():
    network = net()
    quantize_network(network, "ternary", skip=("two.*",))
    formats = {n: m.format for n, m in network.named_modules() if isinstance(m, CodedConv2d)}
    assert formats["stem"] == "int8" and formats["one.first"] == "ternary" and "two.first" not in formats
    fails(lambda: quantize_network(network, "int8"), "quantize last")
    settle(network)
    assert len(convolutions(network)) == 8
    assert type(network.head) is nn.Linear
    fails(lambda: quantize_network(net(), "tenary"), "did you mean ternary")
    fails(lambda: quantize_network(net(), "int4", terms=1.5), "terms belong to")
    fails(lambda: quantize_network(net(), "int4", skip=("*",)), "nothing to quantize")


def test_a_network_that_practises_is_what_its_codes_give():
    network, pixels = net(), noise(8)
    practise(network, "ternary", edges="keep")
    learnt = all_answers(network, pixels)
    settle(network)
    quantize_network(network, "ternary", edges="keep")
    assert torch.allclose(all_answers(network, pixels), learnt, atol=1e-4)


@pytest.mark.parametrize("make", [net, lambda: resnet("basic"), lambda: resnet("bottleneck")])
@pytest.mark.parametrize("score", ["l2", "gamma"])
def test_a_narrower_network_is_the_masked_one(make, score):
    """Naive: filters and norms of the channels that went give zero. (Scales and shifts of norms, too: ReLU keeps 0.)"""
    network, pixels = make(), noise(5, 16)
    channels = channels_of(network, pixels, "test")
    gone = least(channels, unit_scores(network, channels, score), 0.5)
    small = cut(network, channels, gone)
    masked = copy.deepcopy(network)
    state = masked.state_dict()
    for use in channels.uses:
        head = use.name.startswith("head") or "classifier" in use.name
        if use.name.endswith(("weight", "bias")) and use.dim == 0 and not head:
            state[use.name][torch.tensor([int(u) in gone for u in use.units])] = 0
    assert torch.allclose(all_answers(small, pixels), all_answers(masked, pixels), atol=1e-5)
    assert not torch.allclose(all_answers(small, pixels), all_answers(network, pixels), atol=1e-2)
    assert tensor_bytes(small) == bytes_without(network, channels, gone) < 0.4 * tensor_bytes(network)
    for name, conv in convolutions(small).items():
        assert tuple(conv.weight.shape[:2]) == (conv.out_channels, conv.in_channels), name


def test_channels_that_are_added_go_together():
    network = net(4)
    channels = channels_of(network, noise(), "test")
    makers = sorted(sorted(g.makers) for g in channels.groups)
    assert ["one.first.weight"] in makers and ["stem.weight", "one.second.weight"] not in makers
    assert ["one.second.weight", "stem.weight"] in makers
    assert ["three.second.weight", "two.second.weight", "two.short.weight"] in makers


def test_depthwise_and_concatenated_channels_and_flattened_heads():
    torch.manual_seed(0)
    network, pixels = Mixed().eval(), noise()
    channels = channels_of(network, pixels, "test")
    assert [g.makers for g in channels.groups] == [["a.weight"], ["b.weight"], ["line.weight"]]
    gone = least(channels, unit_scores(network, channels), 0.5, multiple=2)
    small = cut(network, channels, gone)
    assert small.deep.groups == 4 and small.c.in_channels == 8 and small.grouped.groups == 3
    masked = copy.deepcopy(network)
    state = masked.state_dict()
    for use in channels.uses:
        if use.dim == 1:  # readers are blind to what went
            state[use.name][:, torch.tensor([int(u) in gone for u in use.units])] = 0
    assert torch.allclose(all_answers(small, pixels), all_answers(masked, pixels), atol=1e-5)


def test_what_an_unknown_operator_reads_stays():
    class Softened(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3)
            self.head = nn.Linear(8, 10)

        def forward(self, x):
            return self.head(self.b(self.a(x).softmax(1)).relu().mean((2, 3)))

    channels = channels_of(Softened().eval(), noise(), "test")
    assert [g.makers for g in channels.groups] == [["b.weight"]]

    class Only(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Conv2d(1, 10, 3)

        def forward(self, x):
            return self.a(x).mean((2, 3))

    fails(lambda: prune_network(Only(), noise()), "no filter of Only can go")


def test_pruning_reaches_what_was_asked_or_says_what_it_can():
    network, pixels = net(16), noise(40)
    for scope in ("group", "global"):
        small = prune_network(network, pixels, times=4, scope=scope)
        assert tensor_bytes(small) <= tensor_bytes(network) / 4
    fails(lambda: prune_network(network, pixels, times=500), "cannot be reached: ")
    fails(lambda: prune_network(network, torch.zeros(4, 3, 8, 8)), "does not run on pixels")
    fails(lambda: prune_network(network, torch.zeros(4, 8, 8)), "pixels are floats")
    fails(lambda: prune_network(network, pixels, share=1.0), "share is 0 or more")
    fails(lambda: prune_network(network, pixels * float("nan")), "not finite")


def test_zeros_are_where_the_smallest_weights_were():
    network = net()
    for scope in ("layer", "global"):
        sparse = zero_network(network, 0.75, scope=scope)
        weights = [(a.weight, b.weight) for a, b in zip(
            convolutions(network).values(), convolutions(sparse).values(), strict=True)]  # fmt: skip
        zero, every = sum(int((b == 0).sum()) for _, b in weights), sum(b.numel() for _, b in weights)
        assert zero == pytest.approx(0.75 * every, abs=len(weights))
        kept = torch.cat([a[b != 0].detach().abs() for a, b in weights])
        lost = torch.cat([a[b == 0].detach().abs() for a, b in weights])
        assert scope == "layer" or float(kept.min()) >= float(lost.max())
    assert bytes_at_rest(network) == tensor_bytes(network)
    filters = sum(m.weight.nbytes for m in convolutions(network).values())
    assert bytes_at_rest(sparse) == pytest.approx(tensor_bytes(network) - filters * (0.75 - 1 / 32), abs=64)


def test_new_statistics_bring_rounded_digits_back():
    _, _, test, labels = digits()
    pixels = digits()[0]
    dense = accuracy(trained(), test, labels)
    network = copy.deepcopy(trained())
    quantize_network(network, "ternary")
    before = accuracy(network, test, labels)
    reestimate(network, pixels)
    after = accuracy(network, test, labels)
    assert dense > 0.85 and after > before + 0.1 and after > dense - 0.15
    eight = copy.deepcopy(trained())
    quantize_network(eight, "int8", pixels=pixels)
    assert accuracy(eight, test, labels) > dense - 0.02
    assert tensor_bytes(eight) < 0.4 * tensor_bytes(trained())


def test_what_pruning_cost_is_learnt_back_from_the_teacher():
    pixels, right, test, labels = digits()
    small = prune_network(trained(), pixels, share=0.5)
    before = accuracy(small, test, labels)
    losses = recover(small, pixels, right, trained(), Lesson(epochs=2))
    assert accuracy(small, test, labels) > before + 0.05
    assert sum(losses[-5:]) < sum(losses[:5])


def test_learning_keeps_zeros_hints_and_the_seed():
    pixels, right, _, _ = digits()
    pixels, right = pixels[:128], right[:128]
    sparse = zero_network(trained(), 0.8, pixels=pixels)
    zero = {n: m.weight == 0 for n, m in convolutions(sparse).items()}
    twin = copy.deepcopy(sparse)
    lesson = Lesson(epochs=1, hints=("one",), shift=1, flip=True)
    recover(sparse, pixels, None, trained(), lesson, keep_zeros=True)
    recover(twin, pixels, None, trained(), lesson, keep_zeros=True)
    for (name, one), other in zip(convolutions(sparse).items(), convolutions(twin).values(), strict=True):
        assert torch.equal(one.weight, other.weight)
        assert bool((one.weight[zero[name]] == 0).all())
    assert not any(m._forward_hooks for m in [*sparse.modules(), *trained().modules()])
    fails(lambda: recover(sparse, pixels), "give a teacher, or labels")
    fails(lambda: recover(sparse, pixels, None, trained(), Lesson(hints=("four",))), "no module 'four'")
    fails(lambda: recover(net(4), pixels, None, trained(), Lesson(hints=("one",))), "equal shapes")
    fails(lambda: recover(sparse, pixels, right[:3]), "as many whole-number labels")
    fails(lambda: recover(sparse, pixels, right + 1), "labels are 0 to 9")


def test_pictures_are_moved_and_mirrored_and_stay_pictures():
    pixels = torch.arange(64.0).view(1, 1, 8, 8).repeat(50, 1, 1, 1)
    moved = jittered(pixels, 2, True, torch.Generator().manual_seed(0))
    assert moved.shape == pixels.shape
    rows = {tuple(p[0, 4].tolist()) for p in moved}
    assert len(rows) > 10 and set(moved.unique().tolist()) <= set(range(64))


def test_a_transformers_network_answers_like_a_plain_one():
    network = resnet()
    with torch.no_grad():
        assert torch.equal(answers(network, noise(2)), network(noise(2)).logits)
    fails(lambda: answers(network.resnet, noise(2)), "gives no logits")
    assert lively(network) is network
