"""Tiny random networks of many more architectures, made from configs: the breadth of the engine is proved on them.

`more("falcon")` gives a `Model`; `tiny_more.inputs("falcon")` what its forward takes. The families of tests.tiny are
studied closely; these are here so that no idiom of an architecture goes unseen."""

from __future__ import annotations

import torch
import transformers as tf

from intarsia.models import Model, wrap
from tests.tiny import _VISION_TOWER, VOCAB, tokenizer

_BASE = dict(vocab_size=VOCAB, pad_token_id=0, bos_token_id=1, eos_token_id=2)
_GPT = dict(_BASE, n_embd=32, n_layer=3, n_head=4, n_positions=64)
_MHA = dict(
    _BASE,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=3,
    num_attention_heads=4,
    max_position_embeddings=64,
)
_GQA = dict(_MHA, num_key_value_heads=2)
_EXPERTS = dict(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=24)
_BART = dict(
    _BASE,
    d_model=32,
    encoder_layers=2,
    decoder_layers=3,
    encoder_attention_heads=4,
    decoder_attention_heads=4,
    encoder_ffn_dim=48,
    decoder_ffn_dim=48,
    max_position_embeddings=64,
    decoder_start_token_id=2,
    forced_eos_token_id=None,
)
_VISION = {k: v for k, v in _VISION_TOWER.items() if k != "projection_dim"}
_MAMBA = dict(_BASE, hidden_size=32, num_hidden_layers=3, state_size=4, time_step_rank=4)

