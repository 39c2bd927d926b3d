"""Tiny mixture-of-experts networks, random placements, and cases that run on every rank of a runtime."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
import transformers as tf

from intarsia.moe.placement.placement import Placement
from intarsia.moe.runtime import Request, Runtime, Shard, Sizes, Wire
from intarsia.moe.runtime.routed import Routed

_BASE = dict(
    vocab_size=120,
    hidden_size=32,
    intermediate_size=24,
    num_hidden_layers=3,
    num_attention_heads=4,
    max_position_embeddings=64,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=2,
)
_SMALL = dict(_BASE, moe_intermediate_size=24)
_DEEPSEEK = dict(
    _SMALL, num_key_value_heads=4, n_routed_experts=8, num_experts_per_tok=2, first_k_dense_replace=1, kv_lora_rank=16,
    q_lora_rank=12, qk_rope_head_dim=8, v_head_dim=8, qk_nope_head_dim=8, n_shared_experts=1,
)  # fmt: skip
# name -> (network, config, experts, routed layers)
NETWORKS = {
    "mixtral": ("Mixtral", dict(_BASE, num_key_value_heads=2, num_local_experts=8, num_experts_per_tok=2)),
    "olmoe": ("Olmoe", dict(_BASE, num_key_value_heads=4, num_experts=8, num_experts_per_tok=1)),
    "qwen3": (
        "Qwen3Moe",
        dict(_SMALL, num_key_value_heads=2, head_dim=8, num_experts=8, num_experts_per_tok=4, norm_topk_prob=True),
    ),
    "windowed": (
        "Mixtral",
        dict(_BASE, num_key_value_heads=2, num_local_experts=8, num_experts_per_tok=2, sliding_window=6),
    ),
    "deepseek-v3": ("DeepseekV3", dict(_DEEPSEEK, n_group=2, topk_group=1)),
    "deepseek-v2": ("DeepseekV2", dict(_DEEPSEEK, topk_method="greedy", mlp_bias=False)),
    "qwen2": (
        "Qwen2Moe",
        dict(
            _SMALL, num_key_value_heads=2, num_experts=8, num_experts_per_tok=2, shared_expert_intermediate_size=24
        ),
    ),
    "gpt-oss": (
        "GptOss",
        dict(
            _BASE, num_key_value_heads=2, head_dim=8, num_local_experts=8, num_experts_per_tok=2, sliding_window=6,
            rope_parameters={"rope_type": "default", "rope_theta": 1e4},
        ),
    ),
}  # fmt: skip
EXPERTS = 8


@cache
def network(name: str, dtype: torch.dtype = torch.float64):
    """A fresh random network, the same in every process."""
    kind, config = NETWORKS[name]
    state = torch.get_rng_state()
    torch.manual_seed(3)
    made = getattr(tf, f"{kind}ForCausalLM")(getattr(tf, f"{kind}Config")(**config)).to(dtype).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.15)
    torch.set_rng_state(state)
    made.set_experts_implementation("eager")
    return made


def layers(name: str) -> int:
    """Routed layers of a network."""
    return 2 if name.startswith("deepseek") else 3


def placement(name: str, ranks: int, seed: int = 0, empty: int | None = None, copies: int = 0, k: int = 1) -> Placement:
    """Experts anywhere, uneven; none on rank `empty`; `copies` further experts on each rank and layer."""
    rng = np.random.default_rng(seed)
    allowed = [r for r in range(ranks) if r != empty]
    table = rng.choice(allowed, size=(layers(name), EXPERTS))
    replicas = ()
    if copies:
        replicas = tuple(
            tuple(tuple(sorted(rng.choice(EXPERTS, copies, replace=False).tolist())) for _ in range(ranks))
            for _ in table
        )
    return Placement(table, ranks, replicas=replicas, k=k)


def requests(count: int = 5, new: int = 5, seed: int = 1, first: int = 0, **more) -> list[Request]:
    """Prompts of different lengths."""
    rng = np.random.default_rng(seed + first)
    return [
        Request(first + i, tuple(rng.integers(10, 120, 3 + 2 * i % 7).tolist()), new + i % 3, **more)
        for i in range(count)
    ]


def run(place, name, dtype, plan, batches, settings, fuse=1 << 16):
    """Run requests: `batches` are (steps before, requests) in turn; then to the end."""
    runtime = Runtime(
        Shard.of(network(name, dtype), plan, place.rank),
        Wire(place.rank, place.ranks, fuse_bytes=fuse),
        record=True,
        keep_logits=True,
        **settings,
    )
    made: dict[int, list[int]] = {}

    def take(tokens):
        for token in tokens:
            made.setdefault(token.request, []).append(token.token)
        return tokens

    for steps, new in batches:
        for _ in range(steps):
            take(runtime.step())
        take(runtime.admit(new))
    while take(runtime.step()):
        pass
    assert not runtime.active
    logits = {key: value.numpy() for key, value in runtime.logits.items()}
    return made, logits, runtime.traffic, runtime.routed, Sizes.of(runtime), runtime.report()


class Outcome:
    """What all ranks of a case gave, put together."""

    def __init__(self, ranks, name):
        self.each = ranks
        self.made = ranks[0][0]
        assert all(other[0] == self.made for other in ranks)  # every rank knows every token
        self.logits: dict[tuple[int, int], np.ndarray] = {}
        for _, logits, *_ in ranks:
            assert not self.logits.keys() & logits.keys()  # and one rank alone made it
            self.logits |= logits
        self.traffic = [rank[2] for rank in ranks]
        self.events = ranks[0][3].events
        self.experts = Routed.merged([rank[3] for rank in ranks], layers(name))
        self.sizes = ranks[0][4]
        self.reports = [rank[5] for rank in ranks]

    def gap(self, wanted: dict[tuple[int, int], np.ndarray]) -> float:
        """Largest difference of a logit."""
        assert self.logits.keys() == wanted.keys()
        return max(float(np.abs(self.logits[key] - wanted[key]).max()) for key in wanted)


@cache
def plain(name: str, dtype: torch.dtype, prompt: tuple[int, ...], new: int):
    """Greedy tokens and their logits from the network alone, without a cache."""
    ids, logits = list(prompt), []
    with torch.no_grad():
        for _ in range(new):
            logits.append(network(name, dtype)(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1])
            ids.append(int(logits[-1].argmax()))
    return ids[len(prompt) :], [row.numpy() for row in logits]


def wanted(name, dtype, every):
    """The plain network's tokens and logits for requests."""
    tokens, logits = {}, {}
    for request in every:
        tokens[request.id], rows = plain(name, dtype, request.prompt, request.max_new_tokens)
        logits |= {(request.id, step): row for step, row in enumerate(rows)}
    return tokens, logits
