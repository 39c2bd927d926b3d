"""Compact layers: factors are what they say, begin as near as they can, learn, and shrink to what was asked."""

import pytest
import torch
from torch import nn

from intarsia.compression.convolution.compact import KINDS, Fire, Shuffle, compact, fits, groups_of
from intarsia.compression.convolution.decomposing import polyadic, single, spatial, tucker
from intarsia.compression.convolution.networks import accuracy, all_answers, convolutions
from intarsia.compression.convolution.substituting import factorize_network, shape_bytes
from intarsia.measure.size import tensor_bytes
from tests.convolution_help import digits, net, noise, trained
from tests.failing import fails

LAYERS = {
    "square": dict(kernel_size=3, padding=1),
    "strided": dict(kernel_size=3, stride=2, padding=1, bias=False),
    "oblong": dict(kernel_size=(3, 5), stride=(1, 2), padding=(1, 2)),
    "dilated": dict(kernel_size=3, padding=2, dilation=2),
}


def layer(name="square", inner=6, out=8):
    torch.manual_seed(0)
    return nn.Conv2d(inner, out, **LAYERS[name])


def pictures(channels=6, size=9):
    return torch.randn(3, channels, size, size, generator=torch.Generator().manual_seed(1))


def test_full_ranks_are_the_filters_themselves():
    weight = layer().weight.detach().double()
    u, core, v = tucker(weight, 8, 6)
    assert torch.allclose(torch.einsum("rshw,or,is->oihw", core, u, v), weight, atol=1e-12)
    first, second = spatial(weight, 18)
    assert torch.allclose(torch.einsum("rih,orw->oihw", first, second), weight, atol=1e-12)


def test_truncated_ranks_are_the_best_there_are():
    weight = layer().weight.detach().double()
    first, second = spatial(weight, 5)
    gap = (torch.einsum("rih,orw->oihw", first, second) - weight).norm()
    values = torch.linalg.svdvals(weight.permute(1, 2, 0, 3).reshape(18, 24))
    assert float(gap) == pytest.approx(float(values[5:].norm()), rel=1e-9)
    u, core, _ = tucker(weight, 4, 6)  # one mode alone is an SVD
    values = torch.linalg.svdvals(weight.flatten(1))
    assert float(core.norm()) == pytest.approx(float(values[:4].norm()), rel=1e-9)
    assert torch.allclose(u.T @ u, torch.eye(4, dtype=torch.float64), atol=1e-12)
    planes, mixing = single(weight)
    for i in range(6):
        values = torch.linalg.svdvals(weight[:, i].flatten(1))
        gap = (mixing[:, i, None, None] * planes[i] - weight[:, i]).norm()
        assert float(gap) == pytest.approx(float(values[1:].norm()), rel=1e-9)


def test_alternating_least_squares_find_the_terms_a_tensor_is_made_of():
    generator = torch.Generator().manual_seed(0)
    parts = [torch.randn(size, 3, generator=generator, dtype=torch.float64) for size in (8, 6, 3, 3)]
    weight = torch.einsum("or,ir,hr,wr->oihw", *parts)
    factors = polyadic(weight, 3, steps=300)
    assert (torch.einsum("or,ir,hr,wr->oihw", *factors) - weight).norm() < 1e-4 * weight.norm()
    some = layer().weight.detach().double()
    gaps = [(torch.einsum("or,ir,hr,wr->oihw", *polyadic(some, r)) - some).norm() for r in (2, 6, 14)]
    assert gaps[0] > gaps[1] > gaps[2]


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("kind", ["tucker", "spatial"])
def test_layers_of_full_rank_give_what_the_old_one_gave(kind, name):
    old = layer(name)
    new = compact(old, kind, 1.0)
    assert torch.allclose(new(pictures()), old(pictures()), atol=1e-5)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_gives_the_shape_and_has_the_size_it_was_chosen_for(kind, name):
    old = layer(name)
    new = compact(old, kind, 0.5)
    assert new(pictures()).shape == old(pictures()).shape
    bias = 0 if old.bias is None else old.bias.nbytes
    assert sum(t.nbytes for t in new.state_dict().values()) - bias == shape_bytes(old, kind, 0.5)


