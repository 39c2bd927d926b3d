"""The parts of continual tuning against naive formulas: stacked blocks, the classifier, attention, reflection,
metrics."""

from __future__ import annotations

import copy
import json
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from intarsia.adaptation.continual import metrics
from intarsia.adaptation.continual.bundle import write_block
from intarsia.adaptation.continual.methods.blocks import Orthogonal
from intarsia.adaptation.continual.methods.sapt import reflection
from intarsia.adaptation.continual.reading import Reader
from intarsia.adaptation.continual.routing.attention import Attention
from intarsia.adaptation.continual.routing.closed import SHRINKAGE, Closed, Statistics, features
from intarsia.adaptation.continual.routing.features import pool, pooled_prompts
from intarsia.adaptation.continual.routing.pool import TAKEN, Pool
from intarsia.adaptation.continual.routing.router import Same
from intarsia.adaptation.continual.skills import Skills, attach, attach_prompts, detach, layer_names, skills_of
from intarsia.adaptation.continual.technique import ContinualConfig
from intarsia.errors import BadInput
from tests.tiny import tiny

FAMILIES = ["llama", "gpt2", "t5", "gemma3", "neox"]


def drawn(skills: Skills, blocks: int, rank: int = 3) -> Skills:
    """Skills with random blocks, B not zero; ranks differ."""
    torch.manual_seed(1)
    for i in range(blocks):
        skills.add(f"task {i}", rank + i, 2.0 + i)
    for stack in skills.stacks:
        stack.up.normal_(std=0.2)
    return skills


def inputs(model, texts=("a text", "another, longer text")):
    batch = dict(model.encode(list(texts)))
    batch.pop("token_type_ids", None)
    if model.config.is_encoder_decoder:
        batch["decoder_input_ids"] = torch.tensor([[0, 5, 6], [0, 7, 8]])
    return batch


def with_skills(family: str, blocks: int = 3, first: int = 1):
    model = tiny(family)
    skills = drawn(attach(model.network, layer_names(model.network, ("auto",), first)), blocks)
    return model, skills


# ---- blocks


