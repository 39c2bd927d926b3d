"""Patching, tracing, knock-out and attribution against naive runs, one at a time."""

from __future__ import annotations

import pytest
import torch

from intarsia.errors import BadInput
from intarsia.interpretation import (
    activation_patching,
    attention_knockout,
    attribution_patching,
    causal_tracing,
)
from intarsia.interpretation.causal.cells import site
from intarsia.interpretation.causal.contrast import contrast, span
from intarsia.report import Finding
from intarsia.sites import Add, Replace, read, run
from tests.sites_help import hooks
from tests.tiny import tiny

CLEAN, CORRUPT = "Mary gave it to John", "Mark gave it to John"
PAIR = {"prompt": CLEAN, "corrupt": CORRUPT, "answer": "a", "foil": "b"}
MASKED = {"prompt": "Mary gave <mask> to", "corrupt": "Mark gave <mask> to", "answer": "a", "foil": "b"}


def pair(family: str) -> dict:
    return MASKED if family == "bert" else PAIR


def made(family: str):
    """A tiny model in float64; an encoder's tokenizer knows its mask token."""
    model = tiny(family, dtype=torch.float64)
    if family == "bert":
        model.tokenizer.add_special_tokens({"mask_token": "<mask>"})
    return model


def naive(model, given: dict, base: str, edits, at: int = -1) -> float:
    """Logit of `a` - logit of `b` after edits, float64."""
    logits = run(model, [given[base]], edits).logits[0, at].double()
    a, b = (model.tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in ("a", "b"))
    return float(logits[a] - logits[b])


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3", "neox", "bert"])
@pytest.mark.parametrize("direction", ["restore", "break"])
def test_activation_patching_equals_one_run_a_cell(family: str, direction: str) -> None:
    model, given = made(family), pair(family)
    kinds = ["resid_post", "attn_out", "mlp_out", "z"]
    found = activation_patching(model, **given, kinds=kinds, direction=direction, controls=[], batch_size=7)
    source, base = ("prompt", "corrupt") if direction == "restore" else ("corrupt", "prompt")
    at = found.contrast.at
    ends = naive(model, given, base, [], at), naive(model, given, source, [], at)
    count, length = len(model.sites.blocks), len(found.contrast.tokens)
    for kind in kinds:
        names = [site(model, i, kind) for i in range(count)]
        states = read(model, [given[source]], names)
        for layer, name in enumerate(names):
            columns = range(4) if kind == "z" else [0, 2, *range(3, length, 4), length - 1]
            for column in columns:
                edit = (
                    Replace(name, value=states[name], heads=column)
                    if kind == "z"
                    else Replace(name, at=column, value=states[name][0, column])
                )
                wanted = (naive(model, given, base, [edit], at) - ends[0]) / (ends[1] - ends[0])
                got = found.effect_map(kind).effect[layer][column]
                assert got == pytest.approx(wanted, abs=1e-5), (kind, layer, column)
    assert hooks(model.network) == 0


def test_patching_everything_there_is_brings_all_of_it_back() -> None:
    found = activation_patching(tiny("llama"), **PAIR)
    assert found.maps[0].effect[-1][-1] == pytest.approx(1, abs=1e-4)
    # Before the first token that differs both runs are the same.
    assert all(row[:3] == [0, 0, 0] for row in found.maps[0].effect)
    assert found.identical >= 3 * 4
    controls = found.maps[0].controls
    assert set(controls) == {"prompt", "gaussian", "mean"}
    mean = sum(controls[name][2][5] for name in controls) / 3
    assert found.maps[0].control[2][5] == pytest.approx(mean)
    assert found.maps[0].beyond[2][5] == pytest.approx(found.maps[0].effect[2][5] - max(mean, 0))


