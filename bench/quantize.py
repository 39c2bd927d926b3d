"""Weights on grids, in PyTorch and in ONNX Runtime GenAI: bytes, tokens a second, and what the text model lost.

    python -m bench.quantize [--quick] [--json FILE]

All variants run in one process, one after the other in every round, so that a busy machine slows them alike; the best
round counts. KL and top-1 agreement are against the original network on docstrings of the standard library, once as
they are and once with the network moved off the 16-level grid its GGUF file was made on (channel factors that leave its
outputs unchanged): on the grid it came from, 4 bits look better than they are."""

from __future__ import annotations

import inspect
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

import intarsia
from bench.common import alternate, parser, show, start, write
from intarsia import compression
from intarsia.compression.exporting.onnx_genai import export_onnx_genai
from intarsia.models import Model
from intarsia.models.runtime import open_runtime


def docstrings(model: Model, tokens: int) -> list[int]:
    """The first `tokens` ids of some modules' docstrings."""
    import argparse as a
    import asyncio.events as e
    import collections as c
    import json as j
    import logging as lg
    import statistics as s

    found = []
    for module in (a, e, c, j, lg, s):
        for _, item in sorted(inspect.getmembers(module, lambda o: inspect.isclass(o) or inspect.isfunction(o))):
            if text := inspect.getdoc(item):
                found.append(text)
    return model.tokenizer("\n\n".join(found))["input_ids"][:tokens]  # type: ignore[misc]


def off_grid(model: Model, seed: int = 0) -> Model:
    """The same function with other weights: factors exp(U(-0.3, 0.3)) moved between pairs of linear maps of a Llama."""
    generator = torch.Generator().manual_seed(seed)
    model = model.copy()

    def factors(count: int) -> torch.Tensor:
        return torch.exp(torch.rand(count, generator=generator) * 0.6 - 0.3)

    with torch.no_grad():
        for layer in model.network.model.layers:
            attention, mlp = layer.self_attn, layer.mlp
            for norm, users in (
                (layer.input_layernorm, (attention.q_proj, attention.k_proj, attention.v_proj)),
                (layer.post_attention_layernorm, (mlp.gate_proj, mlp.up_proj)),
            ):
                factor = factors(len(norm.weight))
                norm.weight.mul_(factor)
                for user in users:
                    user.weight.div_(factor)
            factor = factors(len(mlp.up_proj.weight))
            mlp.up_proj.weight.mul_(factor[:, None])
            mlp.down_proj.weight.div_(factor)
            factor = factors(len(attention.v_proj.weight))
            attention.v_proj.weight.mul_(factor[:, None])
            repeat = attention.o_proj.weight.shape[1] // len(factor)
            heads = factor.view(-1, attention.head_dim).repeat_interleave(repeat, 0).flatten()
            attention.o_proj.weight.div_(heads)
    return model


def logits_of(model: Model, windows: list[list[int]]) -> list[np.ndarray]:
    """All positions' logits of every window."""
    with torch.no_grad():
        return [model.network(torch.tensor([w])).logits[0].numpy() for w in windows]


def lost(base: list[np.ndarray], other: list[np.ndarray]) -> tuple[float, float]:
    """Mean KL(base || other) in nats a token, and the share of positions with the same first choice."""
    kl, same = [], []
    for ours, theirs in zip(base, other, strict=True):
        p, q = (torch.log_softmax(torch.from_numpy(x).double(), -1) for x in (ours, theirs))
        kl.append((p.exp() * (p - q)).sum(-1))
        same.append(ours.argmax(-1) == theirs.argmax(-1))
    return float(torch.cat(kl).mean()), float(np.concatenate(same).mean())


def cached_steps(model: Model, ids: list[int], steps: int) -> np.ndarray:
    """Logits of `steps` positions fed one token at a time after a prompt: where kernels for few rows work."""
    rows = []
    with torch.no_grad():
        output = model.network(torch.tensor([ids[:-steps]]), use_cache=True)
        for token in ids[-steps:]:
            output = model.network(torch.tensor([[token]]), past_key_values=output.past_key_values)
            rows.append(output.logits[0, -1].numpy())
    return np.stack(rows)


def torch_speed(model: Model, ids: list[int], steps: int) -> Callable[[], tuple[float, float]]:
    """Seconds of one prefill of `ids` and of one greedily decoded token."""

    def once() -> tuple[float, float]:
        with torch.no_grad():
            start = time.perf_counter()
            output = model.network(torch.tensor([ids]), use_cache=True)
            middle = time.perf_counter()
            for _ in range(steps):
                token = output.logits[:, -1:].argmax(-1)
                output = model.network(token, past_key_values=output.past_key_values)
            return middle - start, (time.perf_counter() - middle) / steps

    return once


