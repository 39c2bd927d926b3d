"""Every lens is the patch operator with a preset, and both are the formula written naively in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from intarsia.errors import BadInput
from intarsia.interpretation import compare_lenses, fit_lens, lens
from intarsia.interpretation.lenses import presets, readers
from intarsia.interpretation.lenses.maps import LensMaps
from intarsia.interpretation.lenses.presets import PRESETS, operate, sink_token, target_ids
from intarsia.models import Model
from intarsia.sites import Replace, run
from tests.tiny import tiny

FAMILIES = ["llama", "gpt2", "gemma3", "neox", "granite"]
TEXTS = [
    "Return the sum of the start value and an iterable of numbers.",
    "Stop when the file ends, or when the line is empty.",
    "The Eiffel Tower is in the city of Paris, in France.",
    "Water boils at one hundred degrees at the sea.",
    "She opened the window, and looked out into the rain.",
    "A good dictionary has many words in it, and few pictures.",
]


def double(model: Model) -> Model:
    model.network.double()
    return model


def some_states(model: Model, rows: int = 5) -> list[Tensor]:
    """States of real text, four layers of [rows, width]."""
    with torch.no_grad():
        hidden = model.network(**model.encode(TEXTS[:1]), output_hidden_states=True).hidden_states
    # The last one is given after the final norm: any other state does for a formula.
    return [h[0, 2 : 2 + rows] for h in [*hidden[1:-1], hidden[1]]]


def random_maps(model: Model, method: str, ahead: int = 0) -> LensMaps:
    generator = torch.Generator().manual_seed(4)
    matrix = torch.randn(4, 32, 32, generator=generator) * 0.2 + torch.eye(32)
    return LensMaps(method, matrix, torch.randn(4, 32, generator=generator), fingerprint(model), ahead)


def fingerprint(model: Model) -> dict:
    from intarsia.interpretation.fitted import facts_of

    return facts_of(model)


def head(model: Model, hidden: Tensor) -> Tensor:
    """Final norm and head, by hand for the architectures tested."""
    network = model.network
    body = getattr(network, "model", None) or getattr(network, "transformer", None) or network.gpt_neox
    norm = getattr(body, "norm", None) or getattr(body, "ln_f", None) or getattr(body, "final_layer_norm", None)
    logits = network.get_output_embeddings()(norm(hidden))
    scale = getattr(model.config, "logits_scaling", 1.0)
    return logits / scale


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", ["logit", "affine", "tuned", "future"])
def test_lenses_on_the_last_block_are_the_operator_and_the_formula(family: str, method: str) -> None:
    model = double(tiny(family))
    stream = some_states(model)
    maps = None if method == "logit" else random_maps(model, method, ahead=2 if method == "future" else 0)
    lens_ = readers.reader(model, method, maps)
    operated = operate(model, PRESETS[method], stream, range(4), maps)
    for layer, read in enumerate(lens_.over(stream, range(4))):
        h = stream[layer]
        if maps is not None:
            h = h @ maps.matrix[layer].double() + maps.bias[layer].double()
        with torch.no_grad():
            naive = head(model, h).log_softmax(-1)
        torch.testing.assert_close(read, naive, rtol=0, atol=1e-10)
        torch.testing.assert_close(operated[:, layer].log_softmax(-1), naive, rtol=0, atol=1e-10)
        torch.testing.assert_close(lens_(stream[layer], layer), read, rtol=0, atol=0)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", ["identity", "sink", "future prompt"])
def test_lenses_behind_a_prompt_are_one_patched_run_each(family: str, method: str) -> None:
    model = double(tiny(family))
    stream = some_states(model)
    preset = PRESETS[method]
    ids = target_ids(model, preset)
    operated = operate(model, preset, stream, range(4))
    for layer in range(4):
        for row in range(5):
            patch = Replace(f"layers.{layer}.resid_post", at=preset.position, value=stream[layer][row])
            naive = run(model, ids, edits=[patch]).logits[0, -1].log_softmax(-1)
            torch.testing.assert_close(operated[row, layer].log_softmax(-1), naive, rtol=0, atol=1e-9)
    if method == "future prompt":
        return
    lens_ = readers.reader(model, method)
    for layer, read in zip((1, 3), lens_.over([stream[1], stream[3]], [1, 3]), strict=True):
        torch.testing.assert_close(read, operated[:, layer].log_softmax(-1), rtol=0, atol=1e-9)
        torch.testing.assert_close(lens_(stream[layer], layer), read, rtol=0, atol=1e-9)


def test_the_ensemble_ranks_by_the_sum_of_log_probabilities_and_is_a_distribution() -> None:
    model = tiny("llama")
    stream, maps = some_states(model), random_maps(model, "affine")
    mixed = readers.reader(model, "ensemble", maps)
    parts = [readers.reader(model, "affine", maps), readers.reader(model, "sink")]
    for layer, read in enumerate(mixed.over(stream, range(4))):
        total = sum(part(stream[layer], layer).double() for part in parts)
        naive = (total / 2).log_softmax(-1)  # type: ignore[union-attr]
        torch.testing.assert_close(read.double(), naive, rtol=0, atol=1e-4)
        assert read.argsort(-1)[:, -3:].equal(total.argsort(-1)[:, -3:])  # type: ignore[union-attr]


def test_a_target_behind_the_sink_does_not_depend_on_its_placeholder(monkeypatch: pytest.MonkeyPatch) -> None:
    model = double(tiny("llama"))
    stream = some_states(model)
    first = operate(model, PRESETS["sink"], stream, range(4))
    monkeypatch.setattr(presets, "target_ids", lambda model, preset: torch.tensor([[sink_token(model), 77]]))
    assert torch.allclose(operate(model, PRESETS["sink"], stream, range(4)), first, rtol=0, atol=1e-12)
    monkeypatch.setattr(presets, "target_ids", lambda model, preset: torch.tensor([[77, sink_token(model)]]))
    assert not torch.allclose(operate(model, PRESETS["sink"], stream, range(4)), first, rtol=0, atol=1e-3)


@pytest.mark.parametrize("method", ["sink", "identity"])
def test_the_lens_reads_with_the_method_it_is_told(method: str) -> None:
    model = tiny("gpt2")
    found = lens(model, texts=TEXTS[:1], method=method, max_tokens=12, pictures=1, picture_tokens=12)
    assert found.method == method and found.layers[-1].agreement == 1
    assert found.layers[-1].kl == pytest.approx(0, abs=1e-5)
    with torch.no_grad():
        encoded = model.encode(TEXTS[:1], max_length=12)
        hidden = model.network(**encoded, output_hidden_states=True).hidden_states
        ids = target_ids(model, PRESETS[method])
        for layer in range(3):
            patch = Replace(f"layers.{layer}.resid_post", at=PRESETS[method].position, value=hidden[layer + 1][0, 7])
            p = run(model, ids, edits=[patch]).logits[0, -1].softmax(-1)
            assert found.pictures[0].probability[layer][7] == pytest.approx(float(p.max()), rel=1e-4)
            assert found.pictures[0].top[layer][7] == (model.tokenizer.decode([int(p.argmax())]) or f"[{p.argmax()}]")


def test_auto_is_the_sink_lens_for_decoders_and_the_logit_lens_for_encoders() -> None:
    assert lens(tiny("llama"), texts=TEXTS[:1], max_tokens=8).method == "sink"
    assert lens(tiny("bert"), texts=TEXTS[:1], max_tokens=8).method == "logit"


def test_the_future_lens_is_held_against_later_positions(tmp_path) -> None:
    model = tiny("llama")
    fit_lens(model, train=TEXTS, method="future", ahead=2, max_tokens=64).save(tmp_path / "future")
    found = lens(model, texts=TEXTS[:1], method="future", lens=tmp_path / "future", max_tokens=64)
    ids = model.encode(TEXTS[:1])["input_ids"]
    maps = LensMaps.load(tmp_path / "future")
    with torch.no_grad():
        out = model.network(ids, output_hidden_states=True)
        length = ids.shape[1]
        assert found.ahead == 2 and found.positions == length - 3
        read = head(model, maps(out.hidden_states[2][0, 1 : length - 2], 1))
        expected = (read.argmax(-1) == out.logits[0, 3:].argmax(-1)).double().mean()
        following = ids[0, 4:]
        right = (read[:-1].argmax(-1) == following).double().mean()
    assert found.layers[1].agreement == pytest.approx(float(expected))
    assert found.layers[1].next_agreement == pytest.approx(float(right))
    assert "2 positions later" in found.summary


def test_comparing_gives_each_lens_its_own_figures(tmp_path) -> None:
    model = tiny("llama")
    tuned = fit_lens(model, train=TEXTS[:4], method="tuned", steps=2, positions=8)
    tuned.save(tmp_path / "tuned")
    every = ("logit", "affine", "tuned", "identity", "sink", "ensemble")
    found = compare_lenses(
        model, train=TEXTS[:4], test=TEXTS[4:], methods=every, maps=(tmp_path / "tuned",), positions=1000, max_tokens=64
    )
    for method in ("logit", "identity", "sink"):  # all positions are read, so the plain lens must agree
        single = lens(model, texts=TEXTS[4:], method=method, max_tokens=64)
        assert found.positions == single.positions
        mine = found[method]
        for values, name in ((mine.agreement, "agreement"), (mine.surprisal, "surprisal"), (mine.kl, "kl")):
            assert values == pytest.approx([getattr(row, name) for row in single.layers], rel=1e-3, abs=1e-5)
        low, high = mine.mean_agreement[1:]
        assert low <= mine.mean_agreement[0] <= high
    assert found["logit"].gain is None and found["sink"].gain is not None
    gain = found["sink"].mean_agreement[0] - found["logit"].mean_agreement[0]
    assert found["sink"].gain[0] == pytest.approx(gain)
    assert found["affine"].mean_kl[0] != found["tuned"].mean_kl[0] != found["ensemble"].mean_kl[0]
    assert [s.name for s in found.figures()[0].series] == list(every)
    assert type(found).from_json(found.to_json()) == found


def test_comparing_leaves_tested_texts_out_of_the_fit() -> None:
    from intarsia.data import Text
    from intarsia.errors import Note

    model = tiny("llama")
    train = [Text(t, group=str(i // 2)) for i, t in enumerate(TEXTS)]
    with pytest.warns(Note, match="2 of 6 texts of train"):
        found = compare_lenses(model, train=train, test=[train[0]], methods=("affine",), positions=5)
    assert found.train_texts == 4
    with pytest.raises(BadInput, match="not in test"), pytest.warns(Note):
        compare_lenses(model, train=TEXTS[:2], test=TEXTS[:1], methods=("affine",))


def test_clear_errors_of_the_lenses(tmp_path) -> None:
    model = tiny("llama")
    with pytest.raises(BadInput, match="fit_lens"):
        lens(model, texts=TEXTS, method="affine")
    with pytest.raises(BadInput, match="no causal language model"):
        lens(tiny("bert"), texts=TEXTS, method="sink")
    with pytest.raises(BadInput, match="no lens maps there"):
        lens(model, texts=TEXTS, method="affine", lens=tmp_path / "none")
    fit_lens(model, train=TEXTS).save(tmp_path / "maps")
    with pytest.raises(BadInput, match="uses no fitted maps"):
        lens(model, texts=TEXTS, lens=tmp_path / "maps")
    with pytest.raises(BadInput, match="wants maps fitted as tuned, was given affine"):
        lens(model, texts=TEXTS, method="tuned", lens=tmp_path / "maps")
    with pytest.raises(BadInput, match="tuned needs fitted maps"):
        compare_lenses(model, test=TEXTS, methods=("tuned",))
    with pytest.raises(BadInput, match="give train"):
        compare_lenses(model, test=TEXTS, methods=("logit", "affine"))
    with pytest.raises(BadInput, match="fitted maps"):
        operate(model, PRESETS["tuned"], some_states(model), range(4))
    with pytest.raises(BadInput, match="layers 0 to 3, asked for 4"):
        random_maps(model, "affine")(torch.zeros(1, 32), 4)


@pytest.mark.real
def test_on_a_real_model_the_sink_lens_reads_early_layers_that_the_logit_lens_does_not() -> None:
    import intarsia as ia

    model = ia.load("smollm2-135m")
    text = "Joey: Hey, how are you doing?\nMonica: I am fine, thank you. What did you have for dinner last night?"
    found = compare_lenses(model, test=[text], methods=("logit", "sink"), positions=20)
    middle = range(10, 20)
    sums = {name: sum(found[name].kl[i] for i in middle) for name in ("logit", "sink")}
    assert sums["sink"] < 0.5 * sums["logit"]
    assert found["sink"].mean_agreement[0] > found["logit"].mean_agreement[0] + 0.1