def test_control_states_are_what_they_say() -> None:
    from intarsia.interpretation.causal.cells import base_run
    from intarsia.interpretation.causal.controls import Controls
    from intarsia.sites import batch_of

    model = tiny("llama")
    source = base_run(model, batch_of(model, CLEAN), ["z"])
    controls = Controls(model, source, ["z"], "xyz", seed=0)
    right = source["layers.1.z"][0]
    random = controls.state("gaussian", 1, "z", [2, 5], head=3)
    assert torch.allclose(random.norm(dim=-1), right[[2, 5], 3].norm(dim=-1))
    assert not torch.allclose(random, right[[2, 5], 3])
    other = read(model, ["xyz"], "layers.1.z")["layers.1.z"][0]
    assert torch.equal(controls.state("prompt", 1, "z", [1, 9]), other[[1, 2]])
    mean = torch.cat([right[1:], other[1:]]).mean(0)
    assert torch.allclose(controls.state("mean", 1, "z", [4])[0], mean)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_causal_tracing_equals_runs_with_noise(family: str) -> None:
    model = tiny(family, dtype=torch.float64)
    settings = {"subject": "Mary", "metric": "log-probability", "answer": "a", "controls": [], "window": 3}
    found = causal_tracing(model, prompt=CLEAN, **settings, samples=2, seed=3)
    subject = span(model, CLEAN, "Mary", "test")
    assert found.subject == subject == [0, 1, 2, 3]
    entered = read(model, [CLEAN], "embed")["embed"]
    sigma = float(entered[0].std())
    drawn = torch.randn(2, 4, 32, generator=torch.Generator().manual_seed(3)) * 3 * sigma
    token = model.tokenizer("a", add_special_tokens=False)["input_ids"][0]

    def value(edits) -> float:
        return float(run(model, [CLEAN], edits).logits[0, -1].double().log_softmax(-1)[token])

    blurs = [Add("embed", at=subject, value=noise.double()) for noise in drawn]
    clean, corrupt = value([]), sum(value([blur]) for blur in blurs) / 2
    assert found.contrast.corrupted == pytest.approx(corrupt, abs=1e-6)
    for kind, layer, column, around in (
        ("resid_post", 1, 3, [1]),
        ("mlp_out", 2, 3, [1, 2, 3]),
        ("attn_out", 0, 19, [0, 1]),
    ):
        names = [f"layers.{i}.{kind}" for i in around]
        states = read(model, [CLEAN], names)
        edits = [Replace(name, at=column, value=states[name][0, column]) for name in names]
        patched = sum(value([blur, *edits]) for blur in blurs) / 2
        wanted = (patched - corrupt) / (clean - corrupt)
        assert found.effect_map(kind).effect[layer][column] == pytest.approx(wanted, abs=1e-5), kind


def test_tracing_reports_controls_and_spread() -> None:
    found = causal_tracing(tiny("llama"), prompt=CLEAN, subject="Mary", samples=2, kinds=["resid_post"])
    one = found.maps[0]
    assert one.control is not None and one.spread is not None and set(one.controls) == {"prompt", "gaussian", "mean"}
    assert one.effect[-1][-1] == pytest.approx(1, abs=1e-4)
    assert "noise" in found.contrast.corrupt and found.summary in str(found).replace("\n", " ")


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3", "bert"])
def test_attribution_patching_is_the_slope_of_patching(family: str) -> None:
    """The effect of a small step towards the clean state, over the size of the step."""
    model, given = made(family), pair(family)
    found = attribution_patching(model, **given, check=0)
    at = found.contrast.at
    start, whole = naive(model, given, "corrupt", [], at), naive(model, given, "prompt", [], at)
    step = 1e-2  # norms compute in float32: smaller steps drown in rounding
    for kind, layer, column in (("resid_post", 1, 3), ("attn_out", 0, at), ("mlp_out", 1, at), ("z", 2, 1)):
        name = site(model, layer, kind)
        clean, corrupt = (read(model, [given[k]], name)[name] for k in ("prompt", "corrupt"))

        def moved(size: float, clean=clean, corrupt=corrupt, kind=kind, column=column, name=name) -> float:
            new = corrupt + size * (clean - corrupt)
            edit = (
                Replace(name, value=new, heads=column)
                if kind == "z"
                else Replace(name, at=column, value=new[0, column])
            )
            return naive(model, given, "corrupt", [edit], at)

        slope = (moved(step) - moved(-step)) / (2 * step) / (whole - start)
        assert found.effect_map(kind).effect[layer][column] == pytest.approx(slope, rel=3e-3, abs=3e-4), kind


def test_attribution_patching_checks_itself() -> None:
    model = tiny("llama")
    found = attribution_patching(model, **PAIR, check=12, kinds=["z", "resid_post"])
    true = activation_patching(model, **PAIR, kinds=["z", "resid_post"], controls=[])
    for kind, cells in found.checked.items():
        assert len(cells) >= 3
        for row, column, guess, real in cells:
            assert guess == found.effect_map(kind).effect[row][column]
            assert real == pytest.approx(true.effect_map(kind).effect[row][column], abs=1e-5)
    # In the last layer the stream only passes the final norm: the two can hardly differ in sign.
    assert found.agreement["resid_post"] is not None
    assert Finding.from_json(found.to_json()) == found


