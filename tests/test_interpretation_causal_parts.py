"""Direct logit attribution, path patching, circuits and patch-back against naive formulas."""

from __future__ import annotations

import copy

import pytest
import torch

from intarsia.errors import BadInput
from intarsia.interpretation import circuit, direct_logit_attribution, patch_back, path_patching
from intarsia.interpretation.causal.contrast import contrast
from intarsia.interpretation.causal.edges import scores
from intarsia.interpretation.causal.graph import Graph
from intarsia.measure import LabelTask
from intarsia.report import Finding
from intarsia.sites import Replace, read, run
from tests.sites_help import hooks
from tests.tiny import tiny
from tests.tiny_more import more

CLEAN, CORRUPT = "Mary gave it to John", "Mark gave it to John"
PAIR = {"prompt": CLEAN, "corrupt": CORRUPT, "answer": "a", "foil": "b"}
TEXTS = ["Water boils at 100 degrees.", "The Nile", "flows"]


def ids_of(model, *words: str) -> list[int]:
    return [model.tokenizer(w, add_special_tokens=False)["input_ids"][0] for w in words]


def value(model, text: str, edits=()) -> float:
    logits = run(model, [text], edits).logits[0, -1].double()
    a, b = ids_of(model, "a", "b")
    return float(logits[a] - logits[b])


# ---- direct logit attribution


@pytest.mark.parametrize(
    "family", ["llama", "gpt2", "gemma3", "neox", "granite", "mixtral", "gemma2", "opt", "cohere", "olmo2", "bloom"]
)
def test_contributions_sum_to_the_logit(family: str) -> None:
    model = tiny(family) if family in ("llama", "gpt2", "gemma3", "neox", "granite", "mixtral") else more(family)
    found = direct_logit_attribution(model, prompt=CLEAN, answer="a")
    (a,) = ids_of(model, "a")
    logit = float(run(model, [CLEAN]).logits[0, -1, a])
    total = sum(part.value for part in found.parts)
    if found.capped:
        cap = model.config.final_logit_softcapping
        total = cap * torch.tanh(torch.tensor(total / cap)).item()
    assert total == pytest.approx(logit, abs=2e-4)
    attention = found.of_kind("attention")
    assert found.heads is not None and len(found.heads) == len(attention)
    for part, row, bias in zip(attention, found.heads, found.biases, strict=True):
        assert sum(row) + bias == pytest.approx(part.value, abs=2e-4)
    assert hooks(model.network) == 0


def test_each_contribution_is_the_direct_formula() -> None:
    """GPT-2 written out: LayerNorm with its scale held, biases in the constants."""
    model = tiny("gpt2", dtype=torch.float64)
    found = direct_logit_attribution(model, prompt=CLEAN, answer="a", foil="b", neurons=192)
    a, b = ids_of(model, "a", "b")
    network, sites = model.network, [f"layers.{i}.{k}" for i in range(4) for k in ("z", "mlp_act")]
    acts = read(model, [CLEAN], ["embed", "layers.3.resid_post", *sites])
    norm, final = network.transformer.ln_f, acts["layers.3.resid_post"][0, -1]
    row = network.lm_head.weight[a] - network.lm_head.weight[b]
    scale = torch.sqrt(final.var(unbiased=False) + norm.eps)

    @torch.no_grad()
    def share(x: torch.Tensor) -> float:
        return float(((x - x.mean()) / scale * norm.weight) @ row)

    assert found.of_kind("embed")[0].value == pytest.approx(share(acts["embed"][0, -1]), abs=1e-9)
    assert found.of_kind("constant")[0].value == pytest.approx(float((norm.bias @ row).detach()), abs=1e-9)
    for layer in range(4):
        block = network.transformer.h[layer]
        z, neurons = acts[f"layers.{layer}.z"][0, -1], acts[f"layers.{layer}.mlp_act"][0, -1]
        for head in range(4):
            weight = block.attn.c_proj.weight[head * 8 : head * 8 + 8]
            assert found.heads[layer][head] == pytest.approx(share(z[head] @ weight), abs=1e-9)
        listed = {n: v for at, n, v, _ in found.neurons if at == layer}
        for number, contribution in list(listed.items())[:5]:
            wanted = share(neurons[number] * block.mlp.c_proj.weight[number])
            assert contribution == pytest.approx(wanted, abs=1e-9)
    assert abs(found.error) < 1e-9


def test_no_sum_where_the_stream_is_normed_between_blocks() -> None:
    model = tiny("bert")
    with pytest.raises(BadInput, match="norms its stream"):
        direct_logit_attribution(model, prompt=CLEAN)


# ---- path patching


