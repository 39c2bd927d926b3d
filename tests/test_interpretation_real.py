"""Lens and diff on a small real model: the numbers must move the right way."""

from __future__ import annotations

import copy

import pytest
import torch

import intarsia as ia
from intarsia.interpretation import diff, lens

TEXTS = [
    "The Eiffel Tower is in Paris, the capital of France, and was built in 1889.",
    "Return a list of the names of the files in the directory given by path.",
]


@pytest.mark.real
def test_lens_and_diff_of_a_real_model() -> None:
    try:
        before = ia.load("smollm2-135m")
    except ia.IntarsiaError as error:
        pytest.skip(f"smollm2-135m is not available: {error}")
    seen = lens(before, texts=TEXTS, max_tokens=16, stride=7)
    agreement = [row.agreement for row in seen.layers]
    assert agreement[-1] == 1 and agreement[0] < 0.5
    assert seen.layers[0].kl > seen.layers[-2].kl > seen.layers[-1].kl == 0

    after = before.with_network(copy.deepcopy(before.network))
    weight = after.network.model.layers[20].mlp.down_proj.weight
    with torch.no_grad():
        weight += 0.5 * weight.std() * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
    found = diff(after, against=before, texts=TEXTS, max_tokens=16, lens_sample=8)
    assert found.parted_at == 20
    assert [(w.layer, w.role) for w in found.changed_weights] == [(20, "mlp.down_proj")]
    assert found.output is not None and 0 < found.output.kl[0] < 3
    assert "nothing differs before layer 20" in found.summary
