"""GGUF: converted once, exactly, with the right tokenizer; cut, damaged and stopped conversions leave nothing."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path

import pytest
import torch
import transformers as tf

from intarsia.errors import BadInput, IntarsiaError
from intarsia.models import cache, gguf, load
from intarsia.models.gguf_header import read_header
from intarsia.models.saving import plain
from intarsia.progress import listening
from tests.tiny import CHAT, SPECIAL, inputs, tiny

writer = pytest.importorskip("gguf")


def rotary_order(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows of a q or k projection in GGUF's order (pairs side by side) from Hugging Face's (halves)."""
    rows, width = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, width).swapaxes(1, 2).reshape(rows, width)


def write_llama(path: Path, pre: str = "smollm", bos: bool = False) -> Path:
    model = tiny("llama")
    config, state = model.config, model.network.state_dict()
    out = writer.GGUFWriter(path, "llama")
    out.add_name("A tiny title")
    out.add_block_count(config.num_hidden_layers)
    out.add_context_length(config.max_position_embeddings)
    out.add_embedding_length(config.hidden_size)
    out.add_feed_forward_length(config.intermediate_size)
    out.add_head_count(config.num_attention_heads)
    out.add_head_count_kv(config.num_key_value_heads)
    out.add_layer_norm_rms_eps(config.rms_norm_eps)
    out.add_rope_freq_base(10000.0)
    out.add_vocab_size(config.vocab_size)
    vocab = {i: t for t, i in model.tokenizer.get_vocab().items()}
    vocab |= {i: f"<unused{i}>" for i in range(len(vocab), config.vocab_size - 1)}
    vocab[config.vocab_size - 1] = "ĠĠ"
    tokens = [vocab[i] for i in range(config.vocab_size)]
    out.add_tokenizer_model("gpt2")
    out.add_tokenizer_pre(pre)
    out.add_token_list(tokens)
    out.add_token_types([3 if t in SPECIAL else 1 for t in tokens])
    out.add_token_merges(["Ġ Ġ"])
    out.add_bos_token_id(1)
    out.add_eos_token_id(2)
    out.add_pad_token_id(0)
    out.add_unk_token_id(3)
    out.add_add_bos_token(bos)
    out.add_chat_template(CHAT)
    names = writer.get_tensor_name_map(writer.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, weight in state.items():
        if name.endswith("q_proj.weight"):
            weight = rotary_order(weight, config.num_attention_heads)
        elif name.endswith("k_proj.weight"):
            weight = rotary_order(weight, config.num_key_value_heads)
        out.add_tensor(names.get_name(name, (".weight",)), weight.numpy())
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    return path


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    return write_llama(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


@pytest.fixture
def file(original, tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("INTARSIA_CACHE", str(tmp_path / "cache"))
    return Path(shutil.copy(original, tmp_path / "tiny.gguf"))


def leftovers(tmp_path: Path) -> list[str]:
    return [p.name for p in (tmp_path / "cache" / "gguf").glob("*")]


def test_same_logits_as_the_network_it_was_written_from(file):
    batch = inputs("llama")
    with torch.no_grad():
        wanted, got = tiny("llama").network(**batch).logits, load(file).network(**batch).logits
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-5)


def test_identity_and_config(file):
    model = load(file)
    assert model.identity.origin == f"gguf:{file}"
    assert model.identity.sha256 == cache.sha256_of(file)
    assert model.config.rms_norm_eps == 1e-6
    assert model.config.name_or_path != "A tiny title"
    assert model.context_length == model.tokenizer.model_max_length == 128


def test_tokenizer(file):
    tokenizer = load(file).tokenizer
    ids = [tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.unk_token_id]
    assert ids == [1, 2, 0, 3]
    assert tokenizer.encode("<|user|>") == [5]
    assert tokenizer.chat_template == CHAT
    text = "héllo  World\n\t x=1 + 2; 漢字 🎉"
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_digits_stand_alone_before_the_split(file):
    # GPT-2's split would give one space to the digit: Ġ, Ġ, 1.
    assert load(file).tokenizer.tokenize("a  12") == ["a", "ĠĠ", "1", "2"]


def test_another_vocabulary_keeps_its_split(file, tmp_path):
    other = write_llama(tmp_path / "other.gguf", pre="gpt-2")
    assert load(other).tokenizer.tokenize("a  12") == ["a", "Ġ", "Ġ", "1", "2"]


def test_bos_is_added_when_the_file_says_so(file, tmp_path):
    assert load(file).tokenizer.encode("a")[0] != 1
    assert load(write_llama(tmp_path / "bos.gguf", bos=True)).tokenizer.encode("a")[0] == 1


def test_second_load_converts_nothing(file, monkeypatch):
    first = load(file)
    monkeypatch.setattr(gguf, "_convert", lambda *a: pytest.fail("converted again"))
    second = load(file)
    assert second.identity == first.identity
    assert all(torch.equal(a, b) for a, b in zip(first.network.parameters(), second.network.parameters(), strict=True))


def test_a_copy_elsewhere_shares_the_conversion(file, tmp_path, monkeypatch):
    load(file)
    monkeypatch.setattr(gguf, "_convert", lambda *a: pytest.fail("converted again"))
    (tmp_path / "folder").mkdir()
    shutil.copy(file, tmp_path / "folder" / "other.gguf")
    assert load(tmp_path / "folder").identity.sha256 == cache.sha256_of(file)


def test_saves_as_a_plain_folder(file, tmp_path):
    path = load(file).save(tmp_path / "saved")
    assert "quantization_config" not in json.loads((path / "config.json").read_text())
    tf.AutoModelForCausalLM.from_pretrained(path).save_pretrained(tmp_path / "again")


def test_a_network_read_by_transformers_itself_is_saved_and_left_as_it_was(file, tmp_path):
    from intarsia.models import wrap

    network = tf.AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name)
    with pytest.raises(Exception):  # noqa: B017 - that it refuses is the reason for `plain`
        network.save_pretrained(tmp_path / "refused")
    assert plain(network) is not network
    path = wrap(network).save(tmp_path / "saved")
    assert network.config.quantization_config is not None
    assert all(torch.equal(a, b) for a, b in zip(load(path).network.parameters(), network.parameters(), strict=True))


def test_progress_is_told_and_nothing_is_printed(file, capfd):
    told = []
    with listening(told.append):
        load(file)
    assert any(e.task == "converting tiny.gguf" for e in told)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("part", [0, 3, 10, 0.1, 0.5, 0.999])
def test_truncated(file, tmp_path, part):
    raw = file.read_bytes()
    file.write_bytes(raw[: int(part * len(raw)) if isinstance(part, float) else part])
    with pytest.raises(BadInput, match=r"tiny\.gguf is (cut off|no GGUF file)"):
        load(file)
    assert leftovers(tmp_path) == []


def test_damaged_header(file, tmp_path):
    raw = bytearray(file.read_bytes())
    raw[8:16] = struct.pack("<Q", 1 << 60)
    file.write_bytes(raw)
    with pytest.raises(BadInput, match="damaged"):
        load(file)
    assert leftovers(tmp_path) == []


def test_unknown_version(file):
    raw = bytearray(file.read_bytes())
    raw[4:8] = struct.pack("<I", 77)
    file.write_bytes(raw)
    with pytest.raises(BadInput, match="version 77"):
        load(file)


def test_architecture_that_cannot_be_read(tmp_path, monkeypatch):
    monkeypatch.setenv("INTARSIA_CACHE", str(tmp_path / "cache"))
    out = writer.GGUFWriter(tmp_path / "odd.gguf", "odd-architecture")
    out.add_tensor("token_embd.weight", torch.zeros(4, 4).numpy())
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    with pytest.raises(BadInput, match="GGUF architecture 'odd-architecture'") as caught:
        load(tmp_path / "odd.gguf")
    assert "\n" not in str(caught.value)
    assert leftovers(tmp_path) == []


def test_header_agrees_with_the_gguf_package(file):
    header, reader = read_header(file), writer.GGUFReader(file)
    assert set(header.tensors) == {t.name for t in reader.tensors}
    assert header.size == max(t.data_offset + t.n_bytes for t in reader.tensors)
    for key, value in header.fields.items():
        if isinstance(value, str) and key in reader.fields:
            assert value == reader.fields[key].contents()


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_stopped_conversion_leaves_nothing_and_can_be_repeated(file, tmp_path, monkeypatch, stop):
    def fail(*args, **kwargs):
        raise stop

    with monkeypatch.context() as patch:
        patch.setattr(tf.PreTrainedTokenizerBase, "save_pretrained", fail)
        wanted = KeyboardInterrupt if isinstance(stop, KeyboardInterrupt) else IntarsiaError
        with pytest.raises(wanted) as caught:
            load(file)
    if wanted is IntarsiaError:
        assert "the disk is full" in str(caught.value)
    assert leftovers(tmp_path) == []
    assert load(file)


def test_missing_file(tmp_path):
    with pytest.raises(BadInput, match="there is no file or folder"):
        load(tmp_path / "none.gguf")


def test_folder_with_several(file, tmp_path):
    (tmp_path / "two").mkdir()
    for name in ("a.gguf", "b.gguf"):
        shutil.copy(file, tmp_path / "two" / name)
    with pytest.raises(BadInput, match=r"holds 2 GGUF files, give one: a\.gguf, b\.gguf"):
        load(tmp_path / "two")
