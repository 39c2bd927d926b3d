"""Corners: generation without a cache, beams, training mode, threads, gradients through attention, nested calls."""

import copy
import threading

import pytest
import torch

from intarsia.models import wrap
from intarsia.sites import Add, Apply, Replace, Scale, generate, read, resume, run, site_map, sweep
from tests.sites_help import attention_names, hooks, output, plain, writable
from tests.tiny import CAUSAL, inputs, tiny
from tests.tiny_more import more


@pytest.mark.parametrize("site", ["layers.1.resid_post", "layers.1.resid_mid", "layers.1.z"])
@pytest.mark.parametrize(("when", "at"), [("prefill", None), ("prefill", -1), ("prefill", 2), ("always", None)])
def test_generation_without_a_cache_edits_the_prompt_at_each_step(site, when, at):
    model, x = tiny("llama"), inputs("llama", side="left")
    model.network.generation_config.eos_token_id = None
    edits = [Scale(site, at=at, factor=3.0, when=when)]
    cached = generate(model, x, edits, max_new_tokens=5).ids
    assert torch.equal(generate(model, x, edits, max_new_tokens=5, use_cache=False).ids, cached)


@pytest.mark.parametrize(("family", "site"), [("mixtral", "router_weights"), ("opt", "mlp_act"), ("llama", "z")])
def test_rows_are_prompts_also_with_beams(family, site):
    model = more(family) if family == "opt" else tiny(family)
    x, settings = inputs("llama", side=None), dict(num_beams=3, max_new_tokens=4)
    edit = Scale(f"layers.1.{site}", rows=[1], at=[0, 2, -1], factor=0.0)
    got = generate(model, x, [edit], **settings).ids
    alone = {key: value[1:] for key, value in x.items()}
    second = generate(model, alone, [Scale(edit.site, at=edit.at, factor=0.0)], **settings).ids[0]
    assert torch.equal(got[0], generate(model, x, **settings).ids[0])
    assert torch.equal(got[1], second)
    assert not torch.equal(second, generate(model, alone, **settings).ids[0])


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt"])
def test_embeddings_as_inputs(family):
    model = more(family) if family == "opt" else tiny(family)
    x = inputs("llama", side="right")
    embeds = model.network.get_input_embeddings()(x["input_ids"]).detach()
    at = ["layers.1.resid_post", "logits"]
    for mask in ({}, {"attention_mask": x["attention_mask"]}):
        ids = {"input_ids": x["input_ids"], **mask}
        want, got = read(model, ids, at), read(model, {"inputs_embeds": embeds, **mask}, at)
        torch.testing.assert_close(got["logits"], want["logits"])
        torch.testing.assert_close(got.last("logits"), want.last("logits"))
        torch.testing.assert_close(resume(model, got, after=1).logits, want["logits"])
        new = generate(
            model, {"inputs_embeds": embeds, **mask}, [Scale("layers.1.resid_post", at=-1)], max_new_tokens=4
        )
        assert torch.equal(new.ids, generate(model, ids, [Scale("layers.1.resid_post", at=-1)], max_new_tokens=4).ids)


@pytest.mark.parametrize("family", [*CAUSAL, "falcon", "bloom", "mpt", "opt", "jamba", "gpt_oss"])
def test_half_precision_has_the_same_map_and_is_exact(family):
    build = tiny if family in CAUSAL else more
    model, x = build(family, dtype=torch.bfloat16), inputs("llama")
    base = plain(model, {**x, "use_cache": False})
    forms = [w.form for w in model.sites.wiring[""]]
    assert forms == [w.form for w in build(family).sites.wiring[""]]
    acts = read(model, x, writable(model.sites))
    assert torch.equal(run(model, x, [Replace(site, value=acts[site]) for site in acts]).logits, base)
    assert torch.equal(resume(model, acts, after=1).logits, base)


