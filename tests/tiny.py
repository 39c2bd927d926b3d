"""Tiny random networks of every architecture family, made from configs: exactness is proved on them in milliseconds.

`tiny("llama")` gives a `Model` with a byte-level tokenizer (256 bytes + specials) where the network takes text."""

from __future__ import annotations

from functools import cache

import torch
import transformers as tf
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from intarsia.models import Model, wrap

VOCAB = 300
CHAT = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPECIAL = ["<pad>", "<s>", "<|end|>", "<unk>", "<|system|>", "<|user|>", "<|assistant|>", "<mask>", "<image>", "</s>"]


@cache
def _backend(bos: bool) -> str:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: i for i, token in enumerate([*SPECIAL, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return tokenizer.to_str()


def tokenizer(bos: bool = False, max_length: int = 128) -> tf.PreTrainedTokenizerFast:
    """A byte-level tokenizer: one token a byte, specials 0-9, chat template with `<|role|>`...`<|end|>`."""
    return tf.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_backend(bos)),
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="<|end|>",
        unk_token="<unk>",
        additional_special_tokens=["<|system|>", "<|user|>", "<|assistant|>"],
        chat_template=CHAT,
        model_max_length=max_length,
    )


_ROPE = dict(
    vocab_size=VOCAB,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=128,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=2,
)
_TEXT_TOWER = dict(
    vocab_size=VOCAB,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=3,
    num_attention_heads=4,
    max_position_embeddings=64,
    projection_dim=16,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=2,
)
_VISION_TOWER = dict(
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=3,
    num_attention_heads=4,
    image_size=16,
    patch_size=4,
    projection_dim=16,
)


def _blip_text() -> dict:
    return dict(_TEXT_TOWER, encoder_hidden_size=32, is_decoder=True, sep_token_id=2)


def _network(family: str):
    match family:
        case "llama":
            return tf.LlamaForCausalLM(tf.LlamaConfig(**_ROPE))
        case "gpt2":
            config = tf.GPT2Config(
                vocab_size=VOCAB, n_embd=32, n_layer=4, n_head=4, n_positions=128, bos_token_id=1, eos_token_id=2
            )
            return tf.GPT2LMHeadModel(config)
        case "gemma3":
            config = tf.Gemma3TextConfig(**_ROPE, head_dim=8, sliding_window=8, query_pre_attn_scalar=8)
            return tf.Gemma3ForCausalLM(config)
        case "qwen3":
            return tf.Qwen3ForCausalLM(tf.Qwen3Config(**_ROPE, head_dim=8))
        case "neox":
            config = tf.GPTNeoXConfig(
                **{k: v for k, v in _ROPE.items() if k != "num_key_value_heads"}, use_parallel_residual=True
            )
            return tf.GPTNeoXForCausalLM(config)
        case "granite":
            return tf.GraniteForCausalLM(tf.GraniteConfig(**_ROPE, residual_multiplier=0.5))
        case "bert":
            return tf.BertForMaskedLM(tf.BertConfig(**{k: v for k, v in _TEXT_TOWER.items() if k != "projection_dim"}))
        case "bert-encoder":
            return tf.BertModel(tf.BertConfig(**{k: v for k, v in _TEXT_TOWER.items() if k != "projection_dim"}))
        case "t5":
            config = tf.T5Config(
                vocab_size=VOCAB, d_model=32, d_kv=8, d_ff=48, num_layers=3, num_decoder_layers=3, num_heads=4,
                pad_token_id=0, eos_token_id=2, decoder_start_token_id=0,
            )  # fmt: skip
            return tf.T5ForConditionalGeneration(config)
        case "clip":
            return tf.CLIPModel(tf.CLIPConfig(text_config=_TEXT_TOWER, vision_config=_VISION_TOWER, projection_dim=16))
        case "siglip":
            return tf.SiglipModel(tf.SiglipConfig(text_config=_TEXT_TOWER, vision_config=_VISION_TOWER))
        case "blip":
            config = tf.BlipConfig(text_config=_blip_text(), vision_config=_VISION_TOWER, image_text_hidden_size=16)
            return tf.BlipForConditionalGeneration(config)
        case "llava":
            vision = dict(_VISION_TOWER)
            config = tf.LlavaConfig(
                vision_config=tf.CLIPVisionConfig(**vision), text_config=tf.LlamaConfig(**_ROPE), image_token_id=8
            )
            return tf.LlavaForConditionalGeneration(config)
        case "olmoe":
            return tf.OlmoeForCausalLM(tf.OlmoeConfig(**_ROPE, num_experts=8, num_experts_per_tok=2))
        case "mixtral":
            return tf.MixtralForCausalLM(tf.MixtralConfig(**_ROPE, num_local_experts=4, num_experts_per_tok=2))
        case "qwen3-moe":
            config = tf.Qwen3MoeConfig(
                **_ROPE, head_dim=8, num_experts=8, num_experts_per_tok=2, moe_intermediate_size=24, norm_topk_prob=True
            )
            return tf.Qwen3MoeForCausalLM(config)
    raise ValueError(family)


CAUSAL = ["llama", "gpt2", "gemma3", "qwen3", "neox", "granite", "olmoe", "mixtral", "qwen3-moe"]
MOE = ["olmoe", "mixtral", "qwen3-moe"]
FAMILIES = [*CAUSAL, "bert", "bert-encoder", "t5", "clip", "siglip", "blip", "llava"]


def tiny(family: str, seed: int = 0, dtype: torch.dtype = torch.float32, bos: bool = False) -> Model:
    """A fresh tiny model of `family` (see FAMILIES) with random weights from `seed`, in eval mode."""
    state = torch.get_rng_state()
    torch.manual_seed(seed)
    network = _network(family).to(dtype).eval()
    with torch.no_grad():
        # Wider than the usual 0.02, so that every block does something that a test can see.
        for name, parameter in network.named_parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.15)
            elif "norm" not in name.lower() and "ln_" not in name:
                parameter.normal_(0, 0.05)
    torch.set_rng_state(state)
    return wrap(network, tokenizer(bos), name=f"tiny-{family}")


def inputs(family: str, batch: int = 2, length: int = 10, seed: int = 1, side: str | None = "right") -> dict:
    """Keyword arguments for `network(**inputs)`: ids with a padded second row (side None: no padding), pictures."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(10, 266, (batch, length), generator=generator)
    mask = torch.ones_like(ids)
    if side is not None and batch > 1:
        cut = slice(length - 3, None) if side == "right" else slice(0, 3)
        ids[1, cut] = 0
        mask[1, cut] = 0
    pictures = torch.randn(batch, 3, 16, 16, generator=generator)
    match family:
        case "t5":
            return dict(input_ids=ids, attention_mask=mask, decoder_input_ids=ids[:, :6].clamp(min=10))
        case "clip" | "siglip" | "blip":
            return dict(input_ids=ids, attention_mask=mask, pixel_values=pictures)
        case "llava":
            image = torch.full((batch, 16), 8)  # one token a patch
            ids, mask = (
                torch.cat([ids[:, :2], image, ids[:, 2:]], 1),
                torch.cat([mask[:, :2], image > 0, mask[:, 2:]], 1),
            )
            return dict(input_ids=ids, attention_mask=mask.long(), pixel_values=pictures)
        case _:
            return dict(input_ids=ids, attention_mask=mask)
