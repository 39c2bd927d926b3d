"""Sparse autoencoders: the formulas, the layout on disk, the fit, and what is said about features."""

from __future__ import annotations

import json
import math

import pytest
import torch
from safetensors.torch import load_file, save_file

from intarsia.errors import BadInput, IntarsiaError, Note
from intarsia.interpretation import SAE, fit_sae, sae_features
from intarsia.interpretation.features.fit_sae import FitSAEConfig
from intarsia.interpretation.features.objectives import Trained, loss_of
from intarsia.interpretation.features.training import quality
from intarsia.progress import listening
from intarsia.report import Finding
from intarsia.sites import Replace, read, run
from tests.tiny import tiny

TEXTS = ["The Eiffel Tower is in Paris.", "Water boils at 100 degrees.", "The Nile flows to the sea."]
WIDTH, COUNT = 6, 10
QUICK = {"steps": 60, "batch_states": 16, "k": 4, "expansion": 2}


def weights(*more: str, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"W_enc": (WIDTH, COUNT), "W_dec": (COUNT, WIDTH), "b_dec": (WIDTH,)}
    shapes |= dict.fromkeys(more, (COUNT,))
    return {n: torch.randn(s, generator=generator, dtype=torch.float64) * 0.7 for n, s in shapes.items()}


def features_by_hand(sae: SAE, x: torch.Tensor) -> list[float]:
    """One state, feature by feature."""
    w = {name: value.tolist() for name, value in sae.weights.items()}
    x = [v - (b if sae.centre_input else 0.0) for v, b in zip(x.tolist(), w["b_dec"], strict=True)]
    dots = [sum(x[i] * w["W_enc"][i][f] for i in range(WIDTH)) for f in range(COUNT)]
    norms = [math.sqrt(sum(v * v for v in row)) for row in w["W_dec"]]
    if sae.architecture == "gated":
        return [
            max(dots[f] * math.exp(w["r_mag"][f]) + w["b_mag"][f], 0.0) if dots[f] + w["b_gate"][f] > 0 else 0.0
            for f in range(COUNT)
        ]
    pre = [(d + b) * (n if sae.rescale else 1.0) for d, b, n in zip(dots, w["b_enc"], norms, strict=True)]
    if sae.architecture == "jumprelu":
        return [max(p, 0.0) if p > max(t, 0.0) else 0.0 for p, t in zip(pre, w["threshold"], strict=True)]
    if sae.architecture == "topk":
        kept = sorted(range(COUNT), key=lambda f: -pre[f])[: sae.k]
        return [max(pre[f], 0.0) if f in kept else 0.0 for f in range(COUNT)]
    return [max(p, 0.0) for p in pre]