def path_by_definition(model, layer: int, head: int, receivers, frozen: bool) -> float:
    """Three runs with everything replaced by hand: freeze and send, read at the receivers, and let the rest follow."""
    every = [f"layers.{i}.{k}" for i in range(4) for k in ("z", "attn_out", "mlp_out")]
    clean, corrupt = (read(model, [text], every) for text in (CLEAN, CORRUPT))
    edits = [Replace(f"layers.{layer}.z", value=corrupt[f"layers.{layer}.z"], heads=head)]
    edits += [Replace(f"layers.{i}.attn_out", value=clean[f"layers.{i}.attn_out"]) for i in range(layer + 1, 4)]
    if frozen:
        edits += [Replace(f"layers.{i}.mlp_out", value=clean[f"layers.{i}.mlp_out"]) for i in range(layer, 4)]
    if receivers == ["logits"]:
        return value(model, CLEAN, edits)
    held = []
    for end, own, kind in receivers:
        sent = [e for e in edits if int(e.site.split(".")[1]) < end]
        new = read(model, [CLEAN], f"layers.{end}.{kind}", edits=sent)[f"layers.{end}.{kind}"]
        held.append(Replace(f"layers.{end}.{kind}", value=new, heads=own))
    return value(model, CLEAN, held)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3"])
@pytest.mark.parametrize("frozen", [True, False])
def test_path_patching_is_its_definition(family: str, frozen: bool) -> None:
    model = tiny(family, dtype=torch.float64)
    mlps = "frozen" if frozen else "recomputed"
    ends = value(model, CLEAN), value(model, CORRUPT)
    direct = path_patching(model, **PAIR, mlps=mlps, batch_size=3).maps[0].effect
    keys = 0 if family == "llama" else 1  # llama: two key-value heads for four heads
    through = path_patching(model, **PAIR, receivers=["3.1.q", "2.1.v"], mlps=mlps).maps[0].effect
    for layer, head in ((0, 1), (1, 3), (2, 2)):
        wanted = path_by_definition(model, layer, head, ["logits"], frozen)
        assert direct[layer][head] == pytest.approx((wanted - ends[0]) / (ends[1] - ends[0]), abs=1e-5)
    own = keys if family != "gemma3" else 0  # gemma3 has two as well
    for layer, head in ((0, 1), (1, 3)):
        wanted = path_by_definition(model, layer, head, [(3, 1, "q"), (2, own, "v")], frozen)
        assert through[layer][head] == pytest.approx((wanted - ends[0]) / (ends[1] - ends[0]), abs=1e-5)


def test_paths_to_logits_and_heads_together_add_the_direct_one() -> None:
    model = tiny("gpt2", dtype=torch.float64)
    found = path_patching(model, **PAIR, receivers=["logits", "3.0.k"]).maps[0].effect
    every = [f"layers.{i}.{k}" for i in range(4) for k in ("z", "attn_out", "mlp_out")]
    clean, corrupt = (read(model, [text], every) for text in (CLEAN, CORRUPT))
    edits = [Replace("layers.0.z", value=corrupt["layers.0.z"], heads=2)]
    edits += [Replace(f"layers.{i}.mlp_out", value=clean[f"layers.{i}.mlp_out"]) for i in range(4)]
    edits += [Replace(f"layers.{i}.attn_out", value=clean[f"layers.{i}.attn_out"]) for i in range(1, 4)]
    direct = read(model, [CLEAN], "layers.3.resid_post", edits=edits)["layers.3.resid_post"]
    key = read(model, [CLEAN], "layers.3.k", edits=edits)["layers.3.k"]
    end = "layers.3.resid_post"
    through = read(model, [CLEAN], end, edits=[Replace("layers.3.k", value=key, heads=0)])[end]
    both = through + direct - read(model, [CLEAN], end)[end]
    ends = value(model, CLEAN), value(model, CORRUPT)
    wanted = (value(model, CLEAN, [Replace(end, value=both)]) - ends[0]) / (ends[1] - ends[0])
    assert found[0][2] == pytest.approx(wanted, abs=1e-7)


def test_receivers_that_do_not_exist() -> None:
    model = tiny("llama")
    for text, error in (("head 3", "wants logits"), ("9.0.q", "layer 9"), ("2.8.q", "head 8"), ("0.1.q", "no layer")):
        with pytest.raises(BadInput, match=error):
            path_patching(model, **PAIR, receivers=[text])


