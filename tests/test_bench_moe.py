"""The benchmark of mixtures of experts: its chains are those the anchors were measured on, and so are its networks."""

from __future__ import annotations

import numpy as np
import pytest

from bench.moe.traces import drawn, flow_of, given, hidden
from intarsia.data import shared_data
from intarsia.moe import Trace, affinity, place
from intarsia.moe.placement import Problem, contiguous, crossing, solve
from intarsia.moe.routing.recording import record

needs_data = pytest.mark.skipif(shared_data("moe") is None, reason="the data set 'moe' is not there")


@pytest.mark.parametrize(("layers", "optimum"), [(32, 0.4306), (12, 0.4216)])
def test_the_optimum_of_mixtral_shaped_chains(layers, optimum):
    ids, _ = drawn(layers, 8, 5000)
    found = solve(Problem(flow_of(ids, 8), 4))
    assert found.proof == "optimal" and found.value == pytest.approx(optimum, abs=5e-5)


def test_a_chain_without_sharpness_has_no_affinity():
    ids, test = drawn(4, 8, 5000, sharp=0.0)
    assert np.bincount(ids.ravel(), minlength=8).std() < 150
    assert affinity(Trace.of(test, 8), lags=1).traces[0].mean("bits") < 0.01


def test_a_hidden_placement_has_the_shares_it_was_made_with_and_is_found():
    shares = {8: 0.6, 4: 0.5, 2: 0.2}
    ids, test, placed = hidden(5, 16, 8000, shares)
    for devices, share in shares.items():
        assert crossing(flow_of(test, 16), placed[devices]) == pytest.approx(share, abs=0.01)
    found = solve(Problem(flow_of(ids, 16), 2))
    assert crossing(flow_of(test, 16), found.device_of) <= crossing(flow_of(test, 16), placed[2]) + 1e-3


@needs_data
@pytest.mark.real
@pytest.mark.parametrize(
    ("model", "devices", "at_most"),
    [("mixtral", 4, 0.380), ("mixtral", 8, 0.52), ("olmoe", 4, 0.375), ("olmoe", 8, 0.51)],
)
def test_trained_networks_are_placed_as_well_as_is_known(model, devices, at_most):
    trace = given(shared_data("moe"), model, "late", "novels", "docs")
    found = place(trace, devices=devices, goal="crossing")
    assert found.of("plan").crossing <= at_most < 0.7 < found.of("contiguous").crossing
    if devices == 4:  # balance is nearly free on a healthy router
        crossing_, load = {"mixtral": (0.400, 1.06), "olmoe": (0.379, 1.07)}[model]
        even = place(trace, devices=4, goal="crossing", max_load=load)
        (taken,) = (b for b in even.balanced if b.taken)
        assert taken.crossing <= crossing_ and taken.load <= load


@needs_data
@pytest.mark.real
def test_two_experts_a_token_send_fewer_rows_when_they_stand_together():
    trace = given(shared_data("moe"), "mixtral", "late", "novels", "docs")
    assert place(trace, devices=4).of("plan").coherent <= 1.43


@needs_data
@pytest.mark.real
def test_a_trace_of_the_data_set_is_recorded_again():
    import intarsia as ia

    folder = shared_data("moe")
    kept = given(folder, "olmoe", "late", "novels")
    model = ia.load(folder / "olmoe-8x32e-top1" / "late")
    first = kept.of_sequences(kept.sequences[:2])
    ids = first.whole("token_id").reshape(2, 256)
    texts = [model.tokenizer.decode(row) for row in ids]
    if any(model.tokenizer(t)["input_ids"] != row.tolist() for t, row in zip(texts, ids, strict=True)):
        pytest.skip("these pieces of text are not cut into the same tokens again")
    again = record(model, texts)
    assert again.facts.router_sha256 == kept.facts.router_sha256
    assert (again.whole() == first.whole()).mean() > 0.9995


@needs_data
@pytest.mark.real
def test_a_collapsed_router_is_seen_by_its_load():
    early, late = (given(shared_data("moe"), "olmoe", c, "novels", "docs") for c in ("early", "late"))
    seen = [affinity(t, devices=4, lags=1, pictures=0).traces[0] for t in (early, late)]
    assert seen[0].mean("favourites") > seen[1].mean("favourites")  # it looks like more affinity
    assert seen[0].mean("bits") < seen[1].mean("bits") and seen[0].mean("load") > 5 * seen[1].mean("load")
    flow = flow_of(late.whole()[:, :, 0].astype(np.int64), 32)
    assert crossing(flow, contiguous(8, 32, 4)) > 0.7
