"""The model diff on tiny networks: zero for equal models, naive formulas, and a planted change that must be found."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from intarsia.data.records import LabelledText, Text
from intarsia.errors import BadInput
from intarsia.interpretation import Diff, diff
from intarsia.models import Model, wrap
from intarsia.report import Finding, TokenMap
from tests.tiny import tiny, tokenizer

TEXTS = [
    "def area(radius): return pi * radius ** 2",
    "Return the number of non-overlapping occurrences.",
    "a short one",
    "Open file and return a stream. Raise OSError upon failure.",
    "Python is a programming language",
]


def _perturbed(model: Model, layer: int, role: str = "mlp.down_proj", scale: float = 0.3, seed: int = 0) -> Model:
    after = model.copy()
    weight = after.network.get_submodule(f"model.layers.{layer}.{role}").weight
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        weight += scale * weight.std() * torch.randn(weight.shape, generator=generator)
    return after


def _noisy(model: Model, scale: float = 0.05, seed: int = 0) -> Model:
    after = model.copy()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in after.network.parameters():
            parameter += scale * torch.randn(parameter.shape, generator=generator)
    return after


@pytest.mark.parametrize("family", ["llama", "gpt2", "neox", "granite", "mixtral", "bert", "bert-encoder"])
def test_identical_models_differ_nowhere(family: str) -> None:
    model = tiny(family)
    found = diff(model.copy(), against=model, texts=TEXTS)
    assert found.identical
    assert "identical" in found.summary
    assert found.parted_at is None
    for row in found.layers:
        assert (row.stream, row.first, row.cosine, row.cka) == (0, 0, 1, 1)
        assert (row.attention, row.mlp, row.attention_added, row.mlp_added) == (0, 0, 0, 0)
    assert found.weights and all(w.distance == 0 for w in found.weights)
    assert not found.maps and not found.changes and not found.risen and not found.fallen and not found.inputs
    if family == "bert-encoder":
        assert found.output is None
        assert found.headline() == {}
    else:
        assert found.output is not None
        assert found.output.kl == (0, 0, 0) and found.output.total_variation == 0
        assert found.output.agreement == (1, 1, 1) and found.output.overlap == 1
        assert found.output.loss_change == ((0, 0, 0) if family != "bert" else None)


def test_output_measures_match_the_naive_formulas() -> None:
    before = tiny("llama")
    after = _noisy(before)
    found = diff(after, against=before, texts=TEXTS, batch_size=2)
    kls, moved, agree, losses = [], [], [], []
    for text in TEXTS:
        ids = before.encode([text])["input_ids"]
        with torch.no_grad():
            p, q = (m.network(ids).logits[0].double().softmax(-1) for m in (before, after))
        for t in range(1, ids.shape[1]):
            kls.append(float((p[t] * (p[t] / q[t]).log()).sum()))
            moved.append(float((p[t] - q[t]).abs().sum()) / 2)
            agree.append(float(p[t].argmax() == q[t].argmax()))
            if t + 1 < ids.shape[1]:
                actual = ids[0, t + 1]
                losses.append(float(p[t, actual].log() - q[t, actual].log()))
    output = found.output
    assert output is not None and output.positions == len(kls)
    assert output.kl[0] == pytest.approx(sum(kls) / len(kls), rel=1e-4)
    assert output.kl_max == pytest.approx(max(kls), rel=1e-4)
    assert output.total_variation == pytest.approx(sum(moved) / len(moved), rel=1e-4)
    assert output.agreement[0] == pytest.approx(sum(agree) / len(agree))
    assert output.loss_change is not None
    assert output.loss_change[0] == pytest.approx(sum(losses) / len(losses), abs=1e-5)
    assert output.loss_change[1] <= output.loss_change[0] <= output.loss_change[2]
    assert sum(output.histogram) == pytest.approx(1)
    assert found.changes[0].kl == pytest.approx(output.kl_max)


def test_layer_distances_match_hidden_states() -> None:
    before = tiny("llama")
    after = _noisy(before)
    found = diff(after, against=before, texts=[TEXTS[0]])
    ids = before.encode([TEXTS[0]])["input_ids"]
    with torch.no_grad():
        a, b = (m.network(ids, output_hidden_states=True).hidden_states for m in (before, after))
    for row in found.layers[:-1]:  # the last hidden state of transformers is the one after the final norm
        x, y = a[row.after + 1][0].double(), b[row.after + 1][0].double()
        apart = (y - x).norm(dim=-1) / x.norm(dim=-1)
        assert row.stream == pytest.approx(float(apart[1:].median()), rel=1e-5)
        assert row.first == pytest.approx(float(apart[0]), rel=1e-5)


@pytest.mark.parametrize("layer", [0, 2, 3])
@pytest.mark.parametrize("role", ["mlp.down_proj", "self_attn.o_proj"])
def test_points_at_the_one_layer_that_was_changed(layer: int, role: str) -> None:
    before = tiny("llama")
    found = diff(_perturbed(before, layer, role), against=before, texts=TEXTS)
    assert [(w.layer, w.role) for w in found.changed_weights] == [(layer, role)]
    assert found.parted_at == layer
    assert all(row.stream == 0 for row in found.layers[:layer])
    kind = "mlp" if role.startswith("mlp") else "attention"
    other = "attention" if kind == "mlp" else "mlp"
    assert getattr(found.layers[layer], kind) > 0
    if kind == "mlp":
        assert getattr(found.layers[layer], other) == 0
    assert f"in layer {layer} only" in found.summary and role in found.summary
    if layer:
        assert f"nothing differs before layer {layer}" in found.summary
    parts = [row.lens_parts for row in found.layers]
    assert sum(parts[:layer]) == 0
    assert sum(parts) == pytest.approx(1 - found.output.agreement[0], abs=1e-6)


def test_where_the_lenses_part_matches_a_naive_search() -> None:
    before = tiny("llama")
    after = _noisy(before, 0.04)
    found = diff(after, against=before, texts=TEXTS, lens_sample=10_000)
    counts, total, agree = [0] * 4, 0, [0] * 4
    for text in TEXTS:
        ids = before.encode([text])["input_ids"]
        tops = []
        for model in (before, after):
            with torch.no_grad():
                hidden = model.network(ids, output_hidden_states=True)
                head = lambda h, m=model: m.network.lm_head(m.network.model.norm(h))  # noqa: E731
                lenses = [head(h)[0].argmax(-1) for h in hidden.hidden_states[1:-1]]
                tops.append([*lenses, hidden.logits[0].argmax(-1)])
        for t in range(1, ids.shape[1]):
            total += 1
            same = [bool(a[t] == b[t]) for a, b in zip(*tops, strict=True)]
            agree = [n + s for n, s in zip(agree, same, strict=True)]
            if not same[-1]:
                counts[max((i for i in range(4) if same[i]), default=-1) + 1] += 1
    assert sum(counts) > 3
    assert [row.lens_parts for row in found.layers] == pytest.approx([n / total for n in counts], abs=1e-6)
    assert [row.lens_agreement for row in found.layers] == pytest.approx([n / total for n in agree], abs=1e-6)


@pytest.mark.parametrize("family", ["llama", "gpt2", "bert"])
def test_padded_batches_equal_one_by_one(family: str) -> None:
    before = tiny(family)
    after = _noisy(before)
    one, many = (diff(after, against=before, texts=TEXTS, batch_size=n, sample=64) for n in (1, 5))
    assert one.output is not None and many.output is not None
    assert many.output.model_dump()["kl"] == pytest.approx(one.output.kl, rel=1e-4)
    assert many.output.agreement == pytest.approx(one.output.agreement)
    for a, b in zip(one.layers, many.layers, strict=True):
        for name in ("stream", "first", "cosine", "cka", "attention", "mlp", "lens_agreement"):
            assert getattr(b, name) == pytest.approx(getattr(a, name), rel=1e-3, abs=1e-5), name


def test_swapping_the_models_keeps_what_is_symmetric() -> None:
    before = tiny("llama")
    after = _noisy(before)
    there, back = diff(after, against=before, texts=TEXTS), diff(before, against=after, texts=TEXTS)
    assert there.output is not None and back.output is not None
    assert there.output.total_variation == pytest.approx(back.output.total_variation, rel=1e-9)
    assert there.output.agreement == back.output.agreement and there.output.overlap == back.output.overlap
    assert there.output.loss_change[0] == pytest.approx(-back.output.loss_change[0], abs=1e-9)
    assert there.output.kl[0] != back.output.kl[0]
    for a, b in zip(there.layers, back.layers, strict=True):
        assert (a.cosine, a.cka) == pytest.approx((b.cosine, b.cka), abs=1e-9)
    matrix = torch.tensor(there.cka, dtype=torch.float64)
    assert torch.allclose(matrix, torch.tensor(back.cka, dtype=torch.float64).T, atol=1e-9)
    assert [t.token for t in there.risen] == [t.token for t in back.fallen]


def test_models_of_different_depth_and_width() -> None:
    import transformers as tf

    before = tiny("llama")
    config = tf.LlamaConfig(**{**before.config.to_dict(), "num_hidden_layers": 2})
    torch.manual_seed(0)
    shallow = wrap(tf.LlamaForCausalLM(config).eval(), before.tokenizer, name="shallow")
    found = diff(shallow, against=before, texts=TEXTS)
    assert [(row.before, row.after) for row in found.layers] == [(1, 0), (3, 1)]
    assert not found.weights and found.output is not None and found.output.kl[0] > 0
    assert (len(found.cka), len(found.cka[0])) == (4, 2)
    narrow = tf.LlamaConfig(**{**before.config.to_dict(), "hidden_size": 16, "head_dim": 4})
    slim = wrap(tf.LlamaForCausalLM(narrow).eval(), before.tokenizer, name="slim")
    found = diff(slim, against=before, texts=TEXTS)
    assert all(row.stream is None and row.cka is not None for row in found.layers)
    assert "widths" in found.summary
    assert found.unmatched > 0


def test_blocks_survive_json_and_lead_with_the_numbers() -> None:
    before = tiny("llama")
    found = diff(_noisy(before), against=before, texts=TEXTS, stride=2)
    assert [row.after for row in found.layers] == [1, 3]
    again = Finding.from_json(found.to_json())
    assert isinstance(again, Diff) and again == found
    blocks = again.blocks()
    assert blocks[0].title == "In numbers"
    assert any(isinstance(block, TokenMap) for block in blocks)
    for block in blocks:
        if isinstance(block, TokenMap):
            assert len(block.tokens) == len(block.values) == len(block.tips)
    assert set(found.headline()) == {"diff_agreement"}


def _with_task(model: Model) -> Model:
    after = model.copy()
    after.extras["label_task"] = {
        "template": "Text: {text}\nKind:",
        "verbalisers": {"code": " code", "prose": " prose"},
    }
    return after


def test_labelled_texts_are_compared_inside_the_prompt() -> None:
    before = tiny("llama")
    after = _with_task(_noisy(before))
    records = [LabelledText(text, "code" if i % 2 else "prose") for i, text in enumerate(TEXTS)]
    found = diff(after, against=before, texts=records)
    assert found.prompts and found.cue is not None and found.cue.positions == len(records)
    losses = []
    for record in records:
        prompt = before.encode([f"Text: {record.text}\nKind:"])["input_ids"]
        with torch.no_grad():
            p, q = (m.network(prompt).logits[0, -1].double().log_softmax(-1) for m in (before, after))
        space = before.encode([" "], special=False)["input_ids"][0, 0]
        losses.append(float(p[space] - q[space]))
    assert found.cue.loss_change is not None
    assert found.cue.loss_change[0] == pytest.approx(sum(losses) / len(losses), abs=1e-5)
    assert "Where the label is read" in found.summary
    plain = diff(after, against=before, texts=records, as_prompts=False)
    assert not plain.prompts and plain.cue is None
    assert not diff(after, against=before, texts=[Text(t) for t in TEXTS]).prompts
    with pytest.raises(BadInput, match=r"adaptation\.label"):
        diff(_noisy(before), against=before, texts=records, as_prompts=True)


def test_a_long_text_is_cut_inside_the_prompt_and_keeps_its_cue() -> None:
    before = tiny("llama")
    after = _with_task(_noisy(before))
    found = diff(after, against=before, texts=[LabelledText("x" * 500, "code")], max_tokens=20)
    assert found.cue is not None and found.cue.positions == 1
    assert found.output is not None
    assert found.output.positions == len("Text: \nKind: code") + 20 - 1


class _Rounded(nn.Module):
    """A linear layer that keeps integers and computes with what `.weight` gives."""

    def __init__(self, linear: nn.Linear):
        super().__init__()
        self.scale = float(linear.weight.detach().abs().max() / 127)
        self.register_buffer("codes", (linear.weight.detach() / self.scale).round().to(torch.int8))
        self.register_buffer("bias", linear.bias)

    @property
    def weight(self) -> torch.Tensor:
        return self.codes.float() * self.scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, self.weight, self.bias)


def test_quantized_layers_count_by_the_weight_they_compute_with() -> None:
    before = tiny("llama")
    after = before.copy()
    attention = after.network.model.layers[1].self_attn
    attention.q_proj = _Rounded(attention.q_proj)
    found = diff(after, against=before, texts=TEXTS)
    assert [(w.layer, w.role) for w in found.changed_weights] == [(1, "self_attn.q_proj")]
    a, b = before.network.model.layers[1].self_attn.q_proj.weight.detach(), attention.q_proj.weight
    assert found.changed_weights[0].distance == pytest.approx(float((b - a).norm() / a.norm()), rel=1e-5)
    assert found.unmatched == 0 and found.parted_at == 1


@pytest.mark.parametrize("family", ["llama", "gpt2", "bert"])
def test_a_quantized_model_lines_up_with_its_original(family: str) -> None:
    from intarsia.compression import quantize

    before = tiny(family)
    found = diff(quantize(before, bits=8), against=before, texts=TEXTS)
    assert found.unmatched == 0 and found.changed_weights
    assert all(0 < w.distance < 0.02 for w in found.changed_weights)
    assert not any(w.role.lower().endswith(("norm", "bias")) for w in found.changed_weights)


def test_a_tied_weight_is_compared_once() -> None:
    model = tiny("gpt2")
    roles = [w.role for w in diff(_noisy(model), against=model, texts=TEXTS[:1]).weights if w.layer is None]
    assert "transformer.wte" in roles and "lm_head" not in roles


def test_clear_errors() -> None:
    model = tiny("llama")
    other = wrap(model.network, tokenizer(bos=True))
    with pytest.raises(BadInput, match="share a tokenizer"):
        diff(model, against=other, texts=TEXTS)
    with pytest.raises(BadInput, match="no text"):
        diff(model, against=model, texts=[" "])
    with pytest.raises(BadInput, match="two tokens"):
        diff(model, against=model, texts=["a"])
    with pytest.raises(BadInput, match="decoder"):
        diff(model, against=tiny("bert"), texts=TEXTS)
    with pytest.raises(BadInput, match="encoder-decoder"):
        diff(tiny("t5"), against=tiny("t5"), texts=TEXTS)
    with pytest.raises(BadInput, match="tokenizer"):
        diff(wrap(model.network), against=model, texts=TEXTS)