def test_a_separable_layer_of_rank_one_filters_is_exact():
    old = layer()
    planes, mixing = single(old.weight)
    with torch.no_grad():
        old.weight.copy_(mixing[:, :, None, None] * planes)
    assert torch.allclose(compact(old, "separable", 1.0)(pictures()), old(pictures()), atol=1e-5)


def test_a_grouped_layer_begins_as_the_part_of_the_old_one_that_is_in_it():
    old = layer()
    new = compact(old, "grouped", 0.5)
    assert groups_of(old, 0.5) == 2
    masked = nn.Conv2d(6, 8, 3, padding=1)
    masked.load_state_dict(old.state_dict())
    with torch.no_grad():
        # After the shuffle, channel j of 6 in 2 groups is 3 (j mod 2) + j // 2.
        order = [0, 3, 1, 4, 2, 5]
        masked.weight[:4, order[3:]] = 0
        masked.weight[4:, order[:3]] = 0
    assert torch.allclose(new(pictures()), masked(pictures()), atol=1e-5)
    x = torch.arange(6.0).view(1, 6, 1, 1)
    assert Shuffle(2)(x).flatten().tolist() == order


def test_a_fire_layer_reads_the_same_places():
    new = compact(layer(), "fire", 1.0)
    assert isinstance(new, Fire)
    x = torch.zeros(1, 6, 9, 9)
    zero = new(x)
    x[0, :, 4, 4] = 5.0
    seen = (new(x) - zero).abs().amax(1)[0] > 1e-6
    where = seen.nonzero()
    assert where.amin(0).tolist() == [3, 3] and where.amax(0).tolist() == [5, 5]


@pytest.mark.parametrize("kind", KINDS)
def test_layers_learn_to_give_what_the_old_ones_gave(kind):
    pixels = digits()[0][:256]
    network = trained()
    before = {n: t.clone() for n, t in network.state_dict().items()}
    small, errors = factorize_network(network, pixels, kind, 0.4, steps=40)
    assert all(torch.equal(t, before[n]) for n, t in network.state_dict().items())
    assert errors and all(after < first for first, after in errors.values())
    assert tensor_bytes(small) < tensor_bytes(network)
    assert not any(m._forward_hooks for m in network.modules())
    assert small.stem.weight.shape == network.stem.weight.shape  # of one channel: left as it is


def test_a_factored_network_is_as_small_as_was_asked():
    network, pixels = net(16), noise(40)
    for kind in ("tucker", "polyadic", "spatial"):
        small, _ = factorize_network(network, pixels, kind, times=4, steps=0)
        assert tensor_bytes(small) <= tensor_bytes(network) / 4
    exact, _ = factorize_network(network, pixels, "tucker", share=0.7, steps=0, renormalise=False)
    assert exact.one.first_norm.running_mean is not network.one.first_norm.running_mean
    fails(lambda: factorize_network(network, pixels, "tucker", times=900), "cannot be reached", "at most")
    fails(lambda: factorize_network(network, pixels, "separable", times=90), "cannot be reached")
    fails(lambda: factorize_network(network, pixels, "tuker"), "did you mean tucker")
    fails(lambda: factorize_network(network, pixels, "tucker", 1.0), "no layer is smaller")
    fails(lambda: factorize_network(network, pixels, "tucker", skip=("*",)), "no filters that")
    assert not fits(nn.Conv2d(4, 4, 1), "tucker") and not fits(nn.Conv2d(4, 4, 3, groups=2), "tucker")
    assert not fits(nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"), "tucker")


def test_factors_keep_more_of_digits_than_chance_and_the_dense_answers_at_full_rank():
    pixels, _, test, labels = digits()
    small, _ = factorize_network(trained(), pixels, "polyadic", times=1.5)
    assert accuracy(small, test, labels) > 0.7
    whole = net()
    made = {n: compact(c, "tucker", 1.0) for n, c in convolutions(whole).items() if fits(c, "tucker")}
    same = net()
    for name, new in made.items():
        same.set_submodule(name, new)
    assert len(made) == 6
    assert torch.allclose(all_answers(same, noise()), all_answers(whole, noise()), atol=1e-4)