def masked_by_hand(model, text: str, layers, sources, target: int) -> torch.Tensor:
    """Logits of a llama whose attention from `target` to `sources` is cut in `layers`, written out."""
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    inner, ids = model.network.model, model.encode([text])["input_ids"]
    x = inner.embed_tokens(ids)
    length = ids.shape[1]
    cos, sin = inner.rotary_emb(x, torch.arange(length)[None])
    for index, block in enumerate(inner.layers):
        attention, normed = block.self_attn, block.input_layernorm(x)
        q, k, v = (
            part(normed).view(1, length, -1, attention.head_dim).transpose(1, 2)
            for part in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        q, k = apply_rotary_pos_emb(q, k, cos, sin)
        k, v = (t.repeat_interleave(2, dim=1) for t in (k, v))
        allowed = torch.ones(length, length, dtype=torch.bool).tril()
        if index in layers:
            allowed[target, sources] = False
        scores = (q @ k.transpose(2, 3)) * attention.scaling
        pattern = scores.masked_fill(~allowed, -torch.inf).softmax(-1)
        x = x + attention.o_proj((pattern @ v).transpose(1, 2).reshape(1, length, -1))
        x = x + block.mlp(block.post_attention_layernorm(x))
    return model.network.lm_head(inner.norm(x))[0, -1]


@torch.no_grad()
def test_knockout_is_masked_attention() -> None:
    model = tiny("llama", dtype=torch.float64)
    found = attention_knockout(
        model, prompt=CLEAN, source="Mary", answer="a", foil="b", metric="logit-difference", window=2, batch_size=5
    )
    a, b = (model.tokenizer(w, add_special_tokens=False)["input_ids"][0] for w in ("a", "b"))

    def value(layers, sources) -> float:
        logits = masked_by_hand(model, CLEAN, layers, sources, 19)
        return float(logits[a] - logits[b])

    whole = value([], [])
    assert found.contrast.clean == pytest.approx(whole, abs=1e-5)
    windows = {0: [0], 1: [0, 1], 2: [1, 2], 3: [2, 3]}
    for row, layer in enumerate(found.layers):
        wanted = value(windows[layer], [0, 1, 2, 3]) - whole
        assert found.groups["the source"][row] == pytest.approx(wanted, abs=1e-5)
        assert found.maps[0].effect[row][7] == pytest.approx(value(windows[layer], [7]) - whole, abs=1e-5)
    others = found.groups["all other tokens but the first"][2]
    assert others == pytest.approx(value([1, 2], list(range(4, 19))) - whole, abs=1e-5)


def test_knockout_of_one_head_leaves_the_others() -> None:
    model = tiny("gpt2")
    every = attention_knockout(model, prompt=CLEAN, source="gave", window=1)
    one = attention_knockout(model, prompt=CLEAN, source="gave", window=1, heads=[2])
    assert one.groups["the source"] != every.groups["the source"]
    with pytest.raises(BadInput, match="head 7 does not exist"):
        attention_knockout(model, prompt=CLEAN, source="gave", heads=[7])
    with pytest.raises(BadInput, match="nothing but the source"):
        attention_knockout(model, prompt=CLEAN, source="Mary gave", target="gave")


def test_metrics_are_what_they_say() -> None:
    model = tiny("llama", dtype=torch.float64)
    a, b = (model.tokenizer(w, add_special_tokens=False)["input_ids"][0] for w in ("a", "b"))
    logits = run(model, [CORRUPT]).logits[0, -1].double()
    clean = run(model, [CLEAN]).logits[0, -1].double().log_softmax(-1)
    for metric, wanted in {
        "logit-difference": logits[a] - logits[b],
        "log-probability": logits.log_softmax(-1)[a],
        "probability": logits.softmax(-1)[a],
        "kl": (clean.exp() * (clean - logits.log_softmax(-1))).sum(),
    }.items():
        found = contrast(model, "test", CLEAN, CORRUPT, metric=metric, answer="a", foil="b")
        assert (found.answer, found.corrupt_value) == (a, pytest.approx(float(wanted), abs=1e-6)), metric


def test_clear_errors() -> None:
    model = tiny("llama")
    for error, call in {
        "as many tokens, they have 20 and 5": lambda: activation_patching(model, prompt=CLEAN, corrupt="short"),
        "no effect to trace": lambda: activation_patching(model, prompt=CLEAN, corrupt=CLEAN),
        "begin with the same token": lambda: activation_patching(model, **{**PAIR, "foil": "ab"}),
        "position 20 is outside": lambda: activation_patching(model, **PAIR, positions=[20]),
        "'Rome' does not occur": lambda: causal_tracing(model, prompt=CLEAN, subject="Rome"),
    }.items():
        with pytest.raises(BadInput, match=error):
            call()
    with pytest.raises(BadInput, match="mask token"):
        activation_patching(tiny("bert"), **PAIR)
    with pytest.raises(BadInput, match="head over its vocabulary"):
        activation_patching(tiny("bert-encoder"), **PAIR)