@pytest.mark.parametrize("family", FAMILIES)
def test_stacked_blocks_are_the_weighted_sum_of_their_updates_for_each_row(family: str):
    model, skills = with_skills(family)
    weights = torch.tensor([[0.5, 0.2, 0.3], [0.0, 0.9, 0.1]])
    batch = inputs(model)
    with skills.given(weights):
        found = model.network(**batch).logits
    plain = copy.deepcopy(model.network)
    own = skills_of(plain)
    assert own is not None
    detach(plain)
    modules = dict(plain.named_modules())
    kept = {name: modules[name].weight.detach().clone() for name in (s.name for s in own.stacks)}
    for i, row in enumerate(weights.tolist()):  # folded into the weights, a row of the batch at a time
        for stack in own.stacks:
            blocks = zip(row, stack.scales, map(stack.block, range(3)), strict=True)
            update = sum(w * s * (up.double() @ down.double()) for w, s, (down, up) in blocks)
            update = update.T if own.transposed else update
            modules[stack.name].weight.data = kept[stack.name] + update.float()
        alone = plain(**{name: value[i : i + 1] for name, value in batch.items()}).logits[0]
        real = batch["attention_mask"][i].bool() if not model.config.is_encoder_decoder else slice(None)
        torch.testing.assert_close(found[i][real], alone[real], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", ["llama", "gpt2", "t5"])
def test_one_block_alone_is_what_peft_makes_of_its_folder(family: str, tmp_path):
    peft = pytest.importorskip("peft")
    model, skills = with_skills(family)
    batch = inputs(model)
    write_block(skills, 1, tmp_path / "block")
    with skills.using("task 1"):
        found = model.network(**batch).logits
    plain = copy.deepcopy(model.network)
    detach(plain)
    assert not torch.allclose(plain(**batch).logits, found)
    adapted = peft.PeftModel.from_pretrained(plain, str(tmp_path / "block")).eval()
    torch.testing.assert_close(adapted(**batch).logits, found, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_without_blocks_or_weight_the_network_is_the_plain_one_to_the_bit(family: str):
    model = tiny(family)
    batch = inputs(model)
    plain = model.network(**batch).logits
    skills = attach(model.network, layer_names(model.network, ("auto",), 0))
    assert torch.equal(model.network(**batch).logits, plain)
    drawn(skills, 2)
    with skills.given(None):
        assert torch.equal(model.network(**batch).logits, plain)
    with skills.given(torch.zeros(2, 2)):
        torch.testing.assert_close(model.network(**batch).logits, plain, rtol=0, atol=1e-7)
    detach(model.network)
    assert torch.equal(model.network(**batch).logits, plain)
    assert not [hook for m in model.network.modules() for hook in (*m._forward_hooks, *m._forward_pre_hooks)]


def test_gradients_go_through_the_frozen_blocks_and_reach_the_open_one_alone():
    model, skills = with_skills("llama")
    model.network.requires_grad_(False)
    parameters = skills.open(1)
    weights = torch.tensor([[0.3, 0.3, 0.4]] * 2, requires_grad=True)
    batch = inputs(model)

    def loss(w):
        with skills.given(w):
            return model.network(**batch).logits.double().square().mean()

    loss(weights).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in parameters)
    # The gradient of the weights is that of finite differences: old blocks are part of the way to lower layers.
    for block in range(3):
        step = torch.zeros_like(weights.detach())
        step[0, block] = 1e-2
        with torch.no_grad():
            slope = (loss((weights + step).requires_grad_()) - loss((weights - step).requires_grad_())) / 2e-2
        assert float(slope) == pytest.approx(float(weights.grad[0, block]), rel=2e-2, abs=1e-6)
    skills.close()
    assert not any(p.requires_grad for p in skills.parameters())


def test_blocks_that_hardly_weigh_are_left_out_and_the_rest_scaled_up():
    model, skills = with_skills("llama")
    with torch.no_grad(), skills.given(torch.tensor([[0.995, 0.005, 0.0], [0.995, 0.005, 0.0]])):
        assert skills.mixture.columns == (0,)
        torch.testing.assert_close(skills.mixture.weights.sum(1), torch.ones(2))
        pruned = model.network(**inputs(model)).logits
    with skills.using("task 0"):
        torch.testing.assert_close(pruned, model.network(**inputs(model)).logits, rtol=1e-5, atol=1e-5)


def test_a_block_is_opened_changed_and_closed_in_its_place():
    _, skills = with_skills("llama")
    before = [[t.clone() for t in skills.stacks[0].block(i)] for i in range(3)]
    parameters = skills.open(1)
    with torch.no_grad():
        for parameter in parameters:
            parameter += 1
    skills.close()
    for i in range(3):
        for old, new in zip(before[i], skills.stacks[0].block(i), strict=True):
            torch.testing.assert_close(new, old + (i == 1))


def test_weights_of_another_batch_are_refused_and_beams_share_their_prompts():
    model, skills = with_skills("llama")
    with skills.given(torch.ones(3, 3) / 3), pytest.raises(BadInput, match="weighed for 3 prompts"):
        model.network(**inputs(model))
    weights = torch.tensor([[1.0, 0, 0], [0, 1.0, 0]])
    assert skills.mixture.weights is None
    with skills.given(weights):
        assert skills.mixture.of(4, 0).tolist() == [[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 1, 0]]


def test_a_copy_has_skills_of_its_own():
    model, skills = with_skills("llama")
    other = model.copy()
    own = skills_of(other.network)
    assert own is not None and own is not skills and own.embedding is other.network.get_input_embeddings()
    own.stacks[0].up.zero_()
    assert skills.stacks[0].up.abs().sum() > 0
    batch = inputs(model)
    with skills.using("task 2"):
        one = model.network(**batch).logits
    with own.using("task 2"):
        assert not torch.equal(one, other.network(**batch).logits)


def test_skills_are_no_part_of_what_the_network_saves():
    model, skills = with_skills("llama")
    skills.router = Attention(32)
    assert not [key for key in model.network.state_dict() if "intarsia" in key]


def test_a_second_pair_of_skills_and_unknown_layers_are_refused():
    model, _ = with_skills("llama")
    with pytest.raises(BadInput, match="beside it already"):
        attach(model.network, ["model.layers.0.self_attn.q_proj"])
    with pytest.raises(BadInput, match="no linear layer is called 'qq'"):
        layer_names(tiny("llama").network, ("qq",), 0)


@pytest.mark.parametrize("block", [0, 2])
def test_the_penalty_of_o_lora_is_that_of_naive_sums(block: int):
    model, skills = with_skills("llama")
    model.network.requires_grad_(False)
    for later in range(2, block, -1):
        skills.drop(f"task {later}")
    parameters = skills.open(block)
    settings_ = {"method": "olora", "penalty": 0.7, "penalty_norm": 0.3}
    skills.router = Same(block + 1)
    method = Orthogonal(Reader(model, skills, None), ContinualConfig(**settings_))
    method.block, orthogonal, norms = block, 0.0, 0.0
    for stack in skills.stacks:
        new = stack.new_down.detach().double()
        for i in range(block):
            for a in stack.block(i)[0].double():
                orthogonal += sum(abs(float(a @ b)) for b in new)
        for matrix in (new, stack.new_up.detach().double()):
            norms += sum(float(x) ** 2 for x in matrix.flatten()) ** 0.5
    assert float(method.penalty([], None)) == pytest.approx(0.7 * orthogonal + 0.3 * norms, rel=1e-5)
    for stack in skills.stacks:  # as a task begins
        torch.nn.init.zeros_(stack.new_up)
    method.penalty([], None).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in parameters)
    plain = Orthogonal(Reader(model, skills, None), ContinualConfig(method="olora"))
    plain.block = block
    assert float(plain.penalty([], None)) == pytest.approx(0.5 * orthogonal, rel=1e-5)


