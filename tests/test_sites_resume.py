"""Resuming equals the full run; the head on a state is the network's own; sweeps equal the naive runs."""

import pytest
import torch

from intarsia.errors import BadInput
from intarsia.sites import Replace, Scale, generate, read, resume, run, sweep, unembed
from tests.sites_help import hooks, output, plain
from tests.tiny import CAUSAL, FAMILIES, inputs, tiny


@pytest.mark.parametrize("family", FAMILIES)
def test_resume_equals_the_full_run_for_every_layer(family):
    model, x = tiny(family), inputs(family)
    base, sites = plain(model, x), model.sites
    for tower in sites.towers.values():
        for i in range(len(tower.blocks)):
            if family == "llava" and tower.name == "vision" and i == 2:
                continue  # said below
            acts = read(model, x, f"{tower.prefix}layers.{i}.resid_post")
            assert torch.equal(output(resume(model, acts, after=f"{tower.prefix}layers.{i}")), base)
    assert hooks(model.network) == 0 or family == "llava"  # transformers' own capturing hooks


def test_blocks_below_do_not_run():
    model, x = tiny("llama"), inputs("llama")
    acts = read(model, x, "layers.2.resid_post")
    with torch.no_grad():
        for block in model.sites.blocks[:3]:
            for parameter in block.parameters():
                parameter.fill_(float("nan"))
    assert torch.isfinite(resume(model, acts, after=2).logits).all()


def test_resume_from_another_state_rows_and_edits():
    model, x = tiny("qwen3"), inputs("qwen3", batch=3)
    acts = read(model, x, "layers.1.resid_post")
    state = acts["layers.1.resid_post"] * 1.1
    got = resume(model, acts.replace("layers.1.resid_post", state), after="layers.1").logits
    mask = x["attention_mask"].bool()
    want = run(model, x, [Scale("layers.1.resid_post", factor=1.1)]).logits
    torch.testing.assert_close(got[mask], want[mask], atol=1e-5, rtol=1e-4)
    some = resume(model, acts.rows([0, 2]), after="layers.1").logits
    torch.testing.assert_close(some, plain(model, x)[[0, 2]], atol=1e-5, rtol=1e-4)
    edited = resume(model, acts, after="layers.1", edits=[Scale("layers.3.mlp_out", factor=0)]).logits
    assert torch.equal(edited, run(model, x, [Scale("layers.3.mlp_out", factor=0)]).logits)
    assert torch.equal(
        resume(model, acts, after="layers.1", at="layers.3.z")["layers.3.z"], read(model, x, "layers.3.z")["layers.3.z"]
    )
    last = resume(model, acts, after="layers.1", logits_to_keep=1).logits
    assert last.shape[1] == 1


def test_resume_trains_the_blocks_above():
    model, x = tiny("llama"), inputs("llama", side=None)
    acts = read(model, x, "layers.1.resid_post")
    resume(model, acts, after=1, grad=True).logits.square().mean().backward()
    with_gradient = [i for i, b in enumerate(model.sites.blocks) if any(p.grad is not None for p in b.parameters())]
    assert with_gradient == [2, 3]
    full = tiny("llama")
    full.network(**x).logits.square().mean().backward()
    for a, b in zip(model.sites.blocks[3].parameters(), full.sites.blocks[3].parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, atol=1e-6, rtol=1e-4)


def test_resume_says_what_is_missing():
    model, x = tiny("llama"), inputs("llama")
    acts = read(model, x, "layers.1.resid_post")
    with pytest.raises(BadInput, match=r"read 'layers.2.resid_post' first"):
        resume(model, acts, after="layers.2")
    with pytest.raises(BadInput, match="state must be"):
        resume(model, acts, after="layers.1", state=torch.zeros(2, 10, 7))
    with pytest.raises(BadInput, match="does not exist"):
        resume(model, acts, after="layers.8")
    with pytest.raises(BadInput, match=r"resumed after vision.layers.1 at the latest"):
        llava = tiny("llava")
        resume(llava, read(llava, inputs("llava"), "vision.layers.2.resid_post"), after="vision.layers.2")


@pytest.mark.parametrize("family", [*CAUSAL, "bert", "t5", "blip", "llava"])
def test_unembed_is_the_networks_own_head(family):
    model, x = tiny(family), inputs(family)
    main = model.sites.main
    site = f"{main.prefix}layers.{len(main.blocks) - 1}.resid_post"
    with torch.no_grad():
        logits = unembed(model, read(model, x, site)[site])
    torch.testing.assert_close(logits, plain(model, x), atol=1e-5, rtol=1e-4)


def test_unembed_needs_a_head():
    with pytest.raises(BadInput, match="no output embedding"):
        unembed(tiny("clip"), torch.zeros(2, 32))


# ---- sweeps