def test_training_mode_is_kept_and_dropout_draws_as_it_would():
    model, x = tiny("gpt2"), inputs("gpt2")
    model.network.train()
    model.network.transformer.h[1].eval()
    modes = [module.training for module in model.network.modules()]
    _ = model.sites
    torch.manual_seed(0)
    got = read(model, x, ["layers.2.mlp_out", "logits"])["logits"]
    torch.manual_seed(0)
    with torch.no_grad():
        want = model.network(**x, use_cache=False).logits
    assert torch.equal(got, want)
    assert modes == [module.training for module in model.network.modules()]


@pytest.mark.parametrize("site", ["layers.1.resid_post", "layers.1.pattern", "layers.1.resid_mid"])
def test_reading_within_an_edit(site):
    model, x = tiny("llama"), inputs("llama")
    base, seen = plain(model, x), {}

    def function(tensor):
        seen.update(read(model, x, ["layers.2.pattern", "layers.1.resid_post", "logits"]))
        seen["resumed"] = resume(model, read(model, x, "layers.2.resid_post"), after=2).logits
        return tensor

    acts = read(model, x, "layers.0.resid_post")
    for task in (lambda: run(model, x, [Apply(site, function=function)]),
                 lambda: resume(model, acts, after=0, edits=[Apply(site, function=function)])):  # fmt: skip
        seen.clear()
        assert torch.equal(task().logits, base)
        assert torch.equal(seen["logits"], base) and torch.equal(seen["resumed"], base)
        assert hooks(model.network) == 0


def test_threads_do_not_see_each_other():
    model, at = tiny("llama"), ["layers.1.resid_post", "layers.2.pattern", "logits"]
    given = [inputs("llama", seed=seed, side=None) for seed in range(4)]
    want = [read(model, x, at) for x in given]
    wrong = []

    def work(i):
        for _ in range(5):
            got = read(model, given[i], at)
            resumed = resume(model, got, after=1).logits
            wrong.extend(site for site in at if not torch.equal(got[site], want[i][site]))
            wrong.extend(["resumed"] if not torch.equal(resumed, want[i]["logits"]) else [])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == [] and hooks(model.network) == 0 and not any(t.is_alive() for t in threads)


