"""Models for vLLM: the folder answers as the model does, and the command says all that vLLM must know."""

from __future__ import annotations

import json
import shlex

import pytest
import torch
import transformers as tf
from click.testing import CliRunner

pytest.importorskip("fastapi", reason="the extra 'server' is not installed")

from intarsia.cli.app import root
from intarsia.compression import quantize
from intarsia.errors import BadInput
from intarsia.server.vllm import export
from tests.tiny import tiny


def adapter(folder, **more):
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 12, **more}))
    return folder


def test_a_rounded_model_is_plain_for_vllm_and_answers_the_same(tmp_path):
    rounded = quantize(tiny("llama"), bits=8)
    rounded.save(tmp_path / "small")
    law = adapter(tmp_path / "law")
    made = export(str(tmp_path / "small"), tmp_path / "out", name="m", adapters={"law": law})
    network = tf.AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto").eval()
    ids = torch.tensor([[11, 12, 13]])
    with torch.no_grad():
        torch.testing.assert_close(network(ids).logits, rounded.network(ids).logits, atol=1e-3, rtol=1e-3)
    assert all(type(module).__module__.startswith(("torch", "transformers")) for module in network.modules())
    assert "quantization_config" not in json.loads((tmp_path / "out" / "config.json").read_text())
    assert tf.AutoTokenizer.from_pretrained(tmp_path / "out").chat_template and made.gap < 1e-3
    words = shlex.split(made.command)
    assert words[:3] == ["vllm", "serve", str(tmp_path / "out")] and "--max-model-len" in words
    assert words[words.index("--served-model-name") + 1] == "m"
    assert words[words.index("--max-lora-rank") + 1] == "16" and f"law={law}" in words


def test_what_vllm_cannot_take_is_refused_before_anything_is_written(tmp_path):
    tiny("bert-encoder").save(tmp_path / "encoder")
    with pytest.raises(BadInput, match="makes no text"):
        export(str(tmp_path / "encoder"), tmp_path / "out")
    for more in ({"use_dora": True}, {"peft_type": "IA3"}, {"modules_to_save": ["x"]}, {"r": 1000}):
        folder = tmp_path / next(iter(more))
        with pytest.raises(BadInput, match="plain LoRA"):
            export(str(tmp_path / "encoder"), tmp_path / "out", adapters={"a": adapter(folder, **more)})
    assert not (tmp_path / "out").exists()


def test_the_command(tmp_path):
    tiny("llama").save(tmp_path / "m")
    words = ["vllm", str(tmp_path / "m"), "--out", str(tmp_path / "out"), "--json"]
    said = CliRunner().invoke(root, words)
    assert said.exit_code == 0 and json.loads(said.stdout)["command"].startswith("vllm serve")