@pytest.mark.parametrize("family", CAUSAL)
@pytest.mark.parametrize("at", [-1, 3, 0])
def test_a_sweep_equals_one_by_one(family, at):
    model = tiny(family)
    generator = torch.Generator().manual_seed(5)
    sources = torch.randint(10, 260, (2, 7), generator=generator)
    target = torch.randint(10, 260, (1, 9), generator=generator)
    got = sweep(model, sources, target, source_at=2, target_at=at, keep_logits=True, max_new_tokens=3, chunk=13)
    acts = read(model, sources, "layers.*.resid_post")
    for s in range(2):
        for low in range(4):
            for high in range(4):
                edits = [Replace(f"layers.{high}.resid_post", at=at, value=acts[f"layers.{low}.resid_post"][s, 2])]
                logits = run(model, target, edits).logits[0, -1]
                torch.testing.assert_close(got.logits[s, low, high], logits, atol=1e-4, rtol=1e-4)
                ids = generate(model, target, edits, max_new_tokens=3).ids[0]
                assert torch.equal(got.ids[s, low, high][: len(ids)], ids)
    assert torch.equal(got.top, got.logits.argmax(-1))
    assert torch.equal(got.ids[..., 0], got.top)


def test_a_target_of_one_token_and_some_layers():
    model = tiny("llama")
    sources, target = torch.tensor([[20, 30, 40]]), torch.tensor([[50]])
    got = sweep(model, sources, target, source_layers=[1, -1], target_layers=[0, 3], keep_logits=True)
    assert (got.source_layers, got.target_layers) == ([1, 3], [0, 3])
    acts = read(model, sources, "layers.*.resid_post")
    for i, low in enumerate(got.source_layers):
        for j, high in enumerate(got.target_layers):
            edits = [Replace(f"layers.{high}.resid_post", at=0, value=acts[f"layers.{low}.resid_post"][0, -1])]
            torch.testing.assert_close(
                got.logits[0, i, j], run(model, target, edits).logits[0, -1], atol=1e-4, rtol=1e-4
            )


def test_mapping_states_and_another_model():
    model, other = tiny("llama"), tiny("gpt2", seed=3)
    sources, target = torch.tensor([[20, 30, 40], [7 + 20, 8 + 20, 9 + 20]]), torch.tensor([[50, 60]])
    matrix = torch.randn(32, 32, generator=torch.Generator().manual_seed(0)) / 6
    mapping = lambda states, low, high: states @ matrix * (1 + low + 2 * high)  # noqa: E731
    got = sweep(model, sources, target, source_model=other, mapping=mapping, keep_logits=True)
    state = read(other, sources, "layers.2.resid_post")["layers.2.resid_post"][1, -1]
    edits = [Replace("layers.1.resid_post", at=-1, value=mapping(state, 2, 1))]
    torch.testing.assert_close(got.logits[1, 2, 1], run(model, target, edits).logits[0, -1], atol=1e-4, rtol=1e-4)
    given = sweep(model, sources, target, states=torch.zeros(1, 4, 32)).top
    assert given.shape == (1, 4, 4)


def test_order_and_chunks_do_not_matter():
    model = tiny("gemma3")
    sources, target = torch.randint(10, 260, (3, 5)), torch.randint(10, 260, (1, 12))
    whole = sweep(model, sources, target, keep_logits=True, max_new_tokens=4)
    small = sweep(model, sources.flip(0), target, keep_logits=True, max_new_tokens=4, chunk=5)
    torch.testing.assert_close(whole.logits, small.logits.flip(0), atol=1e-4, rtol=1e-4)
    assert torch.equal(whole.ids, small.ids.flip(0))


@pytest.mark.parametrize(
    ("kwargs", "says"),
    [
        ({"target_at": 9}, "outside the target"),
        ({"source_at": 9}, "outside prompt 0"),
        ({"source_layers": [12]}, "does not exist"),
        ({"target_layers": []}, "no target layers"),
        ({"states": torch.zeros(1, 3, 32)}, "states must be"),
        ({"source_at": [1, 2, 3]}, "3 source positions for 1"),
    ],
)
def test_bad_sweeps_say_what_is_wrong(kwargs, says):
    with pytest.raises(BadInput, match=says):
        sweep(tiny("llama"), torch.tensor([[20, 30]]), torch.tensor([[50, 60]]), **kwargs)


def test_a_target_must_generate():
    with pytest.raises(BadInput, match="causal language model"):
        sweep(tiny("bert"), torch.tensor([[20, 30]]), torch.tensor([[50, 60]]))


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3"])
@pytest.mark.parametrize("side", ["right", "left"])
def test_resuming_from_the_embeddings_takes_padded_rows(family, side):
    model, x = tiny(family), inputs(family, side=side)
    acts = read(model, x, "embed")
    assert "embed" in acts and "layers.0.resid_post" not in acts
    after = resume(model, acts, after="embed", state=acts["embed"] * 2).logits
    for row in range(2):
        real = x["attention_mask"][row].bool()
        alone = read(model, x["input_ids"][row, real][None], "embed")
        wanted = resume(model, alone, after="embed", state=alone["embed"] * 2).logits[0]
        torch.testing.assert_close(after[row, real], wanted, rtol=1e-4, atol=1e-4)
