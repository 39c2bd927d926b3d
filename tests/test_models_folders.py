"""Loading plain folders: every family, the right class, and a clear refusal of everything that is not whole."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import transformers as tf

from intarsia.errors import BadInput, IntarsiaError
from intarsia.models import folders, load
from tests.tiny import FAMILIES, inputs, tiny


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("INTARSIA_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def llama(tmp_path_factory) -> Path:
    return tiny("llama").save(tmp_path_factory.mktemp("models") / "llama")


@pytest.fixture
def folder(llama, tmp_path) -> Path:
    """A copy of a whole folder, to be spoiled."""
    return Path(shutil.copytree(llama, tmp_path / "model"))


def logits(network, batch):
    with torch.no_grad():
        output = network(**batch)
    return output[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_comes_back_as_the_same_network(family, tmp_path):
    model = tiny(family)
    path = model.save(tmp_path / "model")
    again = load(path)
    assert type(again.network) is type(model.network)
    assert not again.network.training
    assert torch.equal(logits(again.network, inputs(family)), logits(model.network, inputs(family)))
    assert again.tokenizer.encode("Hé <|end|>") == model.tokenizer.encode("Hé <|end|>")


@pytest.mark.parametrize("family", FAMILIES)
def test_class_is_found_without_the_config_naming_it(family, tmp_path):
    model = tiny(family)
    path = model.save(tmp_path / "model")
    config = json.loads((path / "config.json").read_text())
    del config["architectures"]
    (path / "config.json").write_text(json.dumps(config))
    again = load(path)
    if family in ("blip", "llava"):
        assert isinstance(again.network, type(model.network))
    else:
        assert type(again.network) is type(model.network)


def test_kind_overrides_the_class(tmp_path):
    path = tiny("bert").save(tmp_path / "bert")
    assert isinstance(load(path, kind="encoder").network, tf.BertModel)
    with pytest.raises(BadInput, match=r"did you mean causal"):
        load(path, kind="casual")


def test_encoder_without_pooler_weights_gets_none(tmp_path):
    tf.BertModel(tiny("bert").network.config, add_pooling_layer=False).save_pretrained(tmp_path / "bert")
    assert load(tmp_path / "bert").network.pooler is None


def test_weights_that_would_be_random_are_refused(tmp_path):
    path = tiny("bert-encoder").save(tmp_path / "bert")
    with pytest.raises(BadInput, match=r"lacks \d+ weights of BertForMaskedLM .*random"):
        load(path, kind="masked")


def test_dtype_and_identity(folder):
    assert load(folder).dtype == torch.float32
    assert load(folder, dtype=torch.bfloat16).dtype == torch.bfloat16
    (folder / "intarsia.json").unlink(missing_ok=True)
    identity = load(folder).identity
    assert identity.origin == f"folder:{folder}"
    assert len(identity.sha256) == 64


def test_loading_leaves_transformers_settings_alone(folder):
    from transformers.utils import logging

    before = logging.get_verbosity(), logging.is_progress_bar_enabled(), torch.get_default_dtype()
    load(folder)
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled(), torch.get_default_dtype()) == before


def test_loading_is_silent(folder, capfd):
    load(folder)
    assert capfd.readouterr() == ("", "")


def test_sharded_weights(tmp_path):
    model = tiny("llama")
    model.network.save_pretrained(tmp_path / "model", max_shard_size="60KB")
    assert len(folders.weight_files(tmp_path / "model")) > 1
    assert torch.equal(
        logits(load(tmp_path / "model").network, inputs("llama")), logits(model.network, inputs("llama"))
    )
    folders.weight_files(tmp_path / "model")[1].unlink()
    with pytest.raises(BadInput, match="is missing although the index names it"):
        load(tmp_path / "model")


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_truncated_safetensors(folder, keep):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(BadInput, match=r"model\.safetensors (is cut off|has a damaged header)"):
        load(folder)


def test_damaged_safetensors(folder):
    file = folder / "model.safetensors"
    raw = bytearray(file.read_bytes())
    raw[8:40] = b"x" * 32
    file.write_bytes(raw)
    with pytest.raises(BadInput, match="damaged header"):
        load(folder)


def test_safetensors_longer_than_it_says(folder):
    with (folder / "model.safetensors").open("ab") as file:
        file.write(b"more")
    with pytest.raises(BadInput, match="is damaged"):
        load(folder)


def test_pickled_weights_are_refused(folder):
    torch.save({}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(BadInput, match=r"only as pytorch_model\.bin: a pickle file can run any code"):
        load(folder)


def test_no_weights(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(BadInput, match="has no weights"):
        load(folder)


def test_no_config(folder):
    (folder / "config.json").unlink()
    with pytest.raises(BadInput, match=r"has no config\.json"):
        load(folder)


@pytest.mark.parametrize("text", ["{", "[]", '{"model_type": "no-such-type"}'])
def test_damaged_config(folder, text):
    (folder / "config.json").write_text(text)
    with pytest.raises(BadInput) as caught:
        load(folder)
    assert "\n" not in str(caught.value)


def test_config_of_another_shape(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"hidden_size": 64}))
    with pytest.raises(BadInput, match="cannot load"):
        load(folder)


def test_code_in_the_folder_is_not_run(folder):
    (folder / "own.py").write_text("raise SystemExit('ran')")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own", "architectures": ["Own"], "auto_map": {"AutoConfig": "own.Own"}}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(IntarsiaError):
        load(folder)


def test_folder_of_an_intarsia_quantizer_reads_the_catalog_first(folder, monkeypatch):
    from intarsia import catalog

    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": "intarsia-none"}}))
    asked = []
    monkeypatch.setattr(catalog, "load", lambda: asked.append(True))
    with pytest.raises(BadInput, match="quantized by 'intarsia-none', which nothing installed here can read"):
        load(folder)
    assert asked


def test_processor_of_a_picture_model(tmp_path):
    model = tiny("clip")
    path = model.save(tmp_path / "clip")
    try:
        pictures = tf.CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    except ImportError as error:
        pytest.skip(str(error))
    tf.CLIPProcessor(pictures, model.tokenizer).save_pretrained(path)
    again = load(path)
    assert again.processor is not None
    second = load(again.save(tmp_path / "again"))
    from PIL import Image

    batch = second.processor(images=Image.new("RGB", (20, 24), "red"), return_tensors="pt")
    assert batch["pixel_values"].shape == (1, 3, 16, 16)