# ---- soft prompts


@pytest.mark.parametrize("family", ["llama", "gpt2", "t5"])
def test_a_mixed_prompt_stands_before_the_input_as_embeddings_would(family: str):
    model = tiny(family)
    skills = attach_prompts(model.network, 3, joined=False)
    torch.manual_seed(0)
    for name in "ab":
        skills.add(name, 0, 1.0)
    weights = torch.tensor([[0.25, 0.75]])
    batch = inputs(model, ["a text", "a text"])
    batch = {name: value[:1] for name, value in batch.items()}
    with skills.given(weights):
        found = model.network(**batch).logits
    prompt = (0.25 * skills.prompts.rows[0] + 0.75 * skills.prompts.rows[1])[None]
    embedded = torch.cat([prompt, model.network.get_input_embeddings()(batch["input_ids"])], 1)
    detach(model.network)
    rest = {k: v for k, v in batch.items() if k not in ("input_ids", "attention_mask")}
    wanted = model.network(inputs_embeds=embedded, **rest).logits
    wanted = wanted if model.config.is_encoder_decoder else wanted[:, 3:]
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", ["llama", "gpt2", "t5"])
@pytest.mark.parametrize("joined", [False, True])
def test_generation_with_a_prompt_goes_on_from_its_cache(family: str, joined: bool):
    """Greedy tokens are those of whole forwards, token by token, padded rows included."""
    model = tiny(family)
    skills = attach_prompts(model.network, 3, joined=joined)
    torch.manual_seed(0)
    for name in "abc":
        skills.add(name, 0, 1.0)
    weights = torch.tensor([[1.0, 0, 1.0], [0, 1.0, 0]])
    batch = dict(model.encode(["a text", "a longer text"], side="left"))
    batch.pop("token_type_ids", None)
    with skills.given(weights):
        new = model.network.generate(**batch, max_new_tokens=4, min_new_tokens=4, do_sample=False, pad_token_id=0)
        beams = model.network.generate(
            **batch, max_new_tokens=2, min_new_tokens=2, num_beams=2, do_sample=False, pad_token_id=0
        )
        assert len(beams) == 2
    for i in range(2):
        ids = batch["input_ids"][i][batch["attention_mask"][i].bool()][None]
        decoder = torch.zeros(1, 1, dtype=torch.long)
        for step in range(4):
            with skills.given(weights[i : i + 1]), torch.no_grad():
                if model.config.is_encoder_decoder:
                    logits = model.network(input_ids=ids, decoder_input_ids=decoder).logits[0, -1]
                else:
                    logits = model.network(input_ids=ids).logits[0, -1]
            logits[2] = -torch.inf  # the end token, which `min_new_tokens` forbids
            token = logits.argmax().view(1, 1)
            given_ = new[i, 1 + step] if model.config.is_encoder_decoder else new[i, batch["input_ids"].shape[1] + step]
            assert int(token) == int(given_)
            ids, decoder = (ids, torch.cat([decoder, token], 1)) if model.config.is_encoder_decoder else (
                torch.cat([ids, token], 1), decoder)  # fmt: skip


