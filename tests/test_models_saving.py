"""Saving: a plain folder that transformers reads alone, whole or absent, the same bytes each time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers as tf

from intarsia.errors import BadInput, IntarsiaError
from intarsia.models import Identity, load, wrap
from tests.tiny import FAMILIES, tiny


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("INTARSIA_CACHE", str(tmp_path / "cache"))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_bytes_each_time(family, tmp_path):
    model = tiny(family)
    first = contents(model.save(tmp_path / "one"))
    assert first == contents(model.save(tmp_path / "two"))
    assert first["model.safetensors"] == contents(load(tmp_path / "one").save(tmp_path / "three"))["model.safetensors"]


def test_transformers_reads_it_alone(tmp_path):
    model = tiny("llama")
    path = model.save(tmp_path / "model")
    network = tf.AutoModelForCausalLM.from_pretrained(path)
    tokenizer = tf.AutoTokenizer.from_pretrained(path)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), model.network.parameters(), strict=True))
    talk = [{"role": "user", "content": "hi"}]
    assert tokenizer.apply_chat_template(talk, tokenize=False) == "<|user|>hi<|end|>"
    assert (path / "generation_config.json").is_file()


def test_tied_weights_stay_tied(tmp_path):
    path = tiny("gpt2").save(tmp_path / "model")
    network = load(path).network
    assert network.lm_head.weight is network.transformer.wte.weight


def test_history_extras_and_exports_travel(tmp_path):
    export = tmp_path / "engine"
    (export / "inner").mkdir(parents=True)
    (export / "inner" / "graph.onnx").write_bytes(b"graph")
    model = tiny("llama")
    changed = model.with_network(model.network, technique="compression.quantize", config={"bits": 4})
    changed.extras["label_task"] = {"labels": ["a", "é"]}
    changed.exports["onnx-genai"] = export
    path = changed.save(tmp_path / "model")
    again = load(path)
    assert again.identity == changed.identity
    assert again.identity.changes[0]["technique"] == "compression.quantize"
    assert again.extras == changed.extras
    assert (again.exports["onnx-genai"] / "inner" / "graph.onnx").read_bytes() == b"graph"
    assert contents(again.save(tmp_path / "again")) == contents(path)


def test_a_bare_network_leaves_no_note(tmp_path):
    path = wrap(tiny("llama").network).save(tmp_path / "model")
    assert not (path / "intarsia.json").exists()


def test_what_is_there_is_kept_without_force(tmp_path):
    path = tmp_path / "mine"
    path.mkdir()
    (path / "notes.txt").write_text("mine")
    with pytest.raises(BadInput, match="is not empty"):
        tiny("llama").save(path)
    assert contents(path) == {"notes.txt": b"mine"}
    tiny("llama").save(path, force=True)
    assert "model.safetensors" in contents(path)
    assert "notes.txt" not in contents(path)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(BadInput, match="it is a file"):
        tiny("llama").save(tmp_path / "file", force=True)


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "model").mkdir()
    assert load(tiny("llama").save(tmp_path / "model"))


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_stopped_halfway_nothing_is_left_and_the_old_stays(tmp_path, monkeypatch, stop):
    path = tiny("llama").save(tmp_path / "model")
    before = contents(path)

    def fail(*args, **kwargs):
        raise stop

    monkeypatch.setattr(tf.PreTrainedTokenizerFast, "save_pretrained", fail)
    wanted = KeyboardInterrupt if isinstance(stop, KeyboardInterrupt) else IntarsiaError
    with pytest.raises(wanted) as caught:
        tiny("gpt2").save(path, force=True)
    if wanted is IntarsiaError:
        assert "the disk is full" in str(caught.value)
    assert contents(path) == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model"]


def test_extras_that_are_not_json(tmp_path):
    model = tiny("llama")
    model.extras["odd"] = {"tensor": torch.zeros(1)}
    with pytest.raises(BadInput, match="cannot be written as JSON"):
        model.save(tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_missing_export(tmp_path):
    model = tiny("llama")
    model.exports["onnx-genai"] = tmp_path / "gone"
    with pytest.raises(BadInput, match="export 'onnx-genai' is gone"):
        model.save(tmp_path / "model")


@pytest.mark.parametrize("text", ["{", "[]", '{"identity": {"who": 1}}'])
def test_damaged_note(tmp_path, text):
    path = tiny("llama").save(tmp_path / "model")
    (path / "intarsia.json").write_text(text)
    with pytest.raises(BadInput, match=r"intarsia\.json is damaged"):
        load(path)


def test_note_of_a_newer_format(tmp_path):
    path = tiny("llama").save(tmp_path / "model")
    note = json.loads((path / "intarsia.json").read_text())
    (path / "intarsia.json").write_text(json.dumps(note | {"format": 99}))
    with pytest.raises(BadInput, match="newer Intarsia"):
        load(path)


def test_files_are_readable_like_any_other(tmp_path):
    path = tiny("llama").save(tmp_path / "model")
    assert (path / "model.safetensors").stat().st_mode == (path / "config.json").stat().st_mode


def test_saved_identity_names_the_first_source(tmp_path):
    model = tiny("llama")
    assert load(model.save(tmp_path / "model")).identity == Identity("tiny-llama")