# ---- circuits


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3", "neox"])
def test_a_circuit_of_all_edges_is_the_network_and_of_none_the_corrupt_run(family: str) -> None:
    model = tiny(family, dtype=torch.float64)
    graph = Graph(contrast(model, "test", CLEAN, CORRUPT, answer="a", foil="b"), "test")
    assert graph.metric_of(graph.allowed) == pytest.approx(value(model, CLEAN), abs=1e-5)
    assert graph.metric_of(torch.zeros_like(graph.allowed)) == pytest.approx(value(model, CORRUPT), abs=1e-5)
    heads = 1 if family == "gemma3" else 4  # a norm behind attention: heads do not add up
    assert len(graph.nodes) == 2 + 4 * (heads + 1)


def test_edge_effects_are_the_slope_of_the_edge() -> None:
    """A hundredth of the difference sent along one edge moves the metric by a hundredth of its effect."""
    model = tiny("gpt2", dtype=torch.float64)
    made = contrast(model, "test", CLEAN, CORRUPT, answer="a", foil="b")
    graph = Graph(made, "test")
    differences = graph.differences()
    found = scores(differences, graph.slopes(), graph.allowed)
    name = {node.name: i for i, node in enumerate(graph.nodes)}
    for source, target in (
        ("embedding", "head 1.2"),
        ("head 0.1", "MLP 0"),
        ("MLP 1", "head 3.0"),
        ("head 2.3", "logits"),
    ):
        s, t = name[source], name[target] - 1
        assert graph.allowed[s, t]
        moved = [graph.metric_without(s, t, size * differences[s]) for size in (1e-3, -1e-3)]
        assert float(found[s, t]) == pytest.approx((moved[0] - moved[1]) / 2e-3, rel=1e-4, abs=1e-7), (source, target)
    assert not graph.allowed[name["MLP 1"], name["head 1.0"] - 1]


def test_one_edge_is_measured_as_its_definition() -> None:
    """MLP 0 -> head 2.1 corrupt: the head's input is changed by hand, everything above follows."""
    model = tiny("llama", dtype=torch.float64)
    graph = Graph(contrast(model, "test", CLEAN, CORRUPT, answer="a", foil="b"), "test")
    name = {node.name: i for i, node in enumerate(graph.nodes)}
    source, target = name["MLP 0"], name["head 2.1"] - 1
    a, b = (read(model, [text], "layers.0.mlp_out")["layers.0.mlp_out"] for text in (CLEAN, CORRUPT))
    stream = read(model, [CLEAN], "layers.2.resid_pre")["layers.2.resid_pre"] + (b - a)
    z = read(model, [CLEAN], "layers.2.z", edits=[Replace("layers.2.resid_pre", value=stream)])["layers.2.z"]
    wanted = value(model, CLEAN, [Replace("layers.2.z", value=z, heads=1)])
    assert graph.metric_without(source, target, graph.differences()[source]) == pytest.approx(wanted, abs=1e-6)


def test_circuit_ranks_prunes_and_checks() -> None:
    found = circuit(tiny("llama"), **PAIR, sizes=[10, 100, 10_000], check=12)
    assert found.whole == pytest.approx(1, abs=1e-3)
    sizes = [c.edges for c in found.circuits]
    assert sizes == [10, 100, found.total]
    assert found.circuits[-1].faithfulness == pytest.approx(1, abs=1e-3)
    assert found.circuits[-1].without == pytest.approx(0, abs=1e-3)
    assert found.circuits[0].connected <= 10
    effects = [abs(e.effect) for e in found.edges[:30]]
    assert effects == sorted(effects, reverse=True)
    assert sum(e.measured is not None for e in found.edges) == 12
    assert Finding.from_json(found.to_json()) == found
    assert "→" in str(found)
    with pytest.raises(BadInput, match="norm the stream"):
        bert = tiny("bert")
        bert.tokenizer.add_special_tokens({"mask_token": "<mask>"})
        circuit(bert, prompt="Mary <mask>", corrupt="Mark <mask>")


# ---- patch-back


def changed(family: str, words: tuple[str, ...], seed: int = 5):
    """A tiny model, and the same with noise on the weights whose names hold one of the words."""
    original, other = tiny(family), tiny(family)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in other.network.named_parameters():
            if any(word in name for word in words):
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return original, other


def swapped(host, guest, words: tuple[str, ...]):
    """The host with the guest's weights where the name holds one of the words."""
    mixed = host.with_network(copy.deepcopy(host.network))
    state = guest.network.state_dict()
    mixed.network.load_state_dict(
        {n: state[n] if any(w in n for w in words) else v for n, v in host.network.state_dict().items()}
    )
    return mixed


def mean_kl(one, other) -> float:
    values = []
    for text in TEXTS:
        p, q = (run(m, [text]).logits[0, 1:].double().log_softmax(-1) for m in (one, other))
        values.append((p.exp() * (p - q)).sum(-1))
    return float(torch.cat(values).mean())