@pytest.mark.parametrize("joined", [False, True])
def test_a_prompt_that_is_trained_with_an_mlp_is_kept_as_their_sum(joined: bool):
    model = tiny("llama")
    model.network.requires_grad_(False)
    skills = attach_prompts(model.network, 3, joined=joined)
    torch.manual_seed(0)
    for name in "ab":
        skills.add(name, 0, 1.0)
    drawn_, batch = skills.prompts.rows.clone(), inputs(model)
    skills.prompts.hidden = 7
    new, *mlp = skills.open(1)
    assert torch.equal(skills.prompts.all(), drawn_)  # it begins as it was drawn
    first, bias, last, offset = mlp
    with torch.no_grad():
        last.normal_()
    weights = torch.ones(2, 2)
    with skills.given(weights):
        model.network(**batch).logits.square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in (new, first, bias, last, offset))
    hidden = (new.double() @ first.double().T + bias.double()).clamp(min=0)
    wanted = (new.double() + hidden @ last.double().T + offset.double()).detach().float()[0]
    with skills.given(weights), torch.no_grad():
        before = model.network(**batch).logits
        skills.close()
        after = model.network(**batch).logits
    torch.testing.assert_close(after, before)
    torch.testing.assert_close(skills.prompts.rows[1], wanted)
    assert torch.equal(skills.prompts.rows[0], drawn_[0]) and not list(skills.prompts.parameters())


# ---- features


def test_pooling_takes_no_notice_of_padding():
    torch.manual_seed(0)
    table = torch.nn.Embedding(50, 8)
    prompts = [[3, 4, 5], [7], [9, 9, 1, 30, 2], [8, 8]]
    together = pooled_prompts(table, prompts)
    for i, prompt in enumerate(prompts):
        vectors = table(torch.tensor(prompt)).detach()
        torch.testing.assert_close(together[i], torch.stack([vectors.amax(0), vectors.mean(0)]))
    left = torch.tensor([[0, 0, 3, 4, 5]])
    mask = torch.tensor([[0, 0, 1, 1, 1]])
    torch.testing.assert_close(pool(table(left), mask)[0].detach(), together[0])


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_a_prompts_weights_do_not_depend_on_its_batch_or_on_the_side_of_its_padding(family: str):
    model, skills = with_skills(family)
    skills.router = Attention(32)
    skills.router.keys = torch.randn(3, 1, 32)
    texts = ["short", "a much longer text than that"]
    for side in ("left", "right"):
        batch = dict(model.encode(texts, side=side))
        batch.pop("token_type_ids", None)
        if family == "t5":
            batch["decoder_input_ids"] = torch.zeros(2, 1, dtype=torch.long)
        model.network(**batch)
        together = skills.mixture.weights
        for i, text in enumerate(texts):
            alone = skills.weigh(pooled_prompts(skills.embedding, [model.encode([text])["input_ids"][0].tolist()]))
            torch.testing.assert_close(together[i], alone[0])


@pytest.mark.parametrize("kind", ["llama", "t5", "prompts"])
@pytest.mark.parametrize("use_cache", [True, False])
def test_while_decoding_the_prompts_weights_stay(kind: str, use_cache: bool):
    """With a cache and without one the same tokens are written: those of whole forwards with the prompts' weights."""
    if kind == "prompts":
        model = tiny("llama")
        skills = attach_prompts(model.network, 3, joined=False)
        for name in "abc":
            skills.add(name, 0, 1.0)
        skills.prompts.rows *= 20
    else:
        model, skills = with_skills(kind)
    skills.router = Attention(32)
    skills.router.keys = 3 * torch.randn(3, 1, 32, generator=torch.Generator().manual_seed(1))
    batch = dict(model.encode(["one", "two three"], side="left"))
    batch.pop("token_type_ids", None)
    some = {"max_new_tokens": 8, "min_new_tokens": 8, "do_sample": False, "pad_token_id": 0}
    pooled_ = pool(skills.embedding(batch["input_ids"]), batch["attention_mask"])
    with skills.given(skills.weigh(pooled_)):
        wanted = model.network.generate(**batch, **some)
    seen, keep = [], skills.router.forward
    skills.router.forward = lambda pooled: seen.append(len(pooled)) or keep(pooled)
    for beams in (1, 2):
        found = model.network.generate(**batch, **some, use_cache=use_cache, num_beams=beams)
        assert beams > 1 or torch.equal(found, wanted)
    assert seen == [2, 4] if kind != "t5" else seen == [2, 2]
    del skills.router.forward
    if kind == "llama" and not use_cache:  # the weights of longer texts are others, and so would be what is written
        ids = batch["input_ids"][1][batch["attention_mask"][1].bool()][None]
        for _ in range(8):
            with torch.no_grad():
                scores = model.network(ids).logits[0, -1]
            scores[2] = -torch.inf
            ids = torch.cat([ids, scores.argmax().view(1, 1)], 1)
        assert ids[0, -8:].tolist() != wanted[1, -8:].tolist()


