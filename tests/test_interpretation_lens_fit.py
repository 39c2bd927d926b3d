"""Fitted lens maps: the regression and the training against formulas, and their life on disk."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor

from intarsia.errors import BadInput, IntarsiaError
from intarsia.interpretation import LensMaps, fit_lens
from intarsia.interpretation.lenses import tuning
from intarsia.interpretation.lenses.fit import FitLensConfig
from intarsia.models import Model
from intarsia.sites import read, unembed
from tests.tiny import tiny

PHRASE = "the river runs through an old town and he put a letter back on her table while it rained"
WORDS = PHRASE.split()
TEXTS = [" ".join(WORDS[(i * 7 + j * (i % 5 + 1)) % len(WORDS)] for j in range(9)) for i in range(24)]


def pairs(model: Model, texts: list[str], ahead: int = 0) -> tuple[list[Tensor], Tensor]:
    """States of every layer and the final states, one text at a time, without the first position."""
    layers: list[list[Tensor]] = [[] for _ in model.sites.blocks]
    finals = []
    for text in texts:
        acts = read(model, [text], "layers.*.resid_post")
        stream = [acts[f"layers.{i}.resid_post"][0] for i in range(len(layers))]
        end = len(stream[0]) - ahead
        for rows, h in zip(layers, stream, strict=True):
            rows.append(h[1:end])
        finals.append(stream[-1][1 + ahead :])
    return [torch.cat(rows).double() for rows in layers], torch.cat(finals).double()


def split(model: Model, **settings) -> tuple[list[str], list[str]]:
    """The texts that are fitted on and those held out, by their fit's own seed."""
    import random

    texts = random.Random(0).sample(TEXTS, len(TEXTS))
    return texts[2:], texts[:2]


@pytest.mark.parametrize("family", ["llama", "gpt2", "bert"])
@pytest.mark.parametrize("ahead", [0, 2])
def test_the_affine_maps_are_the_ridge_solution(family: str, ahead: int) -> None:
    model = tiny(family)
    settings = {"method": "future", "ahead": ahead} if ahead else {}
    maps = fit_lens(model, train=TEXTS, penalty=0.02, max_tokens=40, batch_size=5, **settings)
    fitted, _ = split(model)
    states, final = pairs(model, [t[:40] for t in fitted], ahead)
    for layer, x in enumerate(states):
        if layer == len(states) - 1 and not ahead:
            assert maps.matrix[layer].equal(torch.eye(32)) and not maps.bias[layer].any()
            continue
        center, target = x - x.mean(0), final - final.mean(0)
        gram = center.T @ center
        matrix = torch.linalg.solve(gram + 0.02 * gram.diagonal().mean() * torch.eye(32), center.T @ target)
        torch.testing.assert_close(maps.matrix[layer].double(), matrix, rtol=1e-3, atol=1e-4)
        bias = final.mean(0) - x.mean(0) @ matrix
        torch.testing.assert_close(maps.bias[layer].double(), bias, rtol=1e-3, atol=1e-3)
    assert maps.finding.positions == len(final)


def mean_kl(model: Model, maps: LensMaps | None, texts: list[str]) -> list[float]:
    """KL(final || lens) of each layer but the last, naively."""
    states, final = pairs(model, texts)
    p = unembed(model, final.float()).double().log_softmax(-1)
    values = []
    for layer, x in enumerate(states[:-1]):
        hidden = x.float() if maps is None else x.float() @ maps.matrix[layer] + maps.bias[layer]
        q = unembed(model, hidden).double().log_softmax(-1)
        values.append(float((p.exp() * (p - q)).sum(-1).mean()))
    return values


def test_the_finding_measures_held_out_texts() -> None:
    model = tiny("llama")
    maps = fit_lens(model, train=TEXTS, max_tokens=64)
    _, held_out = split(model)
    texts = [t[:64] for t in held_out]
    assert [row.kl for row in maps.finding.layers[:-1]] == pytest.approx(mean_kl(model, maps, texts), rel=1e-3)
    assert [row.kl_before for row in maps.finding.layers[:-1]] == pytest.approx(mean_kl(model, None, texts), rel=1e-3)
    assert maps.finding.layers[-1].kl == pytest.approx(0, abs=1e-6)
    assert "held-out" in maps.finding.summary and "nats" in str(maps)


@pytest.mark.parametrize(
    "settings",
    [
        {"optimiser": "adam", "start": "affine", "steps": 60, "learning_rate": 0.01},
        {"optimiser": "adam", "start": "identity", "steps": 150, "learning_rate": 0.03},
        {"optimiser": "sgd", "start": "affine", "steps": 60, "learning_rate": 0.03},
    ],
)
def test_training_brings_the_kl_below_the_affine_lens(settings: dict) -> None:
    model = tiny("llama")
    affine = fit_lens(model, train=TEXTS, max_tokens=64)
    before = {name: value.clone() for name, value in model.network.state_dict().items()}
    tuned = fit_lens(model, train=TEXTS, method="tuned", max_tokens=64, positions=48, **settings)
    fitted, _ = split(model)
    for low, high in zip(mean_kl(model, tuned, fitted), mean_kl(model, affine, fitted), strict=True):
        assert low < high
    assert len(tuned.finding.losses) == settings["steps"]
    assert all(torch.equal(before[name], value) for name, value in model.network.state_dict().items())
    assert all(p.grad is None for p in model.network.parameters())
    assert tuned.matrix[-1].equal(torch.eye(32))