@pytest.mark.parametrize(
    ("architecture", "more", "settings"),
    [
        ("standard", ("b_enc",), {}),
        ("standard", ("b_enc",), {"centre_input": False}),
        ("jumprelu", ("b_enc", "threshold"), {}),
        ("topk", ("b_enc",), {"k": 3}),
        ("topk", ("b_enc",), {"k": 3, "rescale": True}),
        ("gated", ("b_gate", "b_mag", "r_mag"), {}),
    ],
)
def test_the_forward_is_the_formula_and_the_layout_survives(architecture, more, settings, tmp_path) -> None:
    sae = SAE(weights(*more), architecture, "layers.1.resid_post", **settings)
    x = torch.randn(5, WIDTH, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    back, features = sae.reconstruct(x)
    for row in range(5):
        wanted = features_by_hand(sae, x[row])
        assert features[row].tolist() == pytest.approx(wanted, abs=1e-12)
        decoder = sae.weights["W_dec"] / (sae.weights["W_dec"].norm(dim=-1, keepdim=True) if sae.rescale else 1.0)
        total = [sum(wanted[f] * float(decoder[f, i]) for f in range(COUNT)) for i in range(WIDTH)]
        assert back[row].tolist() == pytest.approx((torch.tensor(total) + sae.weights["b_dec"]).tolist(), abs=1e-6)
    assert torch.equal(sae.encode(x), features) and torch.allclose(sae.decode(features), back)

    sae.save(tmp_path / "sae")
    config = json.loads((tmp_path / "sae" / "cfg.json").read_text())
    assert (config["architecture"], config["d_in"], config["d_sae"]) == (architecture, WIDTH, COUNT)
    assert config["metadata"]["hook_name"] == "blocks.1.hook_resid_post"
    assert set(load_file(tmp_path / "sae" / "sae_weights.safetensors")) == {"W_enc", "W_dec", "b_dec", *more}
    again = SAE.load(tmp_path / "sae")
    assert (again.architecture, again.site, again.k, again.rescale) == (architecture, sae.site, sae.k, sae.rescale)
    assert torch.equal(again.reconstruct(x)[0], back)
    with pytest.raises(BadInput, match="not empty"):
        sae.save(tmp_path / "sae")
    sae.save(tmp_path / "sae", force=True)


def written(folder, config: dict, tensors: dict) -> str:
    folder.mkdir()
    (folder / "cfg.json").write_text(json.dumps(config))
    save_file(tensors, folder / "sae_weights.safetensors")
    return str(folder)


def test_older_and_training_forms_of_the_layout_are_read(tmp_path) -> None:
    x = torch.randn(4, WIDTH, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    base = weights("b_enc")
    topk = {"hook_point": "blocks.3.hook_mlp_out", "activation_fn_str": "topk", "activation_fn_kwargs": {"k": 2}}
    old = SAE.load(written(tmp_path / "old", topk, base))
    assert (old.architecture, old.k, old.site) == ("topk", 2, "layers.3.mlp_out")
    assert ((old.encode(x) > 0).sum(-1) <= 2).all()

    name = {"metadata": {"hook_name": "blocks.0.attn.hook_z"}}
    levels = {**base, "log_threshold": torch.linspace(-2, 0, COUNT, dtype=torch.float64)}
    jump = SAE.load(written(tmp_path / "jump", {**name, "architecture": "jumprelu"}, levels))
    assert jump.site == "layers.0.z" and torch.equal(jump.weights["threshold"], levels["log_threshold"].exp())

    batch = {**base, "topk_threshold": torch.tensor(0.4, dtype=torch.float64)}
    trained = SAE.load(written(tmp_path / "batch", {**name, "architecture": "batchtopk", "k": 2.5}, batch))
    found = trained.encode(x)
    pre = (x - base["b_dec"]) @ base["W_enc"] + base["b_enc"]
    assert torch.equal(found > 0, pre > 0.4) and torch.allclose(found[found > 0], pre[pre > 0.4])

    scaled = {**base, "scaling_factor": torch.full((COUNT,), 1.5, dtype=torch.float64)}
    tuned = SAE.load(written(tmp_path / "tuned", {**name, "finetuning_scaling_factor": True}, scaled))
    plain = SAE(base, "standard", "layers.0.z")
    one, other = (sae.decode(sae.encode(x)) - base["b_dec"] for sae in (tuned, plain))
    assert torch.allclose(one, 1.5 * other)


@pytest.mark.parametrize("normalization", ["layer_norm", "constant_norm_rescale"])
def test_normalization_is_undone(normalization: str) -> None:
    sae = SAE(weights("b_enc"), "standard", "layers.1.resid_post", normalization=normalization)
    x = 3 + 2 * torch.randn(4, WIDTH, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    if normalization == "layer_norm":
        mean, std = x.mean(-1, keepdim=True), x.std(-1, keepdim=True)
        ready, undo = (x - mean) / (std + 1e-5), lambda out: out * std + mean
    else:
        size = math.sqrt(WIDTH) / x.norm(dim=-1, keepdim=True)
        ready, undo = x * size, lambda out: out / size
    plain = SAE(sae.weights, "standard", "layers.1.resid_post")
    assert torch.allclose(sae.encode(x), plain.encode(ready))
    assert torch.allclose(sae.reconstruct(x)[0], undo(plain.reconstruct(ready)[0]))
    with pytest.raises(BadInput, match="normalizes each state"):
        sae.decode(sae.encode(x))


def test_centred_streams_get_their_mean_back() -> None:
    sae = SAE(weights("b_enc"), "standard", "layers.1.resid_post", centred=True)
    x = torch.randn(3, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    plain, mean = SAE(sae.weights, "standard", "layers.1.resid_post"), x.mean(-1, keepdim=True)
    assert torch.allclose(sae.reconstruct(x + 5)[0], plain.reconstruct(x - mean)[0] + mean + 5)


def test_what_cannot_be_read_is_said(tmp_path, monkeypatch) -> None:
    name = {"metadata": {"hook_name": "blocks.0.hook_resid_post"}}
    with pytest.raises(BadInput, match="no SAE there"):
        SAE.load(tmp_path)
    for folder, config, tensors, error in (
        ("a", {**name, "architecture": "transcoder"}, weights("b_enc"), "'transcoder' is not known"),
        ("b", {**name, "architecture": "jumprelu"}, weights("b_enc"), "no tensor 'threshold'"),
        ("c", {"hook_name": "blocks.0.ln1.hook_scale"}, weights("b_enc"), "not known: say where"),
        ("d", {**name, "architecture": "topk"}, weights("b_enc"), "does not say k"),
        ("e", name, {**weights("b_enc"), "W_enc": torch.zeros(3, 3)}, "do not go together"),
        ("f", {**name, "normalize_activations": "odd"}, weights("b_enc"), "normalization 'odd'"),
    ):
        with pytest.raises(BadInput, match=error):
            SAE.load(written(tmp_path / folder, config, tensors))
    with pytest.warns(Note, match="taken as 1"):
        SAE.load(written(tmp_path / "g", {**name, "normalize_activations": True}, weights("b_enc")))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(IntarsiaError, match="from the hub it cannot be had"):
        SAE.load("nobody/nothing-here/layer_1")


@pytest.mark.parametrize("architecture", ["topk", "jumprelu", "standard"])
def test_a_fit_explains_more_than_it_did_and_holds_what_it_promises(architecture: str) -> None:
    model = tiny("llama")
    short = fit_sae(model, train=TEXTS, **{**QUICK, "steps": 1}, architecture=architecture)
    sae = fit_sae(model, train=TEXTS, test=TEXTS[:1], **{**QUICK, "steps": 400}, architecture=architecture)
    assert sae.site == "layers.2.resid_post" and (sae.width, sae.features) == (32, 64)
    states = read(model, TEXTS[:1], sae.site)[sae.site][0, 1:]
    explained, active, dead = quality(sae, states)
    back, features = sae.reconstruct(states)
    spread = ((states - states.mean(0)) ** 2).sum()
    assert explained == pytest.approx(float(1 - ((states - back) ** 2).sum() / spread), abs=1e-5)
    assert active == pytest.approx(float((features > 0).sum(-1).float().mean()))
    assert dead == pytest.approx(float((features == 0).all(0).float().mean()))
    found = sae.finding
    assert (found.explained, found.active, found.dead) == pytest.approx((explained, active, dead), abs=1e-5)
    assert found.held_out and found.states == len(states)
    assert explained > 0.5 > quality(short, states)[0]
    assert torch.allclose(sae.weights["W_dec"].norm(dim=-1), torch.ones(64), atol=1e-5)
    if architecture == "topk":
        assert active <= 4
    if architecture == "jumprelu":
        assert 1.5 < active < 8  # about k


def test_an_interrupted_fit_ends_with_the_same_weights(tmp_path) -> None:
    model = tiny("llama")
    settings = {**QUICK, "buffer_states": 40, "batch_size": 1}  # several buffers
    whole = fit_sae(model, train=TEXTS, **settings, seed=4)

    class Stopped(Exception):
        pass

    def stop(event) -> None:
        if event.task == "training the autoencoder" and event.done >= 30 and not event.finished:
            raise Stopped

    with pytest.raises(Stopped), listening(stop):
        fit_sae(model, train=TEXTS, **settings, seed=4, checkpoint=tmp_path / "state")
    kept = json.loads((tmp_path / "state" / "training.json").read_text())
    assert 0 < kept["step"] < 30
    again = fit_sae(model, train=TEXTS, **settings, seed=4, checkpoint=tmp_path / "state")
    for name, value in whole.weights.items():
        assert torch.equal(again.weights[name], value), name
    assert again.finding.curve == whole.finding.curve
    with pytest.raises(BadInput, match="other settings"):
        fit_sae(model, train=TEXTS, **{**settings, "k": 5}, seed=4, checkpoint=tmp_path / "state")


def test_dead_features_are_brought_back() -> None:
    """Features that can never be among the top k fire again only with the auxiliary loss."""
    generator = torch.Generator().manual_seed(0)
    truth = torch.randn(24, 12, generator=generator)
    codes = torch.rand(4096, 24, generator=generator) * (torch.rand(4096, 24, generator=generator) < 0.1)
    x = codes @ truth
    x = (x - x.mean(0)) / x.std()
    fired = {}
    for revive in (0.0, 0.3):
        settings = FitSAEConfig(k=2, expansion=2, steps=300, dead_after=5, revive=revive, learning_rate=3e-3)
        trained = Trained.start(12, settings, torch.zeros(12), x[:64], seed=0)
        with torch.no_grad():
            trained.weights["b_enc"][:12] = -3.0
        for step in range(300):
            trained.rate(step)
            loss, _ = loss_of(trained, x[torch.randint(4096, (128,), generator=generator)], settings)
            trained.update(loss)
        features = trained.finished("layers.0.resid_post", 1.0, {}).encode(x)
        fired[revive] = int((features[:, :12] > 0).any(0).sum())
    assert fired[0.0] < fired[0.3] and fired[0.3] >= 6, fired


def test_fit_errors() -> None:
    model = tiny("llama")
    for settings, error in (({"layer": 7}, "layer 7"), ({"k": 999}, "k 999 is more")):
        with pytest.raises(BadInput, match=error):
            fit_sae(model, train=TEXTS, **settings)
    with pytest.raises(BadInput, match="no text"):
        fit_sae(model, train=[" "])


@pytest.fixture(scope="module")
def fitted(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("sae") / "sae"
    fit_sae(tiny("llama"), train=TEXTS, **{**QUICK, "steps": 200}).save(path)
    return str(path)


def test_features_are_measured_as_defined(fitted: str) -> None:
    model, sae = tiny("llama"), SAE.load(fitted)
    found = sae_features(model, texts=TEXTS, sae=fitted, most=3, batch_size=2)
    losses, states = torch.zeros(3, dtype=torch.float64), []
    count = 0
    for text in TEXTS:
        ids = model.encode([text])["input_ids"]
        x = read(model, ids, sae.site)[sae.site]
        states.append(x[0, 1:])
        back = sae.reconstruct(x[:, 1:])[0]
        for i, new in enumerate((x[:, 1:], back, torch.zeros_like(back))):
            edit = Replace(sae.site, at=slice(1, None), value=torch.cat([x[:, :1], new], 1)[:, 1:])
            log_p = run(model, ids, [edit]).logits[0, 1:-1].double().log_softmax(-1)
            losses[i] -= log_p.gather(-1, ids[0, 2:, None]).sum()
        count += ids.shape[1] - 2
    whole, with_sae, without = (losses / count).tolist()
    assert (found.loss, found.with_sae, found.without) == pytest.approx((whole, with_sae, without), rel=1e-4)
    assert found.recovered == pytest.approx((without - with_sae) / (without - whole), rel=1e-2)
    explained, active, dead = quality(sae, torch.cat(states))
    assert (found.explained, found.active, found.dead) == pytest.approx((explained, active, dead), abs=1e-5)

    features = sae.encode(torch.cat(states))
    order = features.double().sum(0).argsort(descending=True)[:3].tolist()
    assert [f.number for f in found.features] == order
    top = found.features[0]
    assert top.largest == pytest.approx(float(features[:, top.number].max()), rel=1e-5)
    assert top.density == pytest.approx(float((features[:, top.number] > 0).float().mean()))
    assert [p.active for p in top.places] == pytest.approx(features[:, top.number].topk(4).values.tolist(), rel=1e-5)
    # The tokens shown end with the one at which the feature is most active.
    where = int(features[:, top.number].argmax())
    for text, part in zip(TEXTS, states, strict=True):
        if where < len(part):
            assert "".join(top.places[0].tokens) == text[max(0, where + 1 - 8) : where + 2]
            break
        where -= len(part)


def test_ablation_takes_out_just_that_feature(fitted: str) -> None:
    model, sae = tiny("llama"), SAE.load(fitted)
    found = sae_features(model, texts=TEXTS[:1], sae=fitted, most=1).features[0]
    x = read(model, TEXTS[:1], sae.site)[sae.site]
    features = sae.encode(x)[..., [found.number]]
    new = x - features * sae.weights["W_dec"][found.number]
    edit = Replace(sae.site, at=slice(1, None), value=new[:, 1:])
    p, q = (run(model, TEXTS[:1], e).logits[0].double().log_softmax(-1) for e in ([], [edit]))
    active = features[0, :, 0] > 0
    active[0] = False
    assert found.kl == pytest.approx(float((p.exp() * (p - q)).sum(-1)[active].mean()), rel=1e-3)
    ids = model.encode(TEXTS[:1])["input_ids"][0]
    known = active[:-1].nonzero()[:, 0]
    loss = (p - q)[known, ids[known + 1]].mean()
    assert found.loss == pytest.approx(float(loss), rel=1e-2, abs=1e-5)


def test_words_are_those_the_direction_raises(fitted: str) -> None:
    model, sae = tiny("llama"), SAE.load(fitted)
    found = sae_features(model, texts=TEXTS, sae=fitted, features=[5], ablate=False).features[0]
    gain = model.network.model.norm.weight * sae.weights["W_dec"][5]
    moved = model.network.lm_head.weight @ gain
    name = lambda i: model.tokenizer.decode([i]) if i < len(model.tokenizer) else f"[{i}]"  # noqa: E731
    assert found.up[0] == (name(int(moved.argmax())) or f"[{int(moved.argmax())}]")
    assert found.down[0] == (name(int(moved.argmin())) or f"[{int(moved.argmin())}]")


@pytest.mark.parametrize("family", ["gpt2", "gemma3", "bert"])
def test_features_of_other_families(family: str) -> None:
    found = sae_features(tiny(family), texts=TEXTS, steps=30, most=2)
    assert found.fitted_here and len(found.features) == 2 and (found.recovered is None) == (family == "bert")
    assert Finding.from_json(found.to_json()) == found
    assert f"Feature {found.maps[0][0]}" in str(found)


def test_feature_errors(fitted: str) -> None:
    from tests.tiny_more import more

    with pytest.raises(BadInput, match="feature 64 does not exist"):
        sae_features(tiny("llama"), texts=TEXTS, sae=fitted, features=[64])
    with pytest.raises(BadInput, match="width 32, and states"):
        sae_features(tiny("llama"), texts=TEXTS, sae=fitted, at="layers.1.mlp_act")
    assert sae_features(more("qwen2"), texts=TEXTS, sae=fitted, most=1).count == 64