def onnx_speed(path: Path, ids: list[int], steps: int) -> Callable[[], tuple[float, float]]:
    """The same for an exported folder."""
    runtime = open_runtime(path, torch.get_num_threads())

    def once() -> tuple[float, float]:
        start = time.perf_counter()
        generator = runtime._start(ids, steps + 1)  # type: ignore[attr-defined]
        middle = time.perf_counter()
        done = 0
        while not generator.is_done():
            generator.generate_next_token()
            done += 1
        return middle - start, (time.perf_counter() - middle) / max(done, 1)

    return once


def main() -> None:
    """Measure and print."""
    arguments = parser(__doc__)
    arguments.add_argument(
        "--model", default="smollm2-135m", help="a known name or a folder (a Llama with tied embeddings)"
    )
    options = arguments.parse_args()
    start(options)
    count, rounds, steps = (512, 2, 16) if options.quick else (1024, 4, 32)
    base = intarsia.load(options.model)
    ids = docstrings(base, count)
    windows = [ids[i : i + 256] for i in range(0, len(ids), 256)]
    prompt = ids[:256]
    figures: dict[str, float] = {}

    with tempfile.TemporaryDirectory() as scratch:
        speeds: dict[str, Callable[[], tuple[float, float]]] = {"fp32": torch_speed(base, prompt, steps)}
        for place, model in (("", base), ("offgrid_", off_grid(base))):
            truth = logits_of(model, windows)
            quantized = {}
            for bits in (8, 4):
                small = compression.quantize(model, bits=bits)
                quantized[bits] = small
                kl, same = lost(truth, logits_of(small, windows))
                figures[f"{place}int{bits}_kl"], figures[f"{place}int{bits}_top1"] = kl, same
                if not place:
                    folder = small.save(Path(scratch) / f"int{bits}")
                    figures[f"int{bits}_bytes"] = sum(f.stat().st_size for f in folder.glob("*.safetensors"))
                    speeds[f"int{bits}"] = torch_speed(small, prompt, steps)
            for embed in ("int8", "int4"):
                path = export_onnx_genai(quantized[4], Path(scratch) / f"{place}onnx-{embed}", embed=embed)
                runtime = open_runtime(path, torch.get_num_threads())
                answers = [runtime.logits(w) for w in windows]
                name = "onnx_int4" if embed == "int8" else "onnx_int4_embed4"
                figures[f"{place}{name}_kl"], figures[f"{place}{name}_top1"] = lost(truth, answers)
                if embed == "int8":
                    figures[f"{place}{name}_top1_of_torch_int4"] = lost(logits_of(quantized[4], windows), answers)[1]
                if not place:
                    figures[f"{name}_bytes"] = runtime.bytes
                    speeds[name] = onnx_speed(path, prompt, steps)
            if not place:
                # One token at a time, the 4-bit kernel computes in bfloat16: what that alone costs.
                exact = cached_steps(compression.quantize(model, bits=4, kernel="reference"), ids[:320], 64)
                figures["int4_packed_kernel_kl"] = lost([exact], [cached_steps(quantized[4], ids[:320], 64)])[0]

        best = {name: [np.inf, np.inf] for name in speeds}
        for name, once in alternate(speeds, rounds):
            best[name] = [min(a, b) for a, b in zip(best[name], once(), strict=True)]
    for name, (prefill, decode) in best.items():
        figures[f"{name}_prefill_tokens_per_second"] = len(prompt) / prefill
        figures[f"{name}_decode_tokens_per_second"] = 1 / decode
    figures["onnx_decode_over_torch_fp32"] = best["fp32"][1] / best["onnx_int4"][1]
    figures["fp32_bytes"] = sum(p.numel() * p.element_size() for p in base.network.parameters())

    rows = []
    for name in best:
        row = [name, f"{figures[f'{name}_bytes'] / 1e6:.1f}"]
        row += [f"{figures[f'{name}_{part}_tokens_per_second']:.1f}" for part in ("prefill", "decode")]
        if name != "fp32":
            kl, off, top = (figures[k] for k in (f"{name}_kl", f"offgrid_{name}_kl", f"offgrid_{name}_top1"))
            row += [f"{kl:.4f}", f"{off:.4f}", f"{top:.3f}"]
        rows.append(row)
    columns = ("", "MB", "prefill/s", "decode/s", "KL", "KL off grid", "top-1 off grid")
    show("Weights on grids", columns, rows)
    write(figures, options.json)


if __name__ == "__main__":
    main()