@pytest.mark.parametrize("optimiser", ["adam", "sgd"])
def test_a_step_has_the_gradient_of_the_kl_and_folding_changes_nothing(optimiser: str) -> None:
    model = tiny("llama")
    model.network.double()
    config = FitLensConfig(method="tuned", optimiser=optimiser, start="affine")
    translators = tuning.Translators(tuning.beginning(model, TEXTS, config))
    generator = torch.Generator().manual_seed(1)
    for parameter in translators.parameters:
        parameter.normal_(0, 0.1, generator=generator)
    stream = [h[:9].float() for h in pairs(model, TEXTS[:2])[0]]
    matrix, bias = translators.folded()
    for layer in range(3):
        torch.testing.assert_close(translators(stream[layer], layer)[0], stream[layer] @ matrix[layer] + bias[layer],
                                   rtol=1e-4, atol=1e-4)  # fmt: skip

    def loss() -> float:
        p = unembed(model, stream[-1].double()).log_softmax(-1)
        q = unembed(model, translators(stream[1], 1)[0].double()).log_softmax(-1)
        return float((p.exp() * (p - q)).sum(-1).mean())

    tuning._step(model, translators, [h.double() for h in stream])
    for parameter, at in ((translators.delta[1], (3, 5)), (translators.shift[1], (7,))):
        gradient, step = float(parameter.grad[at]), 0.02  # type: ignore[index]
        parameter[at] += step
        up = loss()
        parameter[at] -= 2 * step
        slope = (up - loss()) / (2 * step)
        parameter[at] += step
        assert gradient == pytest.approx(slope, rel=2e-2, abs=1e-5)


def test_a_stopped_training_goes_on_where_it_was(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny("llama")
    settings = {"train": TEXTS, "method": "tuned", "steps": 8, "positions": 16, "weight_decay": 0.01}
    whole = fit_lens(model, **settings)
    monkeypatch.setattr(tuning, "KEEP_EVERY", 0.0)
    steps = 0
    step = tuning._step

    def stopping(*given):
        nonlocal steps
        steps += 1
        if steps == 6:
            raise KeyboardInterrupt
        return step(*given)

    monkeypatch.setattr(tuning, "_step", stopping)
    with pytest.raises(KeyboardInterrupt):
        fit_lens(model, checkpoint=tmp_path / "half", **settings)
    resumed = fit_lens(model, checkpoint=tmp_path / "half", **settings)
    assert steps == 6 + 3
    assert torch.equal(resumed.matrix, whole.matrix) and torch.equal(resumed.bias, whole.bias)
    assert resumed.finding.losses == whole.finding.losses
    with pytest.raises(BadInput, match="another training"):
        fit_lens(model, checkpoint=tmp_path / "half", **{**settings, "steps": 9})


def test_saved_maps_come_back_and_refuse_other_models(tmp_path) -> None:
    model = tiny("llama")
    maps = fit_lens(model, train=TEXTS)
    folder = maps.save(tmp_path / "maps")
    again = LensMaps.load(folder)
    assert again.matrix.equal(maps.matrix) and again.bias.equal(maps.bias)
    assert (again.method, again.ahead, again.model) == ("affine", 0, maps.model)
    assert again.finding == maps.finding and again.check(model) is again
    with pytest.raises(BadInput, match=r"fitted on tiny-llama .*fit_lens"):
        again.check(tiny("llama", seed=1))
    with pytest.raises(BadInput, match="tiny-gpt2"):
        again.check(tiny("gpt2"))
    assert again.check(tiny("llama", dtype=torch.bfloat16)) is again  # the same weights, rounded
    with pytest.raises(BadInput, match="not empty"):
        maps.save(folder)
    maps.save(folder, force=True)
    (tmp_path / "file").write_text("x")
    with pytest.raises(BadInput, match="a folder is wanted"):
        maps.save(tmp_path / "file")


def test_broken_maps_are_named(tmp_path) -> None:
    folder = fit_lens(tiny("llama"), train=TEXTS).save(tmp_path / "maps")
    note = json.loads((folder / "maps.json").read_text())
    (folder / "maps.json").write_text(json.dumps({**note, "format": 9}))
    with pytest.raises(BadInput, match="format 9"):
        LensMaps.load(folder)
    (folder / "maps.json").write_text(json.dumps(note))
    (folder / "maps.safetensors").write_bytes(b"nothing")
    with pytest.raises(BadInput, match="cannot be read"):
        LensMaps.load(folder)


def test_clear_errors_of_the_fit(tmp_path) -> None:
    model = tiny("llama")
    with pytest.raises(BadInput, match="at least two"):
        fit_lens(model, train=["one text only"])
    with pytest.raises(BadInput, match="no text"):
        fit_lens(model, train=[])
    with pytest.raises(BadInput, match="0 positions"):
        fit_lens(model, train=["a", "b", "c"])
    with pytest.raises(BadInput, match="no head"):
        fit_lens(tiny("bert-encoder"), train=TEXTS)
    with pytest.raises(BadInput, match="encoder-decoder"):
        fit_lens(tiny("t5"), train=TEXTS)
    with pytest.raises(BadInput, match="only method tuned"):
        fit_lens(model, train=TEXTS, checkpoint=tmp_path)
    with pytest.raises(BadInput, match="held_out"):
        fit_lens(model, train=TEXTS, held_out=1.0)
    with pytest.raises(IntarsiaError, match="lower learning_rate"):
        fit_lens(model, train=TEXTS, method="tuned", optimiser="sgd", learning_rate=1e30, steps=6)
