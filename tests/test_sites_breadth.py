"""Many more architectures: each gets its map, and everything the engine does to them is exact."""

from functools import cache

import pytest
import torch

from intarsia.errors import BadInput
from intarsia.sites import Replace, Scale, batch_of, generate, read, resume, run, sweep, unembed
from intarsia.sites.inputs import takes
from intarsia.sites.tape import recording
from tests import tiny_more
from tests.sites_help import attention_names, hooks, output, writable
from tests.tiny_more import CAUSAL, FAMILIES, more

NO_BLOCKS = {"xlnet": r"given \[5, 2, 32\]", "albert": "runs 3 times a forward"}
WORKING = [f for f in FAMILIES if f not in NO_BLOCKS]
PARALLEL = ["gptj", "codegen", "falcon", "phi", "stablelm-parallel", "cohere"]
POST_NORM = ["roberta", "distilbert", "electra", "deberta-v2", "mpnet", "bart"]
FORMS = {
    **{f: {"pre-norm"} for f in WORKING},
    **{f: {"parallel"} for f in PARALLEL},
    **{f: {"post-norm"} for f in POST_NORM},
    "blip-2": {"pre-norm", "post-norm"},
    "qwen2_vl": {"pre-norm", "unknown"},  # its vision tower works on [patch, width]
    "rwkv": {"pre-norm", "unknown"},  # a norm of its own before the first block
}
RECURRENT = ["mamba", "mamba2", "falcon_mamba", "recurrent_gemma", "jamba", "bamba", "lfm2", "rwkv", "qwen3_next"]

model_of = cache(more)


@cache
def base_of(family):
    """The bare network's output, without the cache as the engine runs it (a cache changes how keys lie in memory)."""
    network, x = model_of(family).network, tiny_more.inputs(family)
    with torch.no_grad():
        return output(network(**x, **({"use_cache": False} if takes(network, "use_cache") else {})))


@pytest.mark.parametrize("family", WORKING)
def test_every_architecture_gets_its_map(family):
    sites = model_of(family).sites
    assert {w.form for blocks in sites.wiring.values() for w in blocks} == FORMS[family]
    last = f"{sites.main.prefix}layers.{len(sites.blocks) - 1}"
    assert {f"{last}.resid_post", f"{last}.attn_out"} <= set(sites)
    assert sites.note == "" or family == "qwen2_vl"


@pytest.mark.parametrize("family", WORKING)
def test_reading_and_writing_back_every_site_is_exact(family):
    model, x = model_of(family), tiny_more.inputs(family)
    sites, base, names = model.sites, base_of(family), attention_names(model.network)
    more_kwargs = {"use_cache": False} if takes(model.network, "use_cache") else {}
    with torch.no_grad(), recording(sites, batch_of(model, x), list(sites)) as tape:
        assert torch.equal(output(model.network(**x, **more_kwargs)), base)
    assert set(tape.read) == set(sites)
    assert {t.shape[0] for t in tape.read.values()} == {2}
    acts = read(model, x, writable(sites))
    for site in acts:
        if any(site.endswith(s) for s in ("resid_mid", "mlp_out", "z")):  # those that differ most between architectures
            assert torch.equal(output(run(model, x, [Replace(site, value=acts[site])])), base), site
    assert torch.equal(output(run(model, x, [Replace(site, value=acts[site]) for site in acts])), base)
    assert attention_names(model.network) == names and hooks(model.network) == 0


