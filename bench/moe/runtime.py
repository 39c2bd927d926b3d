"""Running on several ranks: what moves between them, in every mode, contiguous and placed; equal tokens or not.

Rows, bytes and collectives are counted by the ranks themselves. Seconds are those of this machine, whose processes
exchange over loopback: they measure how many collectives there are, hardly how large."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.common import show
from bench.moe.traces import MODELS, given
from intarsia.moe.placement import Placement, Problem, contiguous, solve
from intarsia.moe.routing import Counts
from intarsia.moe.running import traffic_of
from intarsia.moe.runtime import MODES, Engine, Totals, totals

PROMPTS, PROMPT_TOKENS, STEPS = 16, 64, 32


@dataclass(frozen=True)
class Network:
    """- folder: a checkpoint; prompts: token ids; counts: of its routing, to place by; k: experts of a token."""

    name: str
    folder: Path
    prompts: list[list[int]]
    counts: Counts
    k: int


def networks(folder: Path, scratch: Path) -> Iterator[Network]:
    """Two trained ones (all heads have keys of their own; half of them), and one of DeepSeek's form with random weights
    (a latent instead of keys and values)."""
    for model, heads in (("olmoe", "MHA, k 1"), ("mixtral", "GQA, k 2")):
        train, test = given(folder, model, "late", "novels", "docs").split()
        ids, seq = test.whole("token_id"), test.whole("seq")
        prompts = [ids[seq == s][:PROMPT_TOKENS].tolist() for s in np.unique(seq)[:PROMPTS]]
        yield Network(f"{model} ({heads})", folder / MODELS[model] / "late", prompts, Counts.of(train), train.facts.k)
    yield _latent(scratch)


def _latent(scratch: Path) -> Network:
    import torch
    import transformers as tf

    from intarsia.models import wrap
    from intarsia.moe.routing.recording import _routes, facts_of
    from intarsia.moe.routing.trace import Trace

    config = tf.DeepseekV3Config(
        vocab_size=1024, hidden_size=256, intermediate_size=256, moe_intermediate_size=64, num_hidden_layers=8,
        num_attention_heads=8, num_key_value_heads=8, n_routed_experts=16, num_experts_per_tok=1, n_group=1,
        topk_group=1, n_shared_experts=1, first_k_dense_replace=0, q_lora_rank=64, kv_lora_rank=12,
        qk_rope_head_dim=8, qk_nope_head_dim=24, v_head_dim=32, max_position_embeddings=512, pad_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    model = wrap(tf.DeepseekV3ForCausalLM(config).eval())
    rng = np.random.default_rng(0)
    prompts = rng.integers(1, 1024, (PROMPTS, PROMPT_TOKENS)).tolist()
    trace = Trace.in_memory(facts_of(model), _routes(model, prompts, 0))
    model.network.save_pretrained(scratch / "latent")
    return Network("DeepSeek form (latent, k 1, random)", scratch / "latent", prompts, Counts.of(trace), 1)


def placements(network: Network, ranks: int) -> dict[str, Placement]:
    """Contiguous, and placed: with experts used together, where a token uses several."""
    counts = network.counts
    problem = Problem(counts.flow(), ranks, mates=counts.mates(), together=2.0 if network.k > 1 else 0.0)
    plain = contiguous(problem.layers, problem.experts, ranks)
    return {
        "contiguous": Placement(plain, ranks, k=network.k),
        "placed": Placement(solve(problem, effort=400).device_of, ranks, k=network.k),
    }


@dataclass(frozen=True)
class Measured:
    tokens: list[tuple[int, ...]]
    totals: Totals
    collectives: float
    seconds: float


def measured(engine: Engine, network: Network, mode: str, rounds: int, free: bool = False) -> Measured:
    """All prompts together; counts of one round, seconds of a step as the median of rounds."""
    seconds, found = [], None
    for _ in range(rounds + 1):
        engine.use(mode, free)
        streams = engine.submit_all(network.prompts, STEPS + 1, stop=())
        first = [next(iter(s)) for s in streams]
        begun = time.perf_counter()
        tokens = [s.result().tokens for s in streams]
        seconds.append((time.perf_counter() - begun) / STEPS)
        report = engine.report()
        sums = totals([traffic_of(row) for row in report])
        found = Measured(tokens, sums, sums.collectives / STEPS, 0.0)
        assert len(first) == len(network.prompts)
    assert found is not None
    return Measured(found.tokens, found.totals, found.collectives, statistics.median(seconds[1:]))


def alone(network: Network) -> list[tuple[int, ...]]:
    """Greedy tokens of the network in one process, a prompt at a time."""
    import torch

    from intarsia.models import load

    model = load(network.folder)
    out = []
    for prompt in network.prompts:
        ids = torch.tensor([prompt])
        made = model.network.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=STEPS + 1, min_new_tokens=STEPS + 1,
            do_sample=False, pad_token_id=0, eos_token_id=None,
        )  # fmt: skip
        out.append(tuple(made[0, len(prompt) :].tolist()))
    return out


def run(folder: Path, quick: bool) -> dict[str, float]:
    """Every network, 2 and 4 ranks, every mode, contiguous and placed."""
    rounds, found, equal, ratios, collectives = (1 if quick else 5), {}, True, [], []
    with tempfile.TemporaryDirectory() as scratch:
        for network in networks(folder, Path(scratch)):
            rows, right = [], alone(network)
            for ranks in (2, 4):
                base: Measured | None = None
                best = float("inf")
                for name, placement in placements(network, ranks).items():
                    with Engine.start(network.folder, placement, mode="vanilla", timeout=120.0) as engine:
                        for mode in MODES:
                            got = measured(engine, network, mode, rounds)
                            base = base or got
                            equal &= got.tokens == right
                            rows.append(_cells(f"{ranks} {mode}, {name}", got, base, got.tokens == right))
                            if ranks == 4:
                                best = min(best, _useful(got.totals))
                            if mode == "coherent" and network.k == 1:
                                collectives.append(got.collectives / base.collectives)
                if ranks == 4 and base is not None and "random" not in network.name:
                    ratios.append(best / _useful(base.totals))
            columns = ["ranks, mode, placement", "collectives a step", "rows", "states B", "routing B", "contexts B",
                       "padding B", "over vanilla contiguous", "step ms", "tokens equal"]  # fmt: skip
            show(f"{network.name}: for each token made, {PROMPTS} requests", columns, rows)
    found["tokens_equal"] = float(equal)
    found["collectives_ratio_vanilla"] = max(collectives)
    found["bytes_ratio_best_mode"] = max(ratios)
    return found


def _useful(found: Totals) -> float:
    """Bytes without room that nothing filled."""
    return found.payload_bytes + found.metadata_bytes + found.kv_bytes


def _cells(name: str, got: Measured, base: Measured, same: bool) -> Sequence[str]:
    t = got.totals
    return [
        name, f"{got.collectives:.1f}", f"{t.rows:.2f}", f"{t.payload_bytes:,.0f}", f"{t.metadata_bytes:,.0f}",
        f"{t.kv_bytes:,.0f}", f"{t.padding_bytes:,.0f}", f"{_useful(t) / _useful(base.totals):.2f}",
        f"{1e3 * got.seconds:.0f}", "yes" if same else "NO",
    ]  # fmt: skip