PARTS = {
    "llama": {
        "attention 1": ("layers.1.self_attn", "layers.1.input_layernorm"),
        "MLP 2": ("layers.2.mlp", "layers.2.post_attention_layernorm"),
        "whole block 2": ("layers.2.",),
        "embedding": ("embed_tokens",),
        "head": ("lm_head", "model.norm"),
    },
    "gpt2": {"attention 1": ("h.1.attn", "h.1.ln_1"), "MLP 2": ("h.2.mlp", "h.2.ln_2"), "whole block 0": ("h.0.",)},
    "gemma3": {
        "attention 1": ("layers.1.self_attn", "layers.1.input_layernorm", "layers.1.post_attention_layernorm"),
        "MLP 3": ("layers.3.mlp", "layers.3.pre_feedforward", "layers.3.post_feedforward"),
    },
    "neox": {"whole block 2": ("layers.2.",), "head": ("embed_out", "final_layer_norm")},
}


@pytest.mark.parametrize("family", list(PARTS))
def test_putting_weights_back_is_swapping_them(family: str) -> None:
    touched = tuple(word for words in PARTS[family].values() for word in words)
    original, other = changed(family, touched)
    found = patch_back(other, against=original, texts=TEXTS, batch_size=2)
    whole = mean_kl(original, other)
    assert found.changed.kl == pytest.approx(whole, rel=1e-4)
    assert found.original.kl == 0 and found.positions == sum(len(t) - 1 for t in TEXTS)
    named = {part.name: part for part in found.parts}
    for name, words in PARTS[family].items():
        back, over = swapped(other, original, words), swapped(original, other, words)
        assert named[name].restored.kl == pytest.approx(mean_kl(original, back), rel=1e-3, abs=1e-6), name
        assert named[name].undone == pytest.approx(1 - mean_kl(original, back) / whole, abs=1e-3), name
        carried = 1 - mean_kl(other, over) / mean_kl(other, original)
        assert named[name].carried == pytest.approx(carried, abs=1e-3), name
    assert hooks(other.network) == hooks(original.network) == 0


def test_putting_activations_back_is_writing_them() -> None:
    original, other = changed("llama", ("layers.1.", "layers.2.mlp"))
    found = patch_back(other, against=original, texts=TEXTS[:1], by="activations", parts=["mlp"], reverse=False)
    named = {part.name: part for part in found.parts}
    p = run(original, TEXTS[:1]).logits[0, 1:].double().log_softmax(-1)
    for name, site in (("MLP 1", "layers.1.mlp_out"), ("all up to here 1", "layers.1.resid_post")):
        edit = Replace(site, value=read(original, TEXTS[:1], site)[site])
        q = run(other, TEXTS[:1], [edit]).logits[0, 1:].double().log_softmax(-1)
        assert named[name].restored.kl == pytest.approx(float((p.exp() * (p - q)).sum(-1).mean()), rel=1e-3, abs=1e-7)
        assert named[name].carried is None
    assert named["all up to here 3"].undone == pytest.approx(1, abs=1e-4)
    assert all(part.part != "stream" for part in found.ranked())


def test_the_label_counts_where_texts_are_labelled_prompts() -> None:
    from intarsia.data import LabelledText

    original, other = changed("llama", ("layers.2.",))
    task = LabelTask.parse({"template": "{text}\nLabel:", "verbalisers": {"yes": " yes", "no": " no"}})
    task.attach(other)
    records = [LabelledText("Water boils", "yes"), LabelledText("Ice", "no")]
    found = patch_back(other, against=original, texts=records)
    wanted = []
    for record in records:
        prompt = task.render(record.text)
        words = task.verbalisers[record.label]
        ids = other.tokenizer([prompt + words], return_tensors="pt")["input_ids"]
        log_p = run(other, ids).logits[0].double().log_softmax(-1)
        wanted.append(sum(float(log_p[t - 1, ids[0, t]]) for t in range(len(prompt), len(prompt + words))))
    assert found.labelled and found.changed.label == pytest.approx(sum(wanted) / 2, abs=1e-4)
    best = found.ranked()[0]
    assert best.name == "whole block 2" and best.undone == pytest.approx(1, abs=1e-3)
    assert "whole block 2" in found.summary and found.table().rows[-1][1] == 1.0


def test_patch_back_refuses_what_does_not_fit() -> None:
    model = tiny("llama")
    with pytest.raises(BadInput, match="exactly the same"):
        patch_back(tiny("llama"), against=model, texts=TEXTS)
    with pytest.raises(BadInput, match="same shape"):
        patch_back(more("qwen2"), against=model, texts=TEXTS)