@pytest.mark.parametrize("family", WORKING)
def test_attention_and_mlp_sum_to_what_the_stream_gained(family):
    model, x = model_of(family), tiny_more.inputs(family)
    for name, tower in model.sites.towers.items():
        for i, wiring in enumerate(model.sites.wiring[name]):
            if wiring.form not in ("pre-norm", "parallel"):
                continue
            kept = [s for s in ("resid_pre", "attn_out", "cross_out", "mlp_out", "resid_post") if s in wiring.taps]
            acts = read(model, x, [f"{tower.prefix}layers.{i}.{s}" for s in kept])
            parts = [acts[f"{tower.prefix}layers.{i}.{s}"] for s in kept]
            torch.testing.assert_close(sum(parts[:-1]), parts[-1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", WORKING)
def test_resuming_is_exact_at_every_block(family):
    model, x = model_of(family), tiny_more.inputs(family)
    for tower in model.sites.towers.values():
        for i in range(len(tower.blocks)):
            site = f"{tower.prefix}layers.{i}"
            if f"{site}.resid_post" in model.sites:
                got = resume(model, read(model, x, f"{site}.resid_post"), after=site)
                assert torch.equal(output(got), base_of(family)), site
    main = model.sites.main
    if main.head_root is not None:
        last = f"{main.prefix}layers.{len(main.blocks) - 1}.resid_post"
        with torch.no_grad():
            logits = unembed(model, read(model, x, last)[last])
        torch.testing.assert_close(logits, base_of(family), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", CAUSAL)
@pytest.mark.parametrize("at", [1, -1])
def test_generation_under_an_edit_equals_decoding_by_hand(family, at):
    model = model_of(family)
    model.network.generation_config.eos_token_id = None
    ids = tiny_more.inputs(family)["input_ids"][:1]
    edits = [Replace("layers.1.resid_post", at=at % ids.shape[1], value=torch.linspace(-3, 3, 32))]
    grown = ids
    for _ in range(4):
        grown = torch.cat([grown, run(model, grown, edits).logits[:, -1].argmax(-1)[:, None]], dim=1)
    assert torch.equal(generate(model, ids, edits, max_new_tokens=4).ids, grown[:, ids.shape[1] :])


@pytest.mark.parametrize("family", CAUSAL)
def test_a_padded_row_equals_the_row_alone(family):
    model = model_of(family)
    edits = [Replace("layers.1.resid_post", at=0, value=torch.ones(32)), Scale("layers.2.attn_out", at=-1, factor=0.3)]
    # the recurrence of these two takes padding in like any token, in the bare network too
    for side in ("right",) if family in ("rwkv", "recurrent_gemma") else ("left", "right"):
        both = read(model, ["ab", "abcdefgh"], ["layers.2.resid_post", "logits"], side=side, edits=edits)
        alone = read(model, ["ab"], ["layers.2.resid_post", "logits"], edits=edits)
        for site in alone:
            torch.testing.assert_close(both[site][0][both.mask[0]], alone[site][0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", CAUSAL)
def test_a_sweep_equals_one_by_one(family):
    model = model_of(family)
    model.network.generation_config.eos_token_id = None
    target = torch.randint(10, 260, (1, 9), generator=torch.Generator().manual_seed(2))
    source, new = target[:, :5] + 3, 0 if family in RECURRENT else 3
    acts = read(model, source, "layers.*.resid_post")
    for at in (6, -1):
        got = sweep(model, source, target, target_at=at, keep_logits=True, max_new_tokens=new)
        for low, high in ((0, 1), (2, 0), (1, 2)):
            edits = [Replace(f"layers.{high}.resid_post", at=at, value=acts[f"layers.{low}.resid_post"][0, -1])]
            logits = run(model, target, edits).logits[0, -1]
            torch.testing.assert_close(got.logits[0, low, high], logits, atol=1e-4, rtol=1e-4)
            if new:
                assert torch.equal(got.ids[0, low, high], generate(model, target, edits, max_new_tokens=new).ids[0])


@pytest.mark.parametrize("family", ["mamba", "jamba", "recurrent_gemma"])
def test_sweeps_say_when_they_cannot_generate(family):
    with pytest.raises(BadInput, match="only the next token"):
        sweep(model_of(family), torch.tensor([[20, 30]]), torch.tensor([[40, 50]]), max_new_tokens=3)


@pytest.mark.parametrize("family", NO_BLOCKS)
def test_what_cannot_be_mapped_says_why(family):
    model, x = model_of(family), tiny_more.inputs(family)
    for task in (lambda: read(model, x, "layers.0.resid_post"), lambda: unembed(model, torch.zeros(1, 32))):
        with pytest.raises(BadInput, match=NO_BLOCKS[family]):
            task()
    logits = run(model, x, [Scale("logits", factor=2.0)]).logits
    mask = x["attention_mask"].bool()
    assert torch.equal(logits[mask], 2 * base_of(family)[mask])


def test_a_tower_without_a_batch_axis_says_so():
    with pytest.raises(BadInput, match=r"does not work on \[batch, token, width\]"):
        read(model_of("qwen2_vl"), tiny_more.inputs("qwen2_vl"), "vision.layers.0.resid_post")