def test_a_prompt_is_weighed_anew_after_generating_and_in_a_copy():
    model, skills = with_skills("llama")
    skills.router = Attention(32)
    skills.router.keys = 5 * torch.randn(3, 1, 32)
    batches = [dict(model.encode([text])) for text in ("one", "two three")]
    other = model.copy()
    for batch in batches:
        wanted = model.network.generate(**batch, max_new_tokens=2, do_sample=False, use_cache=False)
        weights = skills.mixture.weights.clone()
        model.network(**batch)
        torch.testing.assert_close(skills.mixture.weights, weights)
        own = skills_of(other.network)
        own.mixture.set(None)
        found = other.network.generate(**batch, max_new_tokens=2, do_sample=False, use_cache=False)
        assert torch.equal(found, wanted)
        torch.testing.assert_close(own.mixture.weights, weights)
    gone = weakref.ref(other.network)
    del other, own
    assert gone() is None  # nothing keeps a network that nobody has
    detach(model.network)
    assert "generate" not in vars(model.network) and model.network.generate.__self__ is model.network


# ---- the classifier in closed form


def prompts(task: int, count: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(100 * task + seed)
    return torch.randn(count, 2, 6, generator=generator) + torch.linspace(0, task, 6)


def test_scores_are_those_of_discriminant_analysis():
    router = Closed()
    rows = [features(prompts(t, 20 + t)) for t in range(3)]
    for some in rows:
        router.add(Statistics.of(some))
    means = [some.mean(0) for some in rows]
    scatter = sum((some - mean).T @ (some - mean) for some, mean in zip(rows, means, strict=True)) / sum(map(len, rows))
    covariance = (1 - SHRINKAGE) * scatter + SHRINKAGE * scatter.trace() / 12 * torch.eye(12, dtype=torch.float64)
    test = prompts(1, 7, seed=9)
    x = features(test)
    inverse = covariance.inverse()
    wanted = torch.stack([x @ inverse @ mean - mean @ inverse @ mean / 2 for mean in means], 1)
    torch.testing.assert_close(router.scores(test), wanted, rtol=1e-9, atol=1e-9)


@given(st.permutations(range(4)), st.integers(2, 9))
@settings(max_examples=20, deadline=None)
def test_tasks_in_parts_and_in_any_order_are_what_they_are_at_once(order, first):
    whole, pieces = Closed(), Closed()
    for t in range(4):
        whole.add(Statistics.of(features(prompts(t, 12))))
    for t in order:
        pieces.add(Statistics.of(features(prompts(t, 12)[:first])))
    for place, t in enumerate(order):
        pieces.update(place, Statistics.of(features(prompts(t, 12)[first:])))
    test = prompts(2, 5, seed=3)
    torch.testing.assert_close(pieces.scores(test), whole.scores(test)[:, list(order)], rtol=1e-6, atol=1e-6)


def test_a_task_that_is_forgotten_leaves_what_would_be_there_without_it():
    router, without = Closed(), Closed()
    for t in range(4):
        router.add(Statistics.of(features(prompts(t, 15))))
        if t != 1:
            without.add(Statistics.of(features(prompts(t, 15))))
    router.rows[3] = torch.tensor([0.2, 0.3, 0.1, 0.4])
    router.forget(1)
    test = prompts(2, 5, seed=3)
    torch.testing.assert_close(router.scores(test), without.scores(test), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(router.rows[2], torch.tensor([0.2, 0.1, 0.4]) / 0.7)
    again = Closed()
    again.load(router.save())
    torch.testing.assert_close(again(test), router(test))


def test_weights_are_the_rows_of_the_tasks_that_a_prompt_may_belong_to():
    router = Closed()
    for t in range(3):
        router.add(Statistics.of(features(prompts(t, 30))))
    router.rows = torch.tensor([[1.0, 0, 0], [0.4, 0.6, 0], [0.1, 0.2, 0.7]])
    router.temperature = 5.0
    test = prompts(1, 9, seed=4)
    chances = router.chances(test)
    torch.testing.assert_close(chances.sum(1), torch.ones(9, dtype=torch.float64))
    torch.testing.assert_close(router(test), chances.float() @ router.rows)
    router.hard = True
    assert set(router.chances(test).unique().tolist()) <= {0.0, 1.0}


def test_fewer_prompts_than_features_are_enough():
    router = Closed()
    for t in range(2):
        router.add(Statistics.of(features(torch.randn(4, 2, 50) + 3 * t)))
    assert torch.isfinite(router.scores(torch.randn(3, 2, 50))).all()


# ---- the paper's attention


def test_attention_is_the_papers():
    torch.manual_seed(0)
    router = Attention(16)
    router.keys = torch.randn(2, 1, 16)
    parameters = router.open()
    pooled = torch.randn(5, 2, 16)
    e = pooled[:, 0].double()
    hidden = e @ router.down.double().T @ router.up.double().T
    hidden = hidden / (1 + (-hidden).exp())
    centred = hidden - hidden.mean(1, keepdim=True)
    query = centred / (centred.square().mean(1, keepdim=True) + 1e-5).sqrt()
    keys = torch.cat([router.keys[:, 0], router.new[:, 0]]).double()
    wanted = (query @ keys.T / 4).softmax(1)
    torch.testing.assert_close(router(pooled).double(), wanted, rtol=1e-4, atol=1e-5)
    assert (router.new.abs() <= 1).all() and len(parameters) == 5


def test_the_first_key_gets_no_gradient_and_reflection_reaches_the_router_alone():
    router = Attention(16)
    parameters = router.open()
    router(torch.randn(4, 2, 16)).square().sum().backward()
    assert all(p.grad is None or p.grad.abs().max() < 1e-6 for p in parameters)
    router.close()
    router.open()
    reflection(torch.tensor([1.0]), router.log_weights(torch.randn(4, 2, 16))).backward()
    assert router.new.grad.abs().sum() > 0 and router.down.grad.abs().sum() > 0
    assert not router.keys.requires_grad


@pytest.mark.parametrize("layers", [0, 3])
def test_reflection_is_the_divergence_from_the_attention_there_was(layers: int):
    torch.manual_seed(0)
    shape = (layers, 2) if layers else (2,)
    target = torch.rand(*shape).softmax(-1)
    found = torch.randn(5, *shape[:-1], 4).log_softmax(-1)
    total = 0.0
    for row in found.reshape(5, -1, 4):
        for line, aim in zip(row, target.reshape(-1, 2), strict=True):
            total += sum(float(a) * (float(a.log()) - float(b)) for a, b in zip(aim, line[:2], strict=True))
    assert float(reflection(target, found)) == pytest.approx(total / 5 / max(1, layers), rel=1e-5)


def test_a_key_for_each_layer_gives_each_layer_weights_of_its_own():
    model, skills = with_skills("llama")
    layers = 1 + max(stack.layer for stack in skills.stacks)
    skills.router = Attention(32, layers)
    skills.router.keys = 5 * torch.randn(3, layers, 32)
    model.network(**inputs(model))
    assert skills.mixture.weights.shape == (2, layers, 3)
    assert not torch.allclose(skills.mixture.of(2, 0), skills.mixture.of(2, 1))


def test_a_pool_gives_the_prompts_whose_keys_are_nearest():
    pool_ = Pool(6, 8)
    pooled = torch.randn(4, 2, 8)
    weights = pool_(pooled)
    assert weights.sum(1).tolist() == [TAKEN] * 4
    cosines = torch.nn.functional.cosine_similarity(pooled[:, 1][:, None], pool_.keys[None], dim=2)
    for row, likeness in zip(weights, cosines, strict=True):
        assert likeness[row.bool()].min() >= likeness[~row.bool()].max()


# ---- metrics


def test_metrics_of_the_worked_example():
    matrix = [[80.0], [60.0, 70.0], [50.0, 65.0, 90.0]]
    assert metrics.average_performance(matrix) == pytest.approx(68.3333, abs=1e-4)
    assert metrics.forgetting_rate(matrix) == 17.5
    assert metrics.backward_transfer(matrix) == -17.5
    assert metrics.forward_transfer(matrix, [78.0, 72.0, 85.0]) == pytest.approx(1.6667, abs=1e-4)
    assert metrics.zero_shot_transfer([9.0, 12.0, 30.0], [9.0, 10.0, 20.0]) == 6.0


def test_metrics_of_what_was_not_measured():
    assert metrics.average_performance([[None], [50.0, None]]) is None
    assert metrics.forgetting_rate([[80.0]]) is None
    assert metrics.average_performance([[80.0]]) == 80.0
    assert metrics.forgetting_rate([[40.0], [50.0, 60.0], [45.0, 60.0, 70.0]]) == 2.5


def test_the_folder_of_a_block_says_what_peft_asks(tmp_path):
    _, skills = with_skills("gpt2")
    write_block(skills, 0, tmp_path / "block")
    said = json.loads((tmp_path / "block" / "adapter_config.json").read_text())
    assert said["fan_in_fan_out"] is True and said["r"] == 3 and said["lora_alpha"] == 6.0


# ---- the frozen trunk


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_stored_states_give_the_networks_own_logits_and_are_found_again(dtype: str, tmp_path):
    from intarsia.adaptation.trunk import Trunk

    model, skills = with_skills("llama", first=2)
    rows = [[5, 6, 7, 8], [9, 10], [11, 12, 13, 14, 15, 16]]
    with skills.using("task 1"), torch.no_grad():
        whole = [model.network(torch.tensor([row])).logits[0, -2:] for row in rows]
        first = Trunk(model, 2, dtype, tmp_path)
        first.fill(rows[:2])
        second = Trunk(model, 2, dtype, tmp_path)  # another run beside it
        second.fill(rows)
        size = next(tmp_path.glob("*.bin")).stat().st_size
        first.fill(rows)
        assert next(tmp_path.glob("*.bin")).stat().st_size == size == 12 * 32 * (4 if dtype == "float32" else 2)
        for trunk in (first, second):
            found = trunk.logits(rows, 2)
            for row, wanted in zip(found, whole, strict=True):
                torch.testing.assert_close(row, wanted, atol=1e-5 if dtype == "float32" else 2e-2, rtol=1e-3)
            trunk.close()
    other = tiny("llama", seed=1)
    Trunk(other, 2, dtype, tmp_path).fill(rows[:1])
    assert len(list(tmp_path.glob("*.bin"))) == 2


@pytest.mark.parametrize("family", ["llama", "gpt2", "neox", "granite"])
def test_what_all_rows_begin_with_is_run_once_and_changes_nothing(family: str):
    from intarsia.adaptation.continual.reading import Reader
    from intarsia.adaptation.continual.rows import Row
    from intarsia.adaptation.trunk import Trunk

    model, skills = with_skills(family, 2, first=2)
    model.network.requires_grad_(False)
    parameters = skills.open(1)
    start = tuple(range(20, 40))
    rows = [
        Row("", start + tuple(range(40, 40 + more)), tuple(range(60, 60 + answer)), ())
        for more, answer in ((3, 2), (7, 1), (1, 3))
    ]
    found = []
    for shared in (True, False):
        reader = Reader(model, skills, Trunk(model, 2, "float32"))
        reader.prepare(rows)
        if not shared:
            reader._shared = lambda *_: 0
        weights = torch.tensor([[0.4, 0.6]] * 3, requires_grad=True)
        assert reader._shared(rows, weights) == (20 if shared else 0)
        loss = reader.loss(rows, weights)
        found.append((loss, torch.autograd.grad(loss, [*parameters, weights])))
    torch.testing.assert_close(found[0][0], found[1][0])
    for one, other in zip(found[0][1][:-1], found[1][1][:-1], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    # The shared part's share of the gradient lies in the first row alone.
    torch.testing.assert_close(found[0][1][-1].sum(0), found[1][1][-1].sum(0), rtol=1e-4, atol=1e-6)
    assert reader.trunk is not None
    uneven = torch.tensor([[0.4, 0.6], [0.4, 0.6], [0.5, 0.5]])
    assert Reader(model, skills, Trunk(model, 2, "float32"))._shared(rows, uneven) == 0
    gemma = tiny("gemma3")
    assert not Trunk(gemma, 2, "float32").shares  # some of its blocks see a window only