# family -> (kind of network, config class, model class, config)
CAUSAL = {
    "gptj": ("GPTJ", dict(_GPT, rotary_dim=4)),
    "gpt_neo": (
        "GPTNeo",
        dict(
            _BASE,
            hidden_size=32,
            num_layers=4,
            num_heads=4,
            attention_types=[[["global", "local"], 2]],
            window_size=6,
            max_position_embeddings=64,
        ),
    ),
    "gpt_bigcode": ("GPTBigCode", _GPT),
    "codegen": ("CodeGen", dict(_GPT, rotary_dim=4)),
    "opt": ("OPT", dict(_MHA, ffn_dim=48, word_embed_proj_dim=32)),
    "bloom": ("Bloom", dict(_BASE, hidden_size=32, n_layer=3, n_head=4)),
    "falcon": (
        "Falcon",
        dict(
            _BASE,
            hidden_size=32,
            num_hidden_layers=3,
            num_attention_heads=4,
            new_decoder_architecture=False,
            alibi=False,
        ),
    ),
    "falcon-alibi": (
        "Falcon",
        dict(_BASE, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, alibi=True, parallel_attn=False),
    ),
    "mpt": ("Mpt", dict(_BASE, d_model=32, n_heads=4, n_layers=3, max_seq_len=64, expansion_ratio=2)),
    "phi": ("Phi", _MHA),
    "phi3": ("Phi3", _GQA),
    "stablelm": ("StableLm", _GQA),
    "stablelm-parallel": ("StableLm", dict(_GQA, use_parallel_residual=True, qk_layernorm=True)),
    "cohere": ("Cohere", _GQA),
    "gemma2": ("Gemma2", dict(_GQA, head_dim=8, sliding_window=6, query_pre_attn_scalar=8)),
    "olmo2": ("Olmo2", _GQA),
    "smollm3": ("SmolLM3", _GQA),
    "starcoder2": ("Starcoder2", dict(_GQA, sliding_window=6)),
    "mistral-window": ("Mistral", dict(_GQA, sliding_window=4)),
    "xglm": ("XGLM", dict(_BASE, d_model=32, ffn_dim=48, num_layers=3, attention_heads=4, max_position_embeddings=64)),
    "mamba": ("Mamba", _MAMBA),
    "mamba2": (
        "Mamba2",
        dict(
            _BASE, hidden_size=32, num_hidden_layers=3, state_size=4, num_heads=8, head_dim=8, n_groups=1, chunk_size=8
        ),
    ),
    "falcon_mamba": ("FalconMamba", _MAMBA),
    "recurrent_gemma": (
        "RecurrentGemma",
        dict(
            _MHA,
            num_key_value_heads=1,
            lru_width=32,
            attention_window_size=8,
            block_types=["recurrent", "recurrent", "attention"],
        ),
    ),
    "jamba": (
        "Jamba",
        dict(
            _GQA,
            num_hidden_layers=4,
            attn_layer_period=2,
            attn_layer_offset=1,
            expert_layer_period=2,
            expert_layer_offset=1,
            num_experts=4,
            use_mamba_kernels=False,
            mamba_d_state=4,
            mamba_dt_rank=4,
        ),
    ),
    "bamba": (
        "Bamba",
        dict(
            _GQA,
            attn_layer_indices=[1],
            mamba_n_heads=8,
            mamba_d_head=8,
            mamba_d_state=4,
            mamba_n_groups=1,
            mamba_chunk_size=8,
        ),
    ),
    "lfm2": ("Lfm2", dict(_GQA, full_attn_idxs=[1], block_multiple_of=8)),
    "deepseek_v3": (
        "DeepseekV3",
        dict(
            _MHA,
            moe_intermediate_size=24,
            num_key_value_heads=4,
            n_routed_experts=4,
            num_experts_per_tok=2,
            n_group=2,
            topk_group=1,
            first_k_dense_replace=1,
            q_lora_rank=16,
            kv_lora_rank=16,
            qk_rope_head_dim=4,
            qk_nope_head_dim=4,
            v_head_dim=8,
        ),
    ),
    "gpt_oss": ("GptOss", dict(_GQA, head_dim=8, num_local_experts=4, num_experts_per_tok=2, sliding_window=6)),
    "granitemoe": ("GraniteMoe", dict(_GQA, num_local_experts=4, num_experts_per_tok=2, residual_multiplier=0.5)),
    "qwen2": ("Qwen2", _GQA),
    "qwen2_moe": ("Qwen2Moe", dict(_GQA, **_EXPERTS, shared_expert_intermediate_size=24)),
    "rwkv": ("Rwkv", dict(_BASE, hidden_size=32, num_hidden_layers=3, attention_hidden_size=32, intermediate_size=48)),
    "qwen3_next": (
        "Qwen3Next",
        dict(
            _GQA,
            **_EXPERTS,
            head_dim=8,
            shared_expert_intermediate_size=24,
            linear_num_value_heads=4,
            linear_num_key_heads=2,
            linear_key_head_dim=8,
            linear_value_head_dim=8,
            layer_types=["linear_attention", "full_attention", "linear_attention"],
        ),
    ),
}
MASKED = {
    "roberta": ("Roberta", _MHA),
    "distilbert": ("DistilBert", dict(_BASE, dim=32, hidden_dim=48, n_layers=3, n_heads=4, max_position_embeddings=64)),
    "electra": ("Electra", dict(_MHA, embedding_size=32)),
    "deberta-v2": (
        "DebertaV2",
        dict(_MHA, relative_attention=True, pos_att_type=["p2c", "c2p"], position_buckets=16, pooler_hidden_size=32),
    ),
    "albert": ("Albert", dict(_MHA, embedding_size=16)),
    "modernbert": ("ModernBert", dict(_MHA, local_attention=8, global_attn_every_n_layers=2)),
    "mpnet": ("MPNet", _MHA),
}
BOTH = {  # encoder and decoder
    "bart": ("Bart", "BartForConditionalGeneration", _BART),
    "mbart": ("MBart", "MBartForConditionalGeneration", _BART),
    "pegasus": ("Pegasus", "PegasusForConditionalGeneration", _BART),
    "whisper": (
        "Whisper",
        "WhisperForConditionalGeneration",
        dict(
            _BART,
            num_mel_bins=8,
            max_source_positions=16,
            max_target_positions=64,
            suppress_tokens=None,
            begin_suppress_tokens=None,
        ),
    ),
}
_LLAMA = dict(_GQA, model_type="llama")
OTHER = {
    "xlnet": ("XLNet", "XLNetLMHeadModel", dict(_BASE, d_model=32, n_layer=3, n_head=4, d_inner=48)),
    "vit": ("ViT", "ViTForImageClassification", _VISION),
    "dinov2": (
        "Dinov2",
        "Dinov2Model",
        dict({k: v for k, v in _VISION.items() if k != "intermediate_size"}, mlp_ratio=2),
    ),
    "siglip-vision": ("SiglipVision", "SiglipVisionModel", _VISION),
    "blip-2": (
        "Blip2",
        "Blip2ForConditionalGeneration",
        dict(
            vision_config=_VISION,
            qformer_config=dict(_MHA, encoder_hidden_size=32, cross_attention_frequency=2),
            text_config=dict(_MHA, model_type="opt", ffn_dim=48, word_embed_proj_dim=32),
            num_query_tokens=4,
            image_token_index=8,
        ),
    ),
    "idefics3": (
        "Idefics3",
        "Idefics3ForConditionalGeneration",
        dict(vision_config=_VISION, text_config=_LLAMA, image_token_id=8, scale_factor=2),
    ),
    "smolvlm": (
        "SmolVLM",
        "SmolVLMForConditionalGeneration",
        dict(vision_config=_VISION, text_config=_LLAMA, image_token_id=8, scale_factor=2),
    ),
    "qwen2_vl": (
        "Qwen2VL",
        "Qwen2VLForConditionalGeneration",
        dict(
            vision_config=dict(depth=2, embed_dim=32, hidden_size=32, num_heads=4, mlp_ratio=2, patch_size=4),
            text_config=dict(
                _GQA, rope_parameters={"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e4}
            ),
            image_token_id=8,
            vision_start_token_id=4,
        ),
    ),
}
FAMILIES = [*CAUSAL, *MASKED, *BOTH, *OTHER]


def _classes(family: str) -> tuple[str, str, dict]:
    if family in CAUSAL:
        name, config = CAUSAL[family]
        return name, f"{name}LMHeadModel" if name == "XLNet" else f"{name}ForCausalLM", config
    if family in MASKED:
        name, config = MASKED[family]
        return name, f"{name}ForMaskedLM", config
    return {**BOTH, **OTHER}[family]


def more(family: str, seed: int = 0, dtype: torch.dtype = torch.float32) -> Model:
    """A fresh tiny model of `family` (see FAMILIES) with random weights from `seed`, in eval mode."""
    name, network_class, config = _classes(family)
    state = torch.get_rng_state()
    torch.manual_seed(seed)
    network = getattr(tf, network_class)(getattr(tf, f"{name}Config")(**config)).to(dtype).eval()
    with torch.no_grad():
        # Wider than the usual 0.02, so that every block does something that a test can see.
        for key, parameter in network.named_parameters():
            if parameter.dim() > 1 and not key.endswith(("A_log", "conv1d.weight")):
                parameter.normal_(0, 0.15)
    torch.set_rng_state(state)
    return wrap(network, tokenizer(), name=f"tiny-{family}")


def inputs(family: str, seed: int = 1) -> dict:
    """Keyword arguments for the network's forward: two rows, the second with padding on the right."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(10, 266, (2, 8), generator=generator)
    mask = torch.ones_like(ids)
    pictures = torch.randn(2, 3, 16, 16, generator=generator)
    if family in ("vit", "dinov2", "siglip-vision"):
        return dict(pixel_values=pictures)
    if family == "whisper":
        return dict(input_features=torch.randn(2, 8, 32, generator=generator), decoder_input_ids=ids[:, :5])
    if family in ("blip-2", "idefics3", "smolvlm", "qwen2_vl"):
        places = 4
        image = torch.full((2, places), 8)
        ids = torch.cat([ids[:, :2], image, ids[:, 2:]], 1)
        x = dict(input_ids=ids, attention_mask=torch.ones_like(ids))
        if family == "qwen2_vl":
            x["mm_token_type_ids"] = (ids == 8).long()
            patches = torch.randn(2 * 16, 3 * 2 * 4 * 4, generator=generator)
            return dict(x, pixel_values=patches, image_grid_thw=torch.tensor([[1, 4, 4], [1, 4, 4]]))
        return dict(x, pixel_values=pictures[:, None] if family in ("idefics3", "smolvlm") else pictures)
    ids[1, 5:], mask[1, 5:] = 0, 0
    x = dict(input_ids=ids, attention_mask=mask)
    if family in BOTH:
        x["decoder_input_ids"] = ids[:, :5].clamp(min=10)
    return x
