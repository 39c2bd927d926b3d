"""What merged models are trained for: the losses against naive ones, and who learns from alignment."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import intarsia as ia
from intarsia.errors import BadInput
from intarsia.sites.recomposing import installed
from intarsia.tokens import merge
from intarsia.tokens.alignment import Alignment, detached, divergence, dual_maps, stretched
from intarsia.tokens.losses import Outcome, answering, contrastive, distillation, pairing
from tests.sites_help import plain
from tests.tiny import tiny
from tests.tokens_help import blip_answers, no_notes
from tests.training_help import KINDS, feed, guided


@pytest.fixture(autouse=True)
def quiet():
    with no_notes():
        yield


@pytest.mark.parametrize("form", ["js", "official"])
def test_divergence_is_the_formula(form):
    draw = np.random.default_rng(0)
    a, b = draw.normal(size=(2, 3, 5, 7)) * 2
    total = 0.0
    for i in range(3):
        for j in range(5):
            p, q = (np.exp(x[i, j]) / np.exp(x[i, j]).sum() for x in (a, b))
            m = (p + q) / 2
            if form == "js":
                total += 0.5 * (p * np.log(p / m)).sum() + 0.5 * (q * np.log(q / m)).sum()
            else:
                total += 0.5 * (m * np.log(m / p)).sum() + 0.5 * (m * np.log(m / q)).sum()
    found = divergence(torch.tensor(a), torch.tensor(b), form)
    assert found.item() == pytest.approx(total / 15, rel=1e-12)
    assert divergence(torch.tensor(a), torch.tensor(a), form).item() == pytest.approx(0, abs=1e-12)


def test_the_shallower_tower_is_repeated_as_in_the_paper():
    assert stretched(24, 32) == [i for i in range(24) for _ in range((i + 1) * 32 // 24 - i * 32 // 24)]
    assert stretched(3, 3) == [0, 1, 2] and stretched(2, 5) == [0, 0, 1, 1, 1] and len(stretched(24, 40)) == 40


def test_infonce_with_equal_pictures_by_hand():
    draw = np.random.default_rng(1)
    images, texts = draw.normal(size=(2, 5, 8))
    same = np.eye(5, dtype=bool)
    same[1, 3] = same[3, 1] = True
    u, v = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (images, texts))
    scores = np.exp(2.0) * u @ v.T
    total = 0.0
    for s in (scores, scores.T):
        for i in range(5):
            log_p = s[i] - np.log(np.exp(s[i]).sum())
            total -= sum(log_p[j] / same[i].sum() for j in range(5) if same[i, j]) / 5
    tensors = torch.tensor(images), torch.tensor(texts)
    found = contrastive(*tensors, torch.tensor(2.0), torch.tensor(same))
    assert found.item() == pytest.approx(total / 2, rel=1e-5)
    assert torch.equal(contrastive(*tensors, 9.0), contrastive(*tensors, 4.6052))  # the scale is held
    assert torch.equal(contrastive(*tensors, -3.0), contrastive(*tensors, 0.0))


def test_sigmoid_loss_is_siglips_own():
    model, x = tiny("siglip"), feed("siglip")
    output = model.network(**x, return_loss=True)
    torch.testing.assert_close(pairing(model.network, x).loss, output.loss)


def test_clip_loss_is_clips_own_without_equal_pictures():
    model, x = tiny("clip"), feed("clip")
    output = model.network(**x, return_loss=True)
    torch.testing.assert_close(pairing(model.network, x).loss, output.loss)


def test_blips_answers_are_scored_as_its_own_forward_does():
    model = blip_answers()
    x = {**feed("blip"), "labels": torch.randint(10, 200, (3, 4))}
    model.network.eval()
    torch.testing.assert_close(answering(model.network, x).loss, model.network(**x).loss)


def test_distillation_by_hand():
    a, b = torch.randn(2, 4, 6, dtype=torch.float64)
    s, t = torch.randn(2, 5, 9, dtype=torch.float64)
    cosine = np.mean([1 - float(x @ y / (x.norm() * y.norm())) for x, y in zip(a, b, strict=True)])
    p, q = t.softmax(-1), s.softmax(-1)
    kl = float((p * (p / q).log()).sum(-1).mean())
    zero = torch.zeros(())
    found = distillation(Outcome(zero, (a,), s), Outcome(zero, (b,), t))
    assert found.item() == pytest.approx(cosine + kl, rel=1e-5)
    with pytest.raises(BadInput, match="nothing to distil by"):
        distillation(Outcome(zero), Outcome(zero))


# ---- alignment on the networks


@pytest.mark.parametrize("form", ["js", "official"])
@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_alignment_of_two_towers_in_a_float64_loop(kind, form):
    model, x = guided(kind), feed(kind)
    alignment = Alignment(model.network, form)
    with torch.no_grad(), alignment.aligning(), alignment.watching(x):
        model.network(**x)
    found = alignment.loss()
    owners = installed(model.network)
    rows = [owners[name].flow.facts["cross"] for name in ("vision", "text")]
    assert len(rows[0]) == len(rows[1]) == 3
    network, total = model.network, []
    for u, w in zip(*rows, strict=True):
        for b in range(3):
            with torch.no_grad():
                z = network.vision_model.post_layernorm(u[b]), network.text_model.final_layer_norm(w[b])
                if kind == "clip":
                    z = network.visual_projection(z[0]), network.text_projection(z[1])
                else:
                    head = network.vision_model.head
                    width, attention = len(z[0]), head.attention  # one row: attention gives its value
                    value = attention.in_proj_weight[2 * width :] @ z[0] + attention.in_proj_bias[2 * width :]
                    pooled = attention.out_proj(value)
                    z = pooled + head.mlp(head.layernorm(pooled)), network.text_model.head(z[1])
            p, q = (np.exp(v.double().numpy()) / np.exp(v.double().numpy()).sum() for v in z)
            m = (p + q) / 2
            js = (p * np.log(p / m) + q * np.log(q / m)).sum() / 2
            other = (m * np.log(m / p) + m * np.log(m / q)).sum() / 2
            total.append(js if form == "js" else other)
    assert found.item() == pytest.approx(np.mean(total), rel=1e-4)


def test_alignment_of_llava_goes_through_its_projector_to_the_first_word():
    model, x = guided("llava"), feed("llava", 2)
    x["attention_mask"][1, 0] = 0  # padded on the left: the first word is the second place
    alignment = Alignment(model.network)
    with alignment.aligning(), alignment.watching(x):
        model.network(**x)
    found = alignment.loss()
    rows = installed(model.network)["vision"].flow.facts["cross"]
    names = [f"text.layers.{i}.resid_pre" for i in range(4)]
    streams = [alignment._read[name] for name in names]
    assert streams[0].shape[1] > streams[1].shape[1]  # merged rows are one from the first block on
    total, beside = 0.0, stretched(len(rows), 4)
    for j in range(4):
        for b in range(2):
            z = model.network.model.multi_modal_projector(rows[beside[j]][b].detach()).detach().double()
            total += divergence(z, streams[j][b, [0, 1][b]].double()).item() / 8
    assert found.item() == pytest.approx(total, rel=1e-5)


def test_a_prompt_with_two_pictures_counts_for_both_and_one_without_for_none():
    model, x = guided("llava"), feed("llava", 2)
    row = torch.cat([x["input_ids"][0, :18], torch.full((16,), 8), x["input_ids"][0, 18:]])
    ids = torch.stack([row, torch.arange(20, 20 + len(row))])
    x = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": x["pixel_values"]}
    alignment = Alignment(model.network)
    with alignment.aligning(), alignment.watching(x):
        model.network(**x)
    assert alignment._pictures(2).tolist() == [2, 0]
    assert alignment.loss().isfinite()


@pytest.mark.parametrize("kind", [*KINDS, "blip-vqa"])
def test_only_the_offsets_learn_from_alignment(kind):
    model = guided(kind)
    x = feed("blip" if kind == "blip-vqa" else kind)
    if kind == "blip-vqa":
        x["labels"] = torch.randint(10, 200, (3, 4))
    model.network.train()
    alignment = Alignment(model.network)
    with alignment.aligning(), alignment.watching(x):
        model.network(**x)
    loss = alignment.loss()
    assert loss.item() > 0
    loss.backward()
    reached = {name for name, p in model.network.named_parameters() if p.grad is not None and p.grad.any()}
    offsets = {name for name, _ in model.network.named_parameters() if name.endswith("offsets")}
    assert reached == offsets and offsets
    vision = model.network.intarsia_tokens.vision.offsets.grad
    used = len(installed(model.network)["vision"].flow.facts["cross"])
    assert (vision[:used].abs().sum(1) > 0).all() and not vision[used:].any()


@pytest.mark.parametrize("kind", KINDS)
def test_the_task_never_reaches_the_offsets(kind):
    model, x = guided(kind), feed(kind)
    alignment = Alignment(model.network)
    with alignment.aligning():
        plain_output = model.network(**x)
    value = plain_output.logits_per_image if hasattr(plain_output, "logits_per_image") else plain_output.logits
    value.square().sum().backward()
    for name, p in model.network.named_parameters():
        if name.endswith("offsets"):
            assert p.grad is None or not p.grad.any(), name


@pytest.mark.parametrize("kind", KINDS)
def test_guides_leave_all_other_rows_alone(kind):
    """With nothing removed, guides appended and offsets at random, the outputs are the dense ones."""
    model, x = guided(kind, keep=1.0, dtype=torch.float64), feed(kind)
    x["pixel_values"] = x["pixel_values"].double()
    dense_output = plain(tiny(kind, dtype=torch.float64), x)
    alignment = Alignment(model.network)
    with alignment.aligning():
        found = plain(model, x)
    assert installed(model.network)["vision"].flow.facts["cross"]
    torch.testing.assert_close(found, dense_output, atol=1e-12, rtol=1e-12)


def test_an_untrained_guide_is_a_copy_of_its_class_row():
    model, x = merge(tiny("clip"), keep=1.0, cross=True), feed("clip")
    alignment = Alignment(model.network)
    names = [f"{tower}.layers.{i}.resid_pre" for tower in ("vision", "text") for i in range(3)]
    acts = ia.read(tiny("clip"), x, names)
    with torch.no_grad(), alignment.aligning():
        model.network(**x)
    for tower, place in (("vision", torch.zeros(3).long()), ("text", x["input_ids"].argmax(1))):
        cross = installed(model.network)[tower].flow.facts["cross"]
        for i, row in enumerate(cross):
            wanted = acts[f"{tower}.layers.{i}.resid_pre"][torch.arange(3), place]
            torch.testing.assert_close(row, wanted, atol=2e-6, rtol=1e-5)


def test_projections_are_used_without_their_weights_learning():
    model = tiny("clip")
    seen, said = dual_maps(model.network)
    row = torch.randn(2, 32, requires_grad=True)
    (seen(row).sum() + said(row).sum()).backward()
    assert row.grad is not None and all(p.grad is None for p in model.network.parameters())
    norm = model.network.vision_model.post_layernorm
    assert torch.equal(detached(norm)(row), norm(row))


def test_aligning_is_over_after_the_block_also_when_it_fails():
    model = guided("clip")
    rules = [o.rule for o in installed(model.network).values()]
    with pytest.raises(ZeroDivisionError), Alignment(model.network).aligning():
        assert all(rule.aligning for rule in rules)
        _ = 1 / 0
    assert not any(rule.aligning for rule in rules)