@pytest.mark.parametrize("name", ["q", "v", "z", "scores", "pattern", "mlp_act", "attn_out", "mlp_out"])
@pytest.mark.parametrize("family", ["llama", "granite", "falcon"])
def test_gradients_at_every_kind_of_site(family, name):
    model = more(family) if family == "falcon" else tiny(family)
    site = f"layers.1.{name}"
    if site not in model.sites:
        assert family == "falcon" and name in ("q", "v", "scores", "pattern")
        return
    ids = inputs("llama", batch=1, side=None)["input_ids"]
    model.network.double()
    acts = read(model, ids, [site, "logits"], grad=True)
    (gradient,) = torch.autograd.grad(acts["logits"][0, -1, 5], acts[site])
    direction = torch.randn(gradient.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    step = 1e-3  # the norms round to single precision in between, so it cannot be smaller
    ends = [
        run(model, ids, [Replace(site, value=acts[site].detach() + sign * step * direction)]).logits[0, -1, 5]
        for sign in (1, -1)
    ]
    measured = (ends[0] - ends[1]) / (2 * step)
    torch.testing.assert_close((gradient * direction).sum(), measured, atol=1e-3, rtol=1e-2)


def test_a_forward_exchanged_by_others_is_put_back():
    model, x = tiny("llama"), inputs("llama")
    block, calls = model.sites.blocks[0], []
    original = block.forward

    def offloaded(*args, **kwargs):
        calls.append(1)
        return original(*args, **kwargs)

    block.forward = offloaded
    acts = read(model, x, "layers.1.resid_post")
    resume(model, acts, after=1)
    assert block.forward is offloaded and len(calls) == 1


@pytest.mark.parametrize("family", ["mistral-window", "gemma2", "gpt_oss"])
@pytest.mark.parametrize("at", [12, 8])
def test_sweeps_whose_prefix_is_longer_than_the_window(family, at):
    model = more(family)
    model.network.generation_config.eos_token_id = None
    target = torch.randint(10, 260, (1, 14), generator=torch.Generator().manual_seed(2))
    source = target[:, :5] + 3
    got = sweep(model, source, target, target_at=at, keep_logits=True, max_new_tokens=5)
    acts = read(model, source, "layers.*.resid_post")
    for low, high in ((0, 1), (2, 0), (1, 2)):
        edits = [Replace(f"layers.{high}.resid_post", at=at, value=acts[f"layers.{low}.resid_post"][0, -1])]
        logits = run(model, target, edits).logits[0, -1]
        torch.testing.assert_close(got.logits[0, low, high], logits, atol=1e-4, rtol=1e-4)
        assert torch.equal(got.ids[0, low, high], generate(model, target, edits, max_new_tokens=5).ids[0])


def test_sampling_leaves_the_state_of_the_random_numbers():
    model, x = tiny("llama"), inputs("llama", side=None)
    before = torch.get_rng_state()
    generate(model, x, do_sample=True, seed=3, max_new_tokens=3)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_deep_copy_gets_a_map_of_its_own():
    model, x = tiny("llama"), inputs("llama")
    first = model.sites
    other = wrap(copy.deepcopy(model.network), model.tokenizer)
    assert other.sites is not first and site_map(model.network) is first
    own = set(other.network.modules())
    assert all(tap.module in own for tap in other.sites.taps.values())
    run(other, x, [Scale("layers.1.pattern", factor=0)])
    assert attention_names(model.network) == attention_names(other.network)
    assert torch.equal(plain(model, x), plain(other, x))


def test_rows_and_last_follow_the_towers_own_mask():
    model, x = tiny("t5"), inputs("t5")
    x |= {"decoder_input_ids": x["input_ids"], "decoder_attention_mask": x["attention_mask"].flip(0)}
    encoder, decoder = "encoder.layers.0.resid_post", "decoder.layers.1.resid_post"
    acts = read(model, x, [encoder, decoder, "logits"])
    assert torch.equal(acts.last(encoder), acts[encoder][[0, 1], [9, 6]])
    assert torch.equal(acts.last(decoder), acts[decoder][[0, 1], [6, 9]])
    assert torch.equal(acts.last("logits"), acts["logits"][[0, 1], [6, 9]])
    for index in (1, [1], slice(1, 2)):
        some = acts.rows(index)
        assert torch.equal(some[decoder], acts[decoder][1:]) and some.mask.shape == (1, 10)
        torch.testing.assert_close(resume(model, some, after="decoder.layers.1").logits, acts["logits"][1:])
    assert acts.to(torch.float64)[decoder].dtype == torch.float64


def test_a_dropout_shared_by_attention_and_mlp_is_no_site():
    model, x = more("phi"), inputs("llama")
    assert len({id(model.sites.tap(f"layers.0.{s}").module) for s in ("attn_out", "mlp_out")}) == 2
    acts = read(model, x, ["layers.0.resid_post", "layers.0.mlp_out"])
    edited = read(model, x, "layers.0.resid_post", edits=[Add("layers.0.mlp_out", value=torch.ones(32))])
    real = acts.mask
    difference = (edited["layers.0.resid_post"] - acts["layers.0.resid_post"])[real]
    torch.testing.assert_close(difference, torch.ones_like(difference), atol=1e-5, rtol=1e-5)


def test_a_block_that_adds_in_place_is_read_as_it_was():
    model, x = more("falcon"), inputs("llama")
    acts = read(model, x, ["layers.1.resid_pre", "layers.1.attn_out", "layers.1.mlp_out", "layers.1.resid_post"])
    pre, attended, added, post = acts.tensors.values()
    torch.testing.assert_close(pre + attended + added, post, atol=1e-5, rtol=1e-5)
    assert torch.equal(output(run(model, x)), plain(model, {**x, "use_cache": False}))
