"""The techniques on a `Model`: pictures in, a changed network out, and the same network in a fresh process."""

import copy
import json
import subprocess
import sys

import pytest
import torch
import transformers as tf
from PIL import Image

import intarsia as ia
from intarsia.compression import (
    distil_filters,
    factorize_filters,
    prune_filters,
    quantize,
    quantize_filters,
    renormalize,
)
from intarsia.compression.convolution import load_network, save_network
from intarsia.compression.convolution.compact import KINDS
from intarsia.compression.convolution.narrowing import prune_network
from intarsia.compression.convolution.networks import all_answers
from intarsia.compression.convolution.quantizing import quantize_network
from intarsia.compression.convolution.substituting import factorize_network
from intarsia.data import ImageText
from intarsia.measure.size import tensor_bytes
from tests.convolution_help import net, noise, resnet
from tests.failing import fails

FRESH = """
import sys, torch, transformers as tf
pixels = torch.load("pixels")
plain = tf.AutoModelForImageClassification.from_pretrained("narrower").eval()
assert not any(name.startswith("intarsia") for name in sys.modules)
import intarsia as ia
with torch.no_grad():
    said = [network(pixels).logits for network in (plain, ia.load("ternary").network)]
torch.save(said, "said")
"""


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    made = []
    for i in range(24):
        path = folder / f"{i}.png"
        Image.effect_noise((16, 16), 40 + 8 * i).convert("RGB").save(path)
        made.append(ImageText(str(path), label=f"LABEL_{i % 10}"))
    return made


@pytest.fixture(scope="module")
def processor():
    size = {"height": 16, "width": 16}
    return tf.ViTImageProcessor(size=size, image_mean=[0.5] * 3, image_std=[0.5] * 3)


def model(processor, layer="basic"):
    return ia.wrap(resnet(layer), processor=processor)


CHANGES = {
    "narrower": lambda m, r: prune_filters(m, train=r, share=0.5, epochs=1),
    "narrower bottlenecks": lambda m, r: prune_filters(m, train=r, share=0.5, scope="global", epochs=0),
    "zeros": lambda m, r: prune_filters(m, train=r, grain="weights", share=0.5, epochs=1),
    "ternary": lambda m, r: quantize_filters(m, train=r, format="ternary", epochs=1),
    "powers": lambda m, r: quantize_filters(m, train=r, format="power", terms=1.5),
    "int4, edges kept": lambda m, r: quantize_filters(m, train=r, format="int4", edges="keep"),
    "tucker": lambda m, r: factorize_filters(m, train=r, kind="tucker", steps=2, epochs=0),
    "fire": lambda m, r: factorize_filters(m, train=r, kind="fire", steps=2, epochs=0),
    "bottleneck": lambda m, r: factorize_filters(m, train=r, kind="bottleneck", steps=2, epochs=0),
    "narrower, then coded": lambda m, r: quantize_filters(
        prune_filters(m, train=r, share=0.3, scope="global", epochs=0), train=r, format="int3"
    ),
}
PLAIN = {"narrower", "zeros"}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_network_is_the_same_when_it_is_loaded(change, records, processor, tmp_path):
    given = model(processor, "bottleneck" if "bottlenecks" in change else "basic")
    before = {n: t.clone() for n, t in given.network.state_dict().items()}
    changed = CHANGES[change](given, records)
    assert all(torch.equal(t, before[n]) for n, t in given.network.state_dict().items())
    changed.save(tmp_path / "model")
    again = ia.load(tmp_path / "model")
    said = json.loads((tmp_path / "model/config.json").read_text())
    assert ("quantization_config" in said) == (change not in PLAIN)
    wanted = all_answers(changed.network, noise(4, 16))
    assert torch.equal(all_answers(again.network, noise(4, 16)), wanted)
    assert not torch.allclose(wanted, all_answers(given.network, noise(4, 16)), atol=1e-3)
    facts = again.extras[again.identity.changes[-1]["technique"]]
    assert facts["after"]["bytes"] == tensor_bytes(changed.network)
    if change != "zeros":
        assert facts["after"]["bytes"] < facts["before"]["bytes"]
    else:
        assert facts["after"]["bytes_at_rest"] < facts["before"]["bytes_at_rest"]


def test_a_fresh_process_loads_them(records, processor, tmp_path):
    """The narrower one with transformers alone."""
    pixels = noise(3, 16)
    torch.save(pixels, tmp_path / "pixels")
    wanted = []
    for change in ("narrower", "ternary"):
        changed = CHANGES[change](model(processor), records)
        changed.save(tmp_path / change)
        wanted.append(all_answers(changed.network, pixels))
    subprocess.run([sys.executable, "-W", "ignore", "-c", FRESH], check=True, cwd=tmp_path)
    for said, want in zip(torch.load(tmp_path / "said"), wanted, strict=True):
        assert torch.allclose(said, want, atol=1e-6)


@pytest.mark.parametrize("kind", ["pruned", "coded", *KINDS])
def test_any_network_is_kept_in_a_folder(kind, tmp_path):
    network, pixels = net(8), noise(20)
    if kind == "pruned":
        changed = prune_network(network, pixels)
    elif kind == "coded":
        changed = copy.deepcopy(network)
        quantize_network(changed, "power", terms=1.3, pixels=pixels)
    else:
        changed, _ = factorize_network(network, pixels, kind, 0.4, steps=1)
        quantize_network(changed, "int4", pixels=pixels)
    save_network(changed, tmp_path / "folder")
    again = load_network(tmp_path / "folder", net(8, seed=3))
    assert torch.equal(all_answers(again, pixels), all_answers(changed, pixels))
    fails(lambda: save_network(changed, tmp_path / "folder"), "is there already")
    fails(lambda: load_network(tmp_path / "none", net(8)), "there is no")
    fails(lambda: load_network(tmp_path / "folder", torch.nn.Sequential()), "has no module")
    save_network(changed, tmp_path / "folder", force=True)


def test_statistics_alone_and_a_teacher_of_another_form(records, processor):
    given = model(processor)
    fresh = renormalize(given, train=records)
    ours, theirs = given.network.state_dict(), fresh.network.state_dict()
    moved = {n for n in ours if not torch.equal(ours[n], theirs[n])}
    assert moved and all("running" in n or "num_batches" in n for n in moved)
    teacher = model(processor, "bottleneck")
    near = distil_filters(given, teacher=teacher, train=records, test=records, epochs=2, batch=8)
    facts = near.extras["compression.distil_filters"]
    assert facts["loss"][1] < facts["loss"][0]
    assert set(facts["after"]) == {"parameters", "bytes", "bytes_at_rest", "macs", "accuracy"}
    assert facts["after"]["macs"] == facts["before"]["macs"] > 10_000


def test_what_cannot_be_done_is_said_first(records, processor, tmp_path):
    given = model(processor)
    fails(lambda: prune_filters(ia.wrap(resnet()), train=records), "no image processor")
    wrong = [ImageText(records[0].image, label="cat")]
    fails(lambda: prune_filters(given, train=wrong), "no label 'cat'")
    blank = [ImageText(r.image) for r in records]
    fails(lambda: prune_filters(given, train=records, test=blank), "have no label")
    fails(lambda: prune_filters(given, train=records, grain="weights", times=3), "times counts for filters")
    coded = quantize_filters(given, train=records, format="int8")
    fails(lambda: prune_filters(coded, train=records), "quantize last")
    fails(lambda: quantize(coded, bits=4), "quantized already")
    fails(lambda: quantize_filters(given, train=records, format="int8", terms=2), "terms belong to")
    assert coded.network.hf_quantizer.is_trainable is False
